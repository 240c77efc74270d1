// The solver on the cores, for tensors on the CPU.
#include "pare/backend/eigen.hpp"
#include "solve.hpp"

namespace {
void nothing_to_wait_for() {}
}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  torch_pare::bind<pare::backend::Eigen, torch::kCPU, nothing_to_wait_for>(m);
}
