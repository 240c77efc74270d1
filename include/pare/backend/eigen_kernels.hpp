// The arithmetic of one task on Eigen: products, factorisation of one block, rows of a model.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "pare/backend/host_kernels.hpp"

namespace pare::backend {

/// HostKernels on Eigen.
struct EigenKernels {
  /// @name Operations of pare::backend::HostKernels
  /// @{

  /// The concept pare::backend::HostKernels says what each operation does.
  template <Update update, class T, class A, class B>
  static void product(MatrixView<T> C, const A& a, const B& b) {
    auto c = map(C);
    if constexpr (update == Update::set) c.noalias() = map(a) * map(b);
    if constexpr (update == Update::add) c.noalias() += map(a) * map(b);
    if constexpr (update == Update::subtract) c.noalias() -= map(a) * map(b);
  }

  template <class T>
  static bool reversed_cholesky(MatrixView<T> A) {
    const index_t n = A.rows;
    Dense<T> reversed = map(A).reverse();  // J A J = L L^T  <=>  A = (J L J)(J L J)^T
    ::Eigen::LLT<::Eigen::Ref<Dense<T>>> llt(reversed);
    if (llt.info() != ::Eigen::Success) return false;
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) A(i, j) = j < i ? T(0) : reversed(n - 1 - i, n - 1 - j);
      if (!std::isfinite(A(i, i)) || !(A(i, i) > 0)) return false;
    }
    return true;
  }

  template <class T>
  static void upper_inverse(MatrixView<T> R) {
    Dense<T> inverse = Dense<T>::Identity(R.rows, R.rows);
    map(R).template triangularView<::Eigen::Upper>().solveInPlace(inverse);
    map(R) = inverse;
  }

  template <class T>
  static void solve_transposed(MatrixView<T> X, MatrixView<const T> R) {
    auto x = map(X);
    map(R)
        .transpose()
        .template triangularView<::Eigen::Lower>()
        .template solveInPlace<::Eigen::OnTheRight>(x);
  }

  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon) {
    const auto x = array(X);
    auto y = array(Y);
    const T mean = x.sum() / T(X.cols);
    const T variance = (x - mean).square().sum() / T(X.cols);
    const T factor = T(1) / std::sqrt(variance + T(epsilon));
    if (weight.rows > 0)
      y = (x - mean) * factor * array(weight);
    else
      y = (x - mean) * factor;
    if (bias.rows > 0) y += array(bias);
  }

  template <class T>
  static T exponentials(MatrixView<T> X, T scale) {
    auto x = array(X);
    const T largest = x.maxCoeff();
    x = ((x - largest) * scale).exp();
    return x.sum();
  }

  template <class T>
  static double log_sum_exp(MatrixView<const T> X) {
    const auto x = array(X);
    const T largest = x.maxCoeff();
    double sum = 0;  // of short sums in T, which keep their digits
    for (index_t j = 0; j < X.cols; j += 256)
      sum += double((x.segment(j, std::min<index_t>(256, X.cols - j)) - largest).exp().sum());
    return std::log(sum) + double(largest);
  }
  /// @}

 private:
  template <class T>
  using Dense = ::Eigen::Matrix<T, ::Eigen::Dynamic, ::Eigen::Dynamic, ::Eigen::RowMajor>;

  /// An Eigen map of a view, no copy.
  template <class T>
  static auto map(MatrixView<T> v) {
    using D = Dense<std::remove_const_t<T>>;
    return ::Eigen::Map<std::conditional_t<std::is_const_v<T>, const D, D>, ::Eigen::Unaligned,
                        ::Eigen::OuterStride<>>(v.data, v.rows, v.cols,
                                                ::Eigen::OuterStride<>(v.stride));
  }
  template <class T>
  static auto map(Transposed<T> t) {
    return map(t.of).transpose();
  }

  /// A row (1, n) as an Eigen array.
  template <class T>
  static auto array(MatrixView<T> row) {
    using Row = ::Eigen::Array<std::remove_const_t<T>, 1, ::Eigen::Dynamic>;
    return ::Eigen::Map<std::conditional_t<std::is_const_v<T>, const Row, Row>>(row.data, row.cols);
  }
};

static_assert(HostKernels<EigenKernels, float> && HostKernels<EigenKernels, double>);

}  // namespace pare::backend
