// Runs on a given number of OpenMP threads.
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace test {

/// Calls f() with `threads` OpenMP threads; without OpenMP just calls it.
template <class F>
void on_openmp_threads([[maybe_unused]] int threads, const F& f) {
#if defined(_OPENMP)
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  f();
  omp_set_num_threads(before);
#else
  f();
#endif
}

}  // namespace test
