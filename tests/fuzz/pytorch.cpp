// PytorchFile on any bytes: archive, pickle, and reading every tensor.
#include "pare/storage/pytorch.hpp"
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view content) {
    const test::MemoryFile file(content);
    const pare::PytorchFile opened(file.path());
    for (const pare::TensorInfo& info : opened.tensors()) {
      opened.read_bytes(info.name);
      if (pare::float_dtype(info.dtype) && (info.shape.size() == 1 || info.shape.size() == 2))
        opened.read_float(info.name);
    }
  });
}
