// The arithmetic of one task on Eigen: products, factorisation of one block, rows of a model.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <mutex>

#include "pare/backend/host_kernels.hpp"

namespace pare::inline PARE_TARGET::backend {

namespace host_detail {

/// While one lives, Eigen splits no product of ours, even if its caller has said
/// Eigen::setNbThreads(n): in a region that was given one thread the digits of a product would
/// depend on n. The setting is the process's, so the last one restores it.
class SingleThreadEigen {
 public:
  SingleThreadEigen() {
    const std::lock_guard lock(mutex_);
    if (alive_++ > 0) return;
    const detail::SingleThread alone;  // more than one thread now is what a caller has set
    before_ = ::Eigen::nbThreads();
    if (before_ > 1) ::Eigen::setNbThreads(1);
  }
  ~SingleThreadEigen() {
    const std::lock_guard lock(mutex_);
    if (--alive_ == 0 && before_ > 1) ::Eigen::setNbThreads(before_);
  }
  SingleThreadEigen(const SingleThreadEigen&) = delete;
  SingleThreadEigen& operator=(const SingleThreadEigen&) = delete;

 private:
  static inline std::mutex mutex_;
  static inline int alive_ = 0, before_ = 1;
};

}  // namespace host_detail

/// Tasks of another kind that call Eigen.
template <class Tasks>
struct EigenTasks {
  /// Calls f(i) once for every i in [0, n), several at a time. f must not throw.
  template <class F>
  static void run(index_t n, const F& f) {
    const host_detail::SingleThreadEigen guard;
    Tasks::run(n, f);
  }
};

/// HostKernels on Eigen. Where PARE_EXTERN_KERNELS is defined, a program takes them for float and
/// double from the one file that includes eigen_kernels_instances.hpp.
struct EigenKernels {
  /// @name Operations of pare::backend::HostKernels
  /// @{

  /// The concept pare::backend::HostKernels says what each operation does.
  template <Update update, class T, class A, class B>
  static void product(MatrixView<T> C, const A& a, const B& b) {
    multiply<update>(C, read(a), read(b));
  }
  template <class T>
  static bool reversed_cholesky(MatrixView<T> A);
  template <class T>
  static void upper_inverse(MatrixView<T> R);
  template <class T>
  static void solve_transposed(MatrixView<T> X, MatrixView<const T> R);
  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon);
  template <class T>
  static void rms_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                       double epsilon, double offset);
  template <class T>
  static T exponentials(MatrixView<T> X, T scale);
  template <class T>
  static double log_sum_exp(MatrixView<const T> X);
  /// @}

 private:
  template <Update update, class T, class A, class B>
  static void multiply(MatrixView<T> C, A a, B b);

  /// One type for operands that may and that may not be written to.
  template <class T>
  static MatrixView<const T> read(MatrixView<T> v) {
    return v;
  }
  template <class T>
  static Transposed<T> read(Transposed<T> t) {
    return t;
  }

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

// Behind the class: what is defined in it is inline, and compiled wherever it is used.

template <Update update, class T, class A, class B>
void EigenKernels::multiply(MatrixView<T> C, A a, B b) {
  auto c = map(C);
  if constexpr (update == Update::set) c.noalias() = map(a) * map(b);
  if constexpr (update == Update::add) c.noalias() += map(a) * map(b);
  if constexpr (update == Update::subtract) c.noalias() -= map(a) * map(b);
}

template <class T>
bool EigenKernels::reversed_cholesky(MatrixView<T> A) {
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
void EigenKernels::upper_inverse(MatrixView<T> R) {
  Dense<T> inverse = Dense<T>::Identity(R.rows, R.rows);
  map(R).template triangularView<::Eigen::Upper>().solveInPlace(inverse);
  map(R) = inverse;
}

template <class T>
void EigenKernels::solve_transposed(MatrixView<T> X, MatrixView<const T> R) {
  auto x = map(X);
  map(R)
      .transpose()
      .template triangularView<::Eigen::Lower>()
      .template solveInPlace<::Eigen::OnTheRight>(x);
}

template <class T>
void EigenKernels::layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
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
void EigenKernels::rms_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                            double epsilon, double offset) {
  const auto x = array(X);
  const T factor = T(1) / std::sqrt(x.square().sum() / T(X.cols) + T(epsilon));
  if (weight.rows > 0)
    array(Y) = x * factor * (array(weight) + T(offset));
  else
    array(Y) = x * factor;
}

template <class T>
T EigenKernels::exponentials(MatrixView<T> X, T scale) {
  auto x = array(X);
  const T largest = x.maxCoeff();
  x = ((x - largest) * scale).exp();
  return x.sum();
}

template <class T>
double EigenKernels::log_sum_exp(MatrixView<const T> X) {
  const auto x = array(X);
  const T largest = x.maxCoeff();
  double sum = 0;  // of short sums in T, which keep their digits
  for (index_t j = 0; j < X.cols; j += 256)
    sum += double((x.segment(j, std::min<index_t>(256, X.cols - j)) - largest).exp().sum());
  return std::log(sum) + double(largest);
}

static_assert(HostKernels<EigenKernels, float> && HostKernels<EigenKernels, double>);

// What host backends use of them, for one scalar. Types cannot stand in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define PARE_EIGEN_PRODUCT(storage, update, T, A, B) \
  storage template void EigenKernels::multiply<Update::update, T, A, B>(MatrixView<T>, A, B);
#define PARE_EIGEN_KERNELS(storage, T)                                                      \
  PARE_EIGEN_PRODUCT(storage, set, T, MatrixView<const T>, MatrixView<const T>)             \
  PARE_EIGEN_PRODUCT(storage, set, T, MatrixView<const T>, Transposed<T>)                   \
  PARE_EIGEN_PRODUCT(storage, add, T, MatrixView<const T>, MatrixView<const T>)             \
  PARE_EIGEN_PRODUCT(storage, add, T, MatrixView<const T>, Transposed<T>)                   \
  PARE_EIGEN_PRODUCT(storage, add, T, Transposed<T>, MatrixView<const T>)                   \
  PARE_EIGEN_PRODUCT(storage, subtract, T, MatrixView<const T>, MatrixView<const T>)        \
  PARE_EIGEN_PRODUCT(storage, subtract, T, MatrixView<const T>, Transposed<T>)              \
  storage template bool EigenKernels::reversed_cholesky(MatrixView<T>);                     \
  storage template void EigenKernels::upper_inverse(MatrixView<T>);                         \
  storage template void EigenKernels::solve_transposed(MatrixView<T>, MatrixView<const T>); \
  storage template void EigenKernels::layer_norm(MatrixView<T>, MatrixView<const T>,        \
                                                 MatrixView<const T>, MatrixView<const T>,  \
                                                 double);                                   \
  storage template void EigenKernels::rms_norm(MatrixView<T>, MatrixView<const T>,          \
                                               MatrixView<const T>, double, double);        \
  storage template T EigenKernels::exponentials(MatrixView<T>, T);                          \
  storage template double EigenKernels::log_sum_exp(MatrixView<const T>);
// NOLINTEND(bugprone-macro-parentheses)

#if defined(PARE_EXTERN_KERNELS)
PARE_EIGEN_KERNELS(extern, float)
PARE_EIGEN_KERNELS(extern, double)
#endif

}  // namespace pare::backend
