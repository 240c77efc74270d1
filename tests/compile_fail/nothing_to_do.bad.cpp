#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(!Compression<Dense>::prunes);
