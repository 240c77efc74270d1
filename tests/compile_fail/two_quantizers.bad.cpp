#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(Compression<Dense, UniformQuantizer<4>, BaseQuantizer>::quantizes);
