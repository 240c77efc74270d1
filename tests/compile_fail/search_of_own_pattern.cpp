#include "pare/solver/compression.hpp"
using namespace pare;
struct Columns : PatternOption {};
#ifdef PARE_MISUSE
using Config = Compression<Columns, Alternating>;
#else
using Config = Compression<Columns, Refined>;
#endif
static_assert(sizeof(Config) > 0);
