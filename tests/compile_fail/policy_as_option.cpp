#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, BaseQuantizer, Budget>;
#else
using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget> >;
#endif
static_assert(sizeof(Config) > 0);
