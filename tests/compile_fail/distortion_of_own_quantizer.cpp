#include "pare/solver/compression.hpp"
using namespace pare;
struct Own : BaseQuantizer {};
#ifdef PARE_MISUSE
using Config = Compression<Dense, Own, MixedPrecision<Budget, GridDistortion>>;
#else
using Config = Compression<Dense, Own, MixedPrecision<Budget, FiveSignals>>;
#endif
static_assert(sizeof(Config) > 0);
