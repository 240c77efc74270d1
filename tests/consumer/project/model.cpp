// Tokenizes with the vocabulary of the folder named on the command line.
#include <cstdio>
#include <filesystem>

#include "pare/core/version.hpp"
#include "pare/tokenizer/tokenizer.hpp"

int main(int, char** arguments) {
  const std::filesystem::path folder = arguments[1];
  const auto tokenizer = pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
  const auto tokens = tokenizer.encode("one layer of a model");
  std::printf("pare %d.%d.%d: %zu tokens\n", PARE_VERSION_MAJOR, PARE_VERSION_MINOR,
              PARE_VERSION_PATCH, tokens.size());
  return tokens.empty() ? 1 : 0;
}
