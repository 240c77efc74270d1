#include "pare/solver/compression.hpp"
using namespace pare;
using Config = Compression<Unstructured, MixedPrecision<Budget>>;
static_assert(Config::mixed);
