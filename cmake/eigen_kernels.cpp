// The kernels that all programs of this repository share.
#include "pare/backend/eigen_kernels_instances.hpp"
