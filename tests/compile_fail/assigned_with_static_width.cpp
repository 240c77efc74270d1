#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, UniformQuantizer<4>, MixedPrecision<Assigned>>;
#else
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Assigned>>;
#endif
static_assert(sizeof(Config) > 0);
