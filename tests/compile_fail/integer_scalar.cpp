#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Inputs = Calibration<B, int>;
static_assert(!Backend<B, int>);
#else
using Inputs = Calibration<B, float>;
static_assert(Backend<B, float>);
#endif
const Inputs calibration(8);
