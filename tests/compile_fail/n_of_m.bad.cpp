#include "pare/solver/compression.hpp"
using namespace pare;
static_assert(NofM<4, 4>::group == 4);
