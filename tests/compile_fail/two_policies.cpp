#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Quantile>, MixedPrecision<Budget>>;
#else
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Budget>>;
#endif
static_assert(sizeof(Config) > 0);
