#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<>;
#else
using Config = Compression<Unstructured>;
#endif
static_assert(sizeof(Config) > 0);
