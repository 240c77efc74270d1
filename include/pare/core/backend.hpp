// What an algorithm may ask of the place where it computes.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {
struct NoOpRow {
  PARE_HOST_DEVICE void operator()(index_t) const {}
};
struct NoOpElement {
  PARE_HOST_DEVICE void operator()(index_t, index_t) const {}
};
}  // namespace detail

/// A set of static functions on views of memory that the backend can reach.
///
/// - `matrix<U>`: owning, with `view()` and `resize(rows, cols)`.
/// - `from_host(view)`, `to_host(view)`, `copy(from, to)`: move elements between memories.
/// - `for_each_row(n, f)`, `for_each_element(rows, cols, f)`: f(row), f(row, col), any order.
/// - `find_non_finite(A)`: flat row-major index of the first NaN or infinity, -1 when none.
/// - `column_moments(X, M)`: M (3, in) = mean |x|, mean x, sum of squared deviations per column.
/// - `gram_accumulate(G, X)`: G (in, in) += X^T X for X (tokens, in).
/// - `inverse_factor(A)`: overwrites the symmetric A (n, n) with the upper triangular U of
///   inv(A) = U^T U, zeros below; false when A is not positive definite.
/// - `multiply(C, A, B)`: C = A B.
/// - `trailing_update(W, E, U)`: W -= E U.
/// - `select_smallest(W, d, k, mask)`: marks the k smallest |w_ij| / d_j of W; ties go to the
///   lower row-major index.
/// - `row_sweep(sweep)`: runs a RowSweep over all its rows.
///
/// A backend may store numbers in types it does not compute in, `stores<S>`; then `copy`,
/// `from_host`, `to_host`, `find_non_finite(A)`, and X of `column_moments` and `gram_accumulate`
/// take S too.
template <class B, class T>
concept Backend = std::floating_point<T> &&
    requires(MatrixView<T> a, MatrixView<const T> c, MatrixView<double> moments,
             MatrixView<std::uint8_t> mask, typename B::template matrix<T> owner) {
  { B::name } -> std::convertible_to<std::string_view>;
  requires B::template supports<T>;
  { owner.view() } -> std::convertible_to<MatrixView<T>>;
  { B::from_host(c) } -> std::same_as<typename B::template matrix<T>>;
  { B::to_host(c) } -> std::same_as<Matrix<T>>;
  B::copy(c, a);
  B::for_each_row(index_t{}, detail::NoOpRow{});
  B::for_each_element(index_t{}, index_t{}, detail::NoOpElement{});
  { B::find_non_finite(c) } -> std::same_as<index_t>;
  B::column_moments(c, moments);
  B::gram_accumulate(a, c);
  { B::inverse_factor(a) } -> std::same_as<bool>;
  B::multiply(a, c, c);
  B::trailing_update(a, c, c);
  B::select_smallest(c, c, index_t{}, mask);
};

namespace detail {

template <class U>
struct SetZero {
  MatrixView<U> A;
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { A(r, c) = U(0); }
};

/// Zeros (rows, cols) where the backend computes.
template <class B, class U>
typename B::template matrix<U> zeros(index_t rows, index_t cols) {
  typename B::template matrix<U> result;
  result.resize(rows, cols);
  B::for_each_element(rows, cols, SetZero<U>{result.view()});
  return result;
}

template <class B>
inline constexpr bool named_memory = requires {
  { B::name } -> std::convertible_to<std::string_view>;
  typename B::template matrix<float>;
};
template <class B, class T>
inline constexpr bool supports_scalar = false;
template <class B, class T>
  requires requires { requires B::template supports<T>; }
inline constexpr bool supports_scalar<B, T> = true;

/// What B computes in it stores too.
template <class B, class S>
inline constexpr bool stores_scalar = supports_scalar<B, S>;
template <class B, class S>
  requires requires { requires B::template stores<S>; }
inline constexpr bool stores_scalar<B, S> = true;

/// What every template over a backend and a scalar asserts first; always true. Later checks stand
/// behind earlier ones, so that one misuse gives one message.
template <class B, class T>
constexpr bool check_backend() {
  static_assert(std::floating_point<T>,
                "pare: a scalar that is not a floating-point number: the mathematics needs "
                "fractions; write float or double");
  if constexpr (std::floating_point<T>) {
    static_assert(named_memory<B>,
                  "pare: a backend without name and matrix<T>: the type says nowhere to compute; "
                  "write pare::backend::Eigen or a type that models pare::Backend");
    if constexpr (named_memory<B>) {
      static_assert(supports_scalar<B, T>,
                    "pare: a scalar that the backend does not support: Backend::supports<T> is "
                    "false; write float or double");
      if constexpr (supports_scalar<B, T>)
        static_assert(Backend<B, T>,
                      "pare: a backend that lacks an operation: the type does not model "
                      "pare::Backend; write every operation listed in pare/core/backend.hpp");
    }
  }
  return true;
}

template <class From, class To>
struct ConvertElement {
  MatrixView<const From> from;
  MatrixView<To> to;
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    to(r, c) = To(compute_scalar<To>(from(r, c)));
  }
};

}  // namespace detail

/// Copies a matrix onto another of the same shape and another scalar, rounding to nearest. Both lie
/// in the backend's memory. Throws shape_error.
template <class B, class From, class To>
void convert(MatrixView<const From> from, MatrixView<To> to) {
  require_shape("convert", {to.rows, to.cols}, {from.rows, from.cols});
  B::for_each_element(to.rows, to.cols, detail::ConvertElement<From, To>{from, to});
}

/// Throws non_finite_error naming `what`, the row and the column of the first element of A that
/// is NaN or infinite; what require_view throws.
template <class B, class T>
void require_finite(std::string_view what, MatrixView<const T> A) {
  require_view(what, A);
  const index_t at = B::find_non_finite(A);
  if (at < 0) return;
  const index_t row = at / A.cols, column = at % A.cols;
  throw non_finite_error(std::string(what) + ": expected finite numbers, got NaN or infinity at " +
                             shape_text(row, column) + " of shape " + shape_text(A.rows, A.cols),
                         row, column);
}

}  // namespace pare
