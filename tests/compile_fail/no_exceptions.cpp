#include "pare/pare.hpp"
#ifdef PARE_MISUSE
// c++ -std=c++20 -O3 -fno-exceptions
#else
// c++ -std=c++20 -O3
#endif
