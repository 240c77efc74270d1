#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Assigned>>;
auto compress(SparseGPTSolver<Config, B, float>& solver, MatrixView<const float> W,
              const Calibration<B, float>& inputs, const Factor<B, float>& factor,
              std::span<const std::uint8_t> bits) {
#ifdef PARE_MISUSE
  return solver.solve({.weights = W, .calibration = inputs, .factor = factor});
#else
  return solver.solve({.weights = W, .calibration = inputs, .factor = factor, .bits = bits});
#endif
}
