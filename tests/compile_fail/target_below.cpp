#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, TargetAverageBits<3, 2>>>;
#else
using Config =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, TargetAverageBits<5, 2>>>;
#endif
static_assert(sizeof(Config) > 0);
