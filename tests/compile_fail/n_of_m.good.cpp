#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(NofM<2, 4>::group == 4);
