// What one task of a host backend does with blocks of matrices, on one core.
#pragma once

#include <concepts>
#include <cstdint>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend {

/// How a product meets what its target holds.
enum class Update : std::uint8_t { set, add, subtract };

/// A matrix read as its transpose.
template <class T>
struct Transposed {
  /// The matrix itself.
  MatrixView<const T> of;
};
/// A read as its transpose.
template <class T>
Transposed<std::remove_const_t<T>> transposed(MatrixView<T> A) {
  return {A};
}

/// Static functions that run inside a task; a library behind them must not start threads there.
///
/// - `product<update>(C, A, B)`: C = A B, C += A B or C -= A B; A and B may be transposed().
/// - `reversed_cholesky(A)`: overwrites the symmetric A (n, n) with the upper triangular R of
///   A = R R^T, zeros below; false when A is not positive definite.
/// - `upper_inverse(R)`: overwrites the upper triangular R, zeros below, with its inverse.
/// - `solve_transposed(X, R)`: X := X inv(R)^T for X (rows, n) and an upper triangular R (n, n).
/// - `layer_norm(y, x, weight, bias, epsilon)`: one row (1, n); y may be x, weight and bias may
///   have no rows.
/// - `rms_norm(y, x, weight, epsilon, offset)`: the same of the other norm.
/// - `exponentials(x, scale)`: x := exp((x - max x) scale) for a row x (1, n); returns their sum.
/// - `log_sum_exp(x)`: log(sum exp(x)) of a row x (1, n), in double.
template <class K, class T>
concept HostKernels = requires(MatrixView<T> a, MatrixView<const T> c, Transposed<T> t) {
  K::template product<Update::set>(a, c, c);
  K::template product<Update::add>(a, t, c);
  K::template product<Update::subtract>(a, c, t);
  { K::reversed_cholesky(a) } -> std::same_as<bool>;
  K::upper_inverse(a);
  K::solve_transposed(a, c);
  K::layer_norm(a, c, c, c, 1e-5);
  K::rms_norm(a, c, c, 1e-5, 0.0);
  { K::exponentials(a, T{}) } -> std::same_as<T>;
  { K::log_sum_exp(c) } -> std::same_as<double>;
};

}  // namespace pare::backend
