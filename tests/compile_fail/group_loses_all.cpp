#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<NofM<4, 4>>;
#else
using Config = Compression<NofM<2, 4>>;
#endif
static_assert(sizeof(Config) > 0);
