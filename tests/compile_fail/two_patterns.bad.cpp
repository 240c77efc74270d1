#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(Compression<Unstructured, Dense, BaseQuantizer>::prunes);
