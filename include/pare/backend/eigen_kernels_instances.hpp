// Compiles Eigen's kernels for float and double. One source file of a program includes this header;
// the others are compiled with PARE_EXTERN_KERNELS and spare the time.
#pragma once

#include "pare/backend/eigen_kernels.hpp"

namespace pare::inline PARE_TARGET::backend {

PARE_EIGEN_KERNELS(, float)
PARE_EIGEN_KERNELS(, double)

}  // namespace pare::backend
