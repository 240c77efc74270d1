#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Inputs = Calibration<B, long double>;
static_assert(!Backend<B, long double>);
#else
using Inputs = Calibration<B, double>;
static_assert(Backend<B, double>);
#endif
const Inputs calibration(8);
