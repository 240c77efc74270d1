#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(UniformQuantizer<9>::bits == 9);
