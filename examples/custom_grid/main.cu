// nvcc compiles this: the same quantizers on the GPU.
#include "pare/backend/cuda/thrust_cuda.cuh"
#include "solve.hpp"

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU found");
    return 0;
  }
  return solve_with_own_grids<pare::backend::Thrust<pare::backend::system::cuda>>();
}
