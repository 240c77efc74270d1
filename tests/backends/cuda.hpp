// The GPU.
#pragma once

#include <tuple>

#include "pare/backend/cuda/thrust_cuda.cuh"

namespace test {

using Backends = std::tuple<pare::backend::Thrust<pare::backend::system::cuda>>;

/// Calls f(). Host threads take no part in the work.
template <class F>
void on_threads(int, const F& f) {
  f();
}

}  // namespace test
