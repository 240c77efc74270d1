// Where a Thrust backend runs, as types, so that one program can hold several.
#pragma once

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET::backend {

namespace system {

struct cpp {};   ///< one host thread
struct omp {};   ///< OpenMP
struct tbb {};   ///< oneTBB
struct cuda {};  ///< one NVIDIA GPU; needs nvcc

}  // namespace system

/// A backend on Thrust's algorithms. thrust.hpp and thrust_tbb.hpp have the host systems,
/// cuda/thrust_cuda.cuh the GPU.
template <class System>
struct Thrust;

}  // namespace pare::backend
