#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, BaseQuantizer,
                           MixedPrecision<Budget, Tiers<2, 3, 4>, TargetAverageBits<5>>>;
#else
using Config = Compression<Unstructured, BaseQuantizer,
                           MixedPrecision<Budget, Tiers<2, 3, 4>, TargetAverageBits<4>>>;
#endif
static_assert(sizeof(Config) > 0);
