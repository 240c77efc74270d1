#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
#ifdef PARE_MISUSE
using Weights = MatrixView<const double>;
#else
using Weights = MatrixView<const float>;
#endif
auto compress(Solver& solver, const Weights& W, const Calibration<B, float>& inputs) {
  return solver.solve(W, inputs);
}
