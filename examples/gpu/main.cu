// nvcc compiles this: the GPU.
#include "pare/backend/cuda/thrust_cuda.cuh"
#include "solve.hpp"

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU found");
    return 0;
  }
  return solve_one<pare::backend::Thrust<pare::backend::system::cuda>>();
}
