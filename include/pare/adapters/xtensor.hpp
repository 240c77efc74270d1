// Tensors of xtensor as pare reads them, and pare's matrices as xtensor reads them.
#pragma once

#include <array>
#include <string>
#include <type_traits>
#include <xtensor/xadapt.hpp>
#include <xtensor/xexpression.hpp>
#include <xtensor/xlayout.hpp>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

template <class A>
concept XtensorExpression = xt::is_xexpression<std::remove_cvref_t<A>>::value;

/// Whether a tensor can be read where it lies. One message per misuse.
template <class A>
constexpr bool check_xtensor() {
  constexpr bool lies = xt::has_data_interface<A>::value;
  constexpr bool rows = A::static_layout != xt::layout_type::column_major;
  static_assert(lies,
                "pare: view(A) of an expression of xtensor: its numbers lie nowhere yet; write "
                "row_major_copy(A), or give it to an xt::xtensor first");
  static_assert(!lies || rows,
                "pare: view(A) of a column-major tensor of xtensor: pare reads rows; write "
                "row_major_copy(A), or xt::layout_type::row_major in the type of A");
  return lies && rows;
}

inline void require_two_sides(std::size_t sides) {
  if (sides != 2)
    throw shape_error("tensor of xtensor: expected two sides, got " + std::to_string(sides));
}

}  // namespace detail

/// A view of a tensor of two sides, or of a strided part of one. Nothing is copied.
/// @return (rows, cols); valid as long as the tensor
/// @throws shape_error for another number of sides, argument_error for columns that do not lie side
///         by side
template <detail::XtensorExpression Tensor>
auto view(const Tensor& A) {
  if constexpr (detail::check_xtensor<Tensor>()) {
    using T = std::remove_reference_t<decltype(*A.data())>;
    detail::require_two_sides(A.dimension());
    const index_t rows = index_t(A.shape()[0]), cols = index_t(A.shape()[1]);
    const index_t step = index_t(A.strides()[0]);
    require_rows("tensor of xtensor", rows, cols, step, index_t(A.strides()[1]));
    return MatrixView<const T>(A.data() + A.data_offset(), rows, cols, rows > 1 ? step : cols);
  } else {
    return MatrixView<const typename Tensor::value_type>();
  }
}

/// The elements of a tensor or expression of two sides, copied row by row, whatever its layout.
/// Throws shape_error for another number of sides.
template <detail::XtensorExpression Tensor>
Matrix<typename Tensor::value_type> row_major_copy(const Tensor& A) {
  detail::require_two_sides(A.dimension());
  Matrix<typename Tensor::value_type> result(index_t(A.shape()[0]), index_t(A.shape()[1]));
  for (index_t r = 0; r < result.rows(); ++r)
    for (index_t c = 0; c < result.cols(); ++c) result(r, c) = A(std::size_t(r), std::size_t(c));
  return result;
}

/// What a view shows as a tensor of xtensor. Nothing is copied; valid as long as the view's memory.
template <class T>
auto as_xtensor(MatrixView<T> A) {
  const std::array<std::size_t, 2> shape{std::size_t(A.rows), std::size_t(A.cols)};
  const std::array<std::ptrdiff_t, 2> strides{A.stride, 1};
  const auto size = std::size_t(A.size());  // of its elements, whatever lies between the rows
  return xt::adapt(A.data, size, xt::no_ownership(), shape, strides);
}

}  // namespace pare
