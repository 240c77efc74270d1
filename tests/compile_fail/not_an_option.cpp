#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<int, BaseQuantizer>;
#else
using Config = Compression<Dense, BaseQuantizer>;
#endif
static_assert(sizeof(Config) > 0);
