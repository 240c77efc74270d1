// The solver on the GPU, for tensors on it.
#include "pare/backend/cuda/thrust_cuda.cuh"
#include "solve.hpp"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  torch_pare::bind<pare::backend::Thrust<pare::backend::system::cuda>, torch::kCUDA,
                   pare::backend::cuda::synchronize>(m);
}
