#include "pare/pare.hpp"
#ifdef PARE_MISUSE
// c++ -std=c++20 -O3 -ffast-math
#else
// c++ -std=c++20 -O3 -ffast-math -fno-finite-math-only
#endif
