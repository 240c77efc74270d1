// The xtensor backend.
#pragma once

#include <tuple>

#include "pare/backend/xtensor.hpp"
#include "threads.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Xtensor>;

/// Calls f() with `threads` threads for OpenMP and for OpenBLAS.
template <class F>
void on_threads(int threads, const F& f) {
  const int before = openblas_get_num_threads();
  openblas_set_num_threads(threads);
  on_openmp_threads(threads, f);
  openblas_set_num_threads(before);
}

}  // namespace test
