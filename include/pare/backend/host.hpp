// What all backends that compute in host memory share.
#pragma once

#include <cmath>

#include "pare/core/backend.hpp"

namespace pare::backend {

/// Host memory: owning matrices are pare::Matrix, transfers are copies.
struct HostMemory {
  template <class T>
  using matrix = Matrix<T>;

  template <class T>
  static Matrix<T> from_host(MatrixView<const T> v) { return Matrix<T>(v); }
  template <class T>
  static Matrix<T> from_host(MatrixView<T> v) { return Matrix<T>(MatrixView<const T>(v)); }
  template <class T>
  static Matrix<T> to_host(MatrixView<const T> v) { return Matrix<T>(v); }
  /// Copies a matrix onto another of the same shape.
  template <class T>
  static void copy(MatrixView<const T> from, MatrixView<T> to) {
    require_shape("copy", {to.rows, to.cols}, {from.rows, from.cols});
    for (index_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, to.row(r));
  }
};

}  // namespace pare::backend
