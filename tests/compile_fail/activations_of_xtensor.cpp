#include <xtensor/xtensor.hpp>
#include "pare/adapters/xtensor.hpp"
#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
void gather(Calibration<B, float>& calibration, const xt::xtensor<float, 2>& X) {
#ifdef PARE_MISUSE
  calibration.add(X);
#else
  calibration.add(pare::view(X));
#endif
}
