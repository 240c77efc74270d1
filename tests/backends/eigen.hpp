// The oracle and the Eigen backend.
#pragma once

#include <tuple>

#include "threads.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/backend/reference.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Reference, pare::backend::Eigen>;

/// Calls f() with `threads` threads for the backends above.
template <class F>
void on_threads(int threads, const F& f) { on_openmp_threads(threads, f); }

}  // namespace test
