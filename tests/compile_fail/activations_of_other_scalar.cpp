#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Activations = MatrixView<const double>;
#else
using Activations = MatrixView<const float>;
#endif
void gather(Calibration<B, float>& calibration, const Activations& X) { calibration.add(X); }
