#include "pare/backend/eigen.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Solver = SparseGPTSolver<Compression<Unstructured>, backend::Eigen, long double>;
#else
using Solver = SparseGPTSolver<Compression<Unstructured>, backend::Eigen, double>;
#endif
static_assert(sizeof(Solver) > 0);
