#include "pare/adapters/eigen.hpp"
#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
auto compress(Solver& solver, const Calibration<B, float>& inputs) {
  Eigen::MatrixXf W(32, 64);  // (out, in), column by column
#ifdef PARE_MISUSE
  return solver.solve(W, inputs);
#else
  return solver.solve(row_major_copy(W), inputs);
#endif
}
