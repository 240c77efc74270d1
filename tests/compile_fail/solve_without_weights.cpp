#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
auto compress(Solver& solver, MatrixView<const float> W, const Calibration<B, float>& inputs) {
#ifdef PARE_MISUSE
  (void)W;
  return solver.solve({.calibration = inputs});
#else
  return solver.solve({.weights = W, .calibration = inputs});
#endif
}
