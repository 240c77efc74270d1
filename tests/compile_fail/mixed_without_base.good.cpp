#include "pare/solver/compression.hpp"
using namespace pare;
using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;
static_assert(Config::mixed);
