// Linked into every GPU test: ends the program, successfully, where there is no GPU.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <iostream>

namespace {

[[maybe_unused]] const bool has_gpu = [] {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return true;
  std::cout << "skipped: no GPU" << std::endl;
  std::exit(EXIT_SUCCESS);
}();

}  // namespace
