#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Budget>>;
#else
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Assigned>>;
#endif
auto compress(SparseGPTSolver<Config, B, float>& solver, MatrixView<const float> W,
              const Calibration<B, float>& inputs, std::span<const std::uint8_t> bits) {
  return solver.solve({.weights = W, .calibration = inputs, .bits = bits});
}
