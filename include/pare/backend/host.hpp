// What all backends that compute in host memory share: the memory, and how the tuned ones spread
// work over the cores.
#pragma once

#include <algorithm>
#include <cmath>

#include "pare/core/backend.hpp"

namespace pare::inline PARE_TARGET::backend {

/// Host memory: owning matrices are pare::Matrix, transfers are copies.
struct HostMemory {
  /// Owning matrices.
  template <class T>
  using matrix = Matrix<T>;

  /// A copy in the backend's memory.
  template <class T>
  static Matrix<T> from_host(MatrixView<const T> v) {
    return Matrix<T>(v);
  }
  /// The same of a view that may be written through.
  template <class T>
  static Matrix<T> from_host(MatrixView<T> v) {
    return Matrix<T>(MatrixView<const T>(v));
  }
  /// A copy in host memory.
  template <class T>
  static Matrix<T> to_host(MatrixView<const T> v) {
    return Matrix<T>(v);
  }
  /// Copies a matrix onto another of the same shape.
  template <class T>
  static void copy(MatrixView<const T> from, MatrixView<T> to) {
    require_shape("copy", {to.rows, to.cols}, {from.rows, from.cols});
    for (index_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, to.row(r));
  }
};

/// Tasks on the threads of OpenMP.
struct OpenMPTasks {
  /// Calls f(i) once for every i in [0, n), several at a time. f must not throw.
  template <class F>
  static void run(index_t n, const F& f) {
    detail::host_parallel_for(n, f);
  }
};

/// A task for every `chunk` of the indices in [0, n): f(i) for each, in order within a task.
template <class Tasks, class F>
void run_in_chunks(index_t n, index_t chunk, const F& f) {
  Tasks::run((n + chunk - 1) / chunk, [&](index_t task) {
    const index_t end = std::min(n, (task + 1) * chunk);
    for (index_t i = task * chunk; i < end; ++i) f(i);
  });
}

}  // namespace pare::backend
