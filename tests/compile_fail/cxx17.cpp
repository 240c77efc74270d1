#include "pare/pare.hpp"
#ifdef PARE_MISUSE
// c++ -std=c++17 -O3
#else
// c++ -std=c++20 -O3
#endif
