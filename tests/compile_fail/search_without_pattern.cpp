#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Dense, BaseQuantizer, Alternating>;
#else
using Config = Compression<NofM<2, 4>, BaseQuantizer, Alternating>;
#endif
static_assert(sizeof(Config) > 0);
