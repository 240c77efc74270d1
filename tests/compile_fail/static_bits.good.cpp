#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(UniformQuantizer<8>::bits == 8);
