#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Config = Unstructured;
#else
using Config = Compression<Unstructured>;
#endif
static_assert(sizeof(SparseGPTSolver<Config, B, float>) > 0);
