#include "pare/allocation/allocator.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Allocator = BitAllocator<double>;
#else
using Allocator = BitAllocator<Budget>;
#endif
static_assert(sizeof(Allocator) > 0);
