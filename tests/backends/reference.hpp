// The oracle.
#pragma once

#include <tuple>

#include "pare/backend/reference.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Reference>;

/// Calls f(). The oracle has one thread.
template <class F>
void on_threads(int, const F& f) {
  f();
}

}  // namespace test
