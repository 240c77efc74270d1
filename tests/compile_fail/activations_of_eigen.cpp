#include "pare/adapters/eigen.hpp"
#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
void gather(Calibration<B, float>& calibration) {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> X(128, 64);  // (tokens, in)
#ifdef PARE_MISUSE
  calibration.add(X);
#else
  calibration.add(view(X));
#endif
}
