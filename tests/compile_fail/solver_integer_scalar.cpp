#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Solver = SparseGPTSolver<Compression<Unstructured>, B, short>;
#else
using Solver = SparseGPTSolver<Compression<Unstructured>, B, float>;
#endif
static_assert(sizeof(Solver) > 0);
