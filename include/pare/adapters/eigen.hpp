// Matrices of Eigen as pare reads them, and pare's as Eigen reads them.
#pragma once

#include <Eigen/Core>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Whether a matrix of Eigen can be read where it lies. One message per misuse.
template <class Derived>
constexpr bool check_eigen() {
  constexpr bool lies = (int(Derived::Flags) & int(::Eigen::DirectAccessBit)) != 0;
  constexpr bool rows = bool(Derived::IsRowMajor) || int(Derived::ColsAtCompileTime) == 1;
  static_assert(lies,
                "pare: view(A) of an expression of Eigen: its numbers lie nowhere yet; write "
                "row_major_copy(A), or give it to a row-major matrix first");
  static_assert(!lies || rows,
                "pare: view(A) of a column-major matrix of Eigen: pare reads rows; write "
                "row_major_copy(A), or Eigen::RowMajor in the type of A");
  return lies && rows;
}

template <class T, class Derived>
MatrixView<T> eigen_view(T* data, const Derived& a) {
  const index_t rows = a.rows(), cols = a.cols();
  if constexpr (int(Derived::ColsAtCompileTime) == 1 && !bool(Derived::IsRowMajor)) {
    require_rows("matrix of Eigen", rows, cols, a.innerStride(), 1);
    return {data, rows, cols, rows > 1 ? a.innerStride() : cols};
  } else {
    require_rows("matrix of Eigen", rows, cols, a.outerStride(), a.innerStride());
    return {data, rows, cols, rows > 1 ? a.outerStride() : cols};
  }
}

/// A row-major matrix of Eigen of any size.
template <class T>
using EigenRows =
    ::Eigen::Matrix<std::remove_const_t<T>, ::Eigen::Dynamic, ::Eigen::Dynamic, ::Eigen::RowMajor>;

}  // namespace detail

/// A view of a row-major matrix of Eigen, a map or block of one, or a vector. Nothing is copied.
/// @return (rows, cols); valid as long as the matrix
/// @throws argument_error for columns that do not lie side by side
template <class Derived>
MatrixView<const typename Derived::Scalar> view(const ::Eigen::DenseBase<Derived>& A) {
  if constexpr (detail::check_eigen<Derived>())
    return detail::eigen_view(A.derived().data(), A.derived());
  else
    return {};
}

/// The elements of a matrix or expression of Eigen, copied row by row, whatever its layout.
template <class Derived>
Matrix<typename Derived::Scalar> row_major_copy(const ::Eigen::DenseBase<Derived>& A) {
  const auto& a = A.derived().eval();
  Matrix<typename Derived::Scalar> result(a.rows(), a.cols());
  for (index_t r = 0; r < result.rows(); ++r)
    for (index_t c = 0; c < result.cols(); ++c) result(r, c) = a(r, c);
  return result;
}

/// What a view shows as a matrix of Eigen. Nothing is copied; valid as long as the view's memory.
template <class T>
auto as_eigen(MatrixView<T> A) {
  using Rows = detail::EigenRows<T>;
  using Seen = std::conditional_t<std::is_const_v<T>, const Rows, Rows>;
  return ::Eigen::Map<Seen, 0, ::Eigen::OuterStride<>>(A.data, A.rows, A.cols,
                                                       ::Eigen::OuterStride<>(A.stride));
}

}  // namespace pare
