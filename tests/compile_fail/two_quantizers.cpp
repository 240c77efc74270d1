#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, UniformQuantizer<4>, BaseQuantizer>;
#else
using Config = Compression<Dense, UniformQuantizer<4> >;
#endif
static_assert(sizeof(Config) > 0);
