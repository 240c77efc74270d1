#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
/// As the matrices of a GPU are: not read by the host, so not a view by themselves.
struct DeviceMatrix {
  MatrixView<const float> view() const;
};
void gather(Calibration<B, float>& calibration, const DeviceMatrix& X) {
#ifdef PARE_MISUSE
  calibration.add(X);
#else
  calibration.add(X.view());
#endif
}
