#include "pare/backend/eigen.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Eigen;
void gather(Calibration<B, float>& calibration, MatrixView<const bfloat16> X) {
#ifdef PARE_MISUSE
  calibration.add(X);
#else
  Matrix<float> floats(X.rows, X.cols);
  convert<B>(X, floats.view());
  calibration.add(floats);
#endif
}
