#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Hessian = Matrix<double>;
#else
using Hessian = Matrix<float>;
#endif
auto calibrate(const Hessian& H) { return Calibration<B, float>::from_hessian(H); }
