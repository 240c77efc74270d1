#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using B = int;
static_assert(!Backend<B, float>);
#else
using B = backend::Reference;
static_assert(Backend<B, float>);
#endif
const Calibration<B, float> calibration(8);
