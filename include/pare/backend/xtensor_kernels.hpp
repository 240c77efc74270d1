// The arithmetic of one task on xtensor: products and factorisation of one block by xtensor-blas on
// OpenBLAS, rows of a model as xtensor expressions.
#pragma once

#include <xtensor-blas/xlinalg.hpp>
#if __has_include(<xtensor/containers/xadapt.hpp>)  // xtensor 0.26 and newer
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/core/xnoalias.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xnoalias.hpp>
#endif

#include <array>
#include <cmath>

#include "pare/backend/host_kernels.hpp"

namespace pare::inline PARE_TARGET::backend {

/// HostKernels on xtensor.
struct XtensorKernels {
  /// cxxblas, the interface under xt::blas: that one copies operands that are windows.
  template <Update update, class T, class A, class B>
  static void product(MatrixView<T> C, const A& a, const B& b) {
    const Operand<T> left(a), right(b);
    cxxblas::gemm(cxxblas::RowMajor, left.transpose, right.transpose, size(C.rows), size(C.cols),
                  size(left.transpose == cxxblas::Trans ? left.matrix.rows : left.matrix.cols),
                  update == Update::subtract ? T(-1) : T(1), left.matrix.data,
                  size(left.matrix.stride), right.matrix.data, size(right.matrix.stride),
                  update == Update::set ? T(0) : T(1), C.data, size(C.stride));
  }

  /// @name Operations of pare::backend::HostKernels
  /// @{

  /// The concept pare::backend::HostKernels says what each operation does.
  template <class T>
  static bool reversed_cholesky(MatrixView<T> A) {
    auto a = adapt(A);
    // J A J = L L^T  <=>  A = (J L J)(J L J)^T
    xt::xtensor<T, 2, xt::layout_type::column_major> L = xt::flip(xt::flip(a, 0), 1);
    if (xt::lapack::potr(L, 'L') != 0) return false;
    xt::noalias(a) = xt::triu(xt::flip(xt::flip(L, 0), 1));
    for (index_t i = 0; i < A.rows; ++i)
      if (!std::isfinite(A(i, i)) || !(A(i, i) > 0)) return false;
    return true;
  }

  template <class T>
  static void upper_inverse(MatrixView<T> R) {
    // LAPACK counts by columns and sees the transpose, which is lower triangular.
    cxxlapack::trtri('L', 'N', size(R.rows), R.data, size(R.stride));
  }

  template <class T>
  static void solve_transposed(MatrixView<T> X, MatrixView<const T> R) {
    cxxblas::trsm(cxxblas::RowMajor, cxxblas::Right, cxxblas::Upper, cxxblas::Trans,
                  cxxblas::NonUnit, size(X.rows), size(X.cols), T(1), R.data, size(R.stride),
                  X.data, size(X.stride));
  }

  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon) {
    const auto x = adapt_row(X);
    auto y = adapt_row(Y);
    const T mean = T(sum(x) / double(X.cols));
    const double variance = sum(xt::square(x - mean)) / double(X.cols);
    const T factor = T(1 / std::sqrt(variance + epsilon));
    if (weight.rows > 0)
      xt::noalias(y) = (x - mean) * factor * adapt_row(weight);
    else
      xt::noalias(y) = (x - mean) * factor;
    if (bias.rows > 0) xt::noalias(y) = y + adapt_row(bias);
  }

  template <class T>
  static void rms_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                       double epsilon, double offset) {
    const auto x = adapt_row(X);
    auto y = adapt_row(Y);
    const T factor = T(1 / std::sqrt(sum(xt::square(x)) / double(X.cols) + epsilon));
    if (weight.rows > 0)
      xt::noalias(y) = x * factor * (adapt_row(weight) + T(offset));
    else
      xt::noalias(y) = x * factor;
  }

  template <class T>
  static T exponentials(MatrixView<T> X, T scale) {
    auto x = adapt_row(X);
    const T largest = xt::amax(x, xt::evaluation_strategy::immediate)();
    xt::noalias(x) = xt::exp((x - largest) * scale);
    return T(sum(x));
  }

  template <class T>
  static double log_sum_exp(MatrixView<const T> X) {
    const auto x = adapt_row(X);
    const T largest = xt::amax(x, xt::evaluation_strategy::immediate)();
    return std::log(sum(xt::exp(x - largest))) + double(largest);
  }
  /// @}

 private:
  static xt::blas_index_t size(index_t n) { return xt::blas_index_t(n); }

  template <class T>
  struct Operand {
    MatrixView<const T> matrix;
    cxxblas::Transpose transpose;
    explicit Operand(MatrixView<const T> A) : matrix(A), transpose(cxxblas::NoTrans) {}
    explicit Operand(Transposed<T> A) : matrix(A.of), transpose(cxxblas::Trans) {}
  };

  /// An xtensor view of a matrix, no copy.
  template <class T>
  static auto adapt(MatrixView<T> A) {
    const std::array<std::size_t, 2> shape{std::size_t(A.rows), std::size_t(A.cols)};
    const std::array<std::ptrdiff_t, 2> strides{A.stride, 1};
    return xt::adapt(+A.data, std::size_t(A.size()), xt::no_ownership(), shape, strides);
  }
  /// A row (1, n) as a contiguous xtensor view.
  template <class T>
  static auto adapt_row(MatrixView<T> row) {
    const std::array<std::size_t, 1> shape{std::size_t(row.cols)};
    return xt::adapt(+row.data, std::size_t(row.cols), xt::no_ownership(), shape);
  }

  template <class E>
  static double sum(const E& e) {
    return xt::sum<double>(e, xt::evaluation_strategy::immediate)();
  }
};

static_assert(HostKernels<XtensorKernels, float> && HostKernels<XtensorKernels, double>);

}  // namespace pare::backend
