#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Config = Compression<Unstructured, BaseQuantizer, BaseQuantizer>;
#else
using Config = Compression<Unstructured, BaseQuantizer>;
#endif
static_assert(sizeof(Config) > 0);
