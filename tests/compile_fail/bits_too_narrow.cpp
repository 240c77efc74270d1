#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, UniformQuantizer<1>>;
#else
using Config = Compression<Dense, UniformQuantizer<2>>;
#endif
static_assert(sizeof(Config) > 0);
