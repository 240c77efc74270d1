#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
void gather(Calibration<B, float>& calibration, const float* X) {
#ifdef PARE_MISUSE
  calibration.add(X);
#else
  calibration.add(MatrixView<const float>(X, 128, 64));  // (tokens, in)
#endif
}
