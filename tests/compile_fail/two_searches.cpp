#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, Alternating, Refined>;
#else
using Config = Compression<Unstructured, Alternating>;
#endif
static_assert(sizeof(Config) > 0);
