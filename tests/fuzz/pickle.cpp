// The pickle reader on any bytes, and a PytorchFile around a pickle that it takes.
#include "../torch_files.hpp"
#include "fuzz.hpp"
#include "pare/storage/pytorch.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view pickle) {
    pare::detail::read_tensor_pickle("fuzz", pickle);
    const test::MemoryFile file(
        test::torch_file(std::string(pickle), {{"0", std::string(32, '\1')}}));
    const pare::PytorchFile opened(file.path());
    for (const pare::TensorInfo& info : opened.tensors()) opened.read_bytes(info.name);
  });
}
