#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, UniformQuantizer<9>>;
#else
using Config = Compression<Dense, UniformQuantizer<8>>;
#endif
static_assert(sizeof(Config) > 0);
