// Thrust on the systems that need no further library.
#pragma once

#include <tuple>

#include "threads.hpp"
#include "pare/backend/thrust.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Thrust<pare::backend::system::cpp>,
                            pare::backend::Thrust<pare::backend::system::omp>>;

/// Calls f() with `threads` threads for the backends above.
template <class F>
void on_threads(int threads, const F& f) { on_openmp_threads(threads, f); }

}  // namespace test
