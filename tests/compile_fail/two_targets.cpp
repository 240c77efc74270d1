#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, BaseQuantizer,
                           MixedPrecision<Budget, TargetAverageBits<3>, TargetAverageBits<4>>>;
#else
using Config =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, TargetAverageBits<4>>>;
#endif
static_assert(sizeof(Config) > 0);
