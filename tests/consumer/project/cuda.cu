#include "pare/backend/cuda/thrust_cuda.cuh"
#include "solve.hpp"

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("pare %d.%d.%d cuda: no GPU here, built and linked only\n", PARE_VERSION_MAJOR,
                PARE_VERSION_MINOR, PARE_VERSION_PATCH);
    return 0;
  }
  return solve_one_layer<pare::backend::Thrust<pare::backend::system::cuda>>();
}
