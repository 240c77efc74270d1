#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
#ifdef PARE_MISUSE
using Inputs = Calibration<B, double>;
#else
using Inputs = Calibration<B, float>;
#endif
auto factor(const Solver& solver, const Inputs& inputs) { return solver.prepare(inputs); }
