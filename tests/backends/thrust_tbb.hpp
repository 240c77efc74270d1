// Thrust on TBB.
#pragma once

#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <tuple>

#include "pare/backend/thrust_tbb.hpp"
#include "threads.hpp"

namespace test {

using Backends = std::tuple<pare::backend::Thrust<pare::backend::system::tbb>>;

/// Calls f() with `threads` threads for the backend above, and for OpenMP, which it must not use.
template <class F>
void on_threads(int threads, const F& f) {
  const tbb::global_control workers(tbb::global_control::max_allowed_parallelism,
                                    std::size_t(threads));
  tbb::task_arena arena(threads);
  on_openmp_threads(threads, [&] { arena.execute(f); });
}

}  // namespace test
