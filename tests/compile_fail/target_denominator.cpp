#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, TargetAverageBits<7, 0>>>;
#else
using Config =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, TargetAverageBits<7, 2>>>;
#endif
static_assert(sizeof(Config) > 0);
