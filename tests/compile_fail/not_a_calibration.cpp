#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
#ifdef PARE_MISUSE
using Inputs = MatrixView<const float>;
#else
using Inputs = Calibration<B, float>;
#endif
auto compress(Solver& solver, MatrixView<const float> W, const Inputs& inputs) {
  return solver.solve(W, inputs);
}
