// Matrices where a backend computes: zeros, conversions, vectors moved there.
#pragma once

#include <cstdint>
#include <vector>

#include "pare/core/backend.hpp"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/masks.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Zeros (rows, cols) where the backend computes.
template <class B, class U>
typename B::template matrix<U> zeros(index_t rows, index_t cols) {
  typename B::template matrix<U> result(rows, cols);
  B::for_each_element(rows, cols, kernels::SetZero<U>{result.view()});
  return result;
}

/// A vector of plain numbers where the backend can reach it, (1, n).
template <class B, class U>
typename B::template matrix<U> to_backend(const std::vector<U>& values) {
  return B::from_host(MatrixView<const U>(values.data(), 1, index_t(values.size())));
}

/// Moments over rows of each column of A, (3, cols): mean |a|, mean a, sum of squared deviations.
template <class B, class T>
Matrix<double> column_moments(MatrixView<const T> A) {
  typename B::template matrix<double> moments(3, A.cols);
  B::column_moments(A, moments.view());
  return B::to_host(MatrixView<const double>(moments.view()));
}

}  // namespace detail

/// The mask that keeps the zeros of a pruned linear: (out, in), 1 where W (out, in) is zero. Both
/// lie in the backend's memory.
/// @throws shape_error, argument_error for a view that cannot be read
template <class B, class T>
typename B::template matrix<std::uint8_t> zero_mask(MatrixView<const T> W) {
  require_view("W (out, in)", W);
  typename B::template matrix<std::uint8_t> mask(W.rows, W.cols);
  B::for_each_element(W.rows, W.cols, kernels::MarkZeros<T>{W, mask.view()});
  return mask;
}

/// Copies a matrix onto another of the same shape and another scalar, rounding to nearest. Both lie
/// in the backend's memory.
/// @throws shape_error when the shapes differ, and argument_error for views that cannot be used
template <class B, class From, class To>
void convert(MatrixView<const From> from, MatrixView<To> to) {
  require_view("convert: from", from);
  require_view("convert: to", to);
  require_shape("convert", {to.rows, to.cols}, {from.rows, from.cols});
  B::for_each_element(to.rows, to.cols, kernels::ConvertElement<From, To>{from, to});
}

}  // namespace pare
