// The Eigen backend.
#pragma once

#include <tuple>

#include "pare/backend/eigen.hpp"
#include "threads.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Eigen>;

/// Calls f() with `threads` threads for the backend above.
template <class F>
void on_threads(int threads, const F& f) {
  on_openmp_threads(threads, f);
}

}  // namespace test
