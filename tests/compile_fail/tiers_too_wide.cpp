#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, Tiers<4, 8, 16>>>;
#else
using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, Tiers<4, 6, 8>>>;
#endif
static_assert(sizeof(Config) > 0);
