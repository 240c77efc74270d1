#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
#ifdef PARE_MISUSE
using U = Factor<B, double>;
#else
using U = Factor<B, float>;
#endif
auto compress(Solver& solver, MatrixView<const float> W, const Calibration<B, float>& inputs,
              const U& factor) {
  return solver.solve({.weights = W, .calibration = inputs, .factor = factor});
}
