#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Assigned>>;
#ifdef PARE_MISUSE
using Widths = std::vector<int>;
#else
using Widths = std::vector<std::uint8_t>;
#endif
auto compress(SparseGPTSolver<Config, B, float>& solver, MatrixView<const float> W,
              const Calibration<B, float>& inputs, const Widths& bits) {
  return solver.solve({.weights = W, .calibration = inputs, .bits = bits});
}
