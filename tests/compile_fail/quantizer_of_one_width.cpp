#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
struct Own : UniformQuantizer<4> {};
using Config = Compression<Dense, Own, MixedPrecision<Budget>>;
#else
struct Own : BaseQuantizer {};
using Config = Compression<Dense, Own, MixedPrecision<Budget>>;
#endif
static_assert(sizeof(Config) > 0);
