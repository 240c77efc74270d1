// Reads model.safetensors of the folder named on the command line.
#include <cstdio>
#include <filesystem>

#include "pare/core/version.hpp"
#include "pare/storage/safetensors.hpp"

int main(int, char** arguments) {
  const pare::SafetensorsFile file(std::filesystem::path(arguments[1]) / "model.safetensors");
  std::printf("pare %d.%d.%d: %zu tensors\n", PARE_VERSION_MAJOR, PARE_VERSION_MINOR,
              PARE_VERSION_PATCH, file.tensors().size());
  return file.tensors().empty() ? 1 : 0;
}
