#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Mixed = MixedPrecision<Assigned, Tiers<2, 3, 4>>;
#else
using Mixed = MixedPrecision<Assigned>;
#endif
using Config = Compression<Dense, BaseQuantizer, Mixed>;
static_assert(sizeof(Config) > 0);
