#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Dense, BaseQuantizer>, B, float>;
#ifdef PARE_MISUSE
using Mask = Matrix<float>;
#else
using Mask = Matrix<std::uint8_t>;
#endif
auto compress(Solver& solver, MatrixView<const float> W, const Calibration<B, float>& inputs,
              const Mask& mask) {
  return solver.solve({.weights = W, .calibration = inputs, .mask = mask});
}
