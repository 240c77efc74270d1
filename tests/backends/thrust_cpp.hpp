// Thrust on one thread.
#pragma once

#include <tuple>

#include "pare/backend/thrust.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Thrust<pare::backend::system::cpp>>;

/// Calls f(). The system has one thread.
template <class F>
void on_threads(int, const F& f) {
  f();
}

}  // namespace test
