// How far compression has moved the inputs of a linear, and the weights that make up for it.
#pragma once

#include <concepts>
#include <string>
#include <type_traits>

#include "pare/calibration/factor.hpp"

namespace pare::inline PARE_TARGET {

/// Streams the inputs of one linear in the dense model and in the compressed one, both reading the
/// same tokens: sum (x_dense - x) x^T, in one pass.
template <class B, class T>
class InputDrift {
  static_assert(detail::check_backend<B, T>());

 public:
  /// @param in_features  inputs of the linear, >= 1
  /// @throws argument_error for fewer
  explicit InputDrift(index_t in_features) {
    if (in_features < 1)
      throw argument_error("in_features: expected at least 1, got " + std::to_string(in_features));
    sum_ = detail::zeros<B, T>(in_features, in_features);
  }

  /// Adds a batch.
  /// @param dense  inputs in the dense model (tokens, in), in the backend's memory
  /// @param X      inputs in the compressed model (tokens, in), the same tokens
  /// @throws shape_error, non_finite_error with the index; then nothing is added
  template <class S>
    requires(std::same_as<compute_scalar<S>, T>&& detail::stores_scalar<B, S>)
  void add(MatrixView<const S> dense, MatrixView<const S> X) {
    require_shape("X (tokens, in)", {X.rows, in_features()}, {X.rows, X.cols});
    require_shape("dense (tokens, in)", {X.rows, X.cols}, {dense.rows, dense.cols});
    require_finite<B, S>("X (tokens, in)", X);
    require_finite<B, S>("dense (tokens, in)", dense);
    negative_.resize(X.cols, X.rows);
    B::for_each_element(X.cols, X.rows, kernels::NegativeDrift<S, T>{dense, X, negative_.view()});
    if constexpr (std::is_same_v<S, T>) {
      B::trailing_update(sum_.view(), detail::as_const(negative_.view()), X);
    } else {
      converted_.resize(X.rows, X.cols);
      convert<B>(X, converted_.view());
      B::trailing_update(sum_.view(), detail::as_const(negative_.view()),
                         detail::as_const(converted_.view()));
    }
  }

  /// Inputs of the linear.
  index_t in_features() const { return sum_.rows(); }
  /// sum (x_dense - x) x^T (in, in).
  MatrixView<const T> sum() const { return sum_.view(); }

 private:
  typename B::template matrix<T> sum_;        // (in, in)
  typename B::template matrix<T> negative_;   // (in, tokens of a batch)
  typename B::template matrix<T> converted_;  // (tokens of a batch, in)
};

/// Weights that do on the compressed model's inputs what W does on the dense model's: with share 1
/// the V that minimises sum |W x_dense - V x|^2 + damping |V - W|^2, which is
/// W + W D inv(H + damping) with D = (2/n) sum (x_dense - x) x^T.
///
/// @param W            (out, in)
/// @param drift        of the same tokens
/// @param calibration  of the inputs x that `drift` has seen
/// @param factor       of calibration's H
/// @param share        how much of the correction is made, 0..1; below 1 what the calibration text
///                     alone asks for weighs less
/// @return             (out, in)
/// @throws argument_error for a share outside 0..1 or a W that cannot be read, shape_error when
///         shapes do not fit
/// Source: Li et al. 2025 (GPTAQ) for calibration on both models; the closed form is least squares.
template <class B, class T>
typename B::template matrix<T> corrected_weights(std::type_identity_t<MatrixView<const T>> W,
                                                 const InputDrift<B, T>& drift,
                                                 const Calibration<B, T>& calibration,
                                                 const Factor<B, T>& factor, double share) {
  if (!(share >= 0 && share <= 1))
    throw argument_error("share: expected a number within 0..1, got " + std::to_string(share));
  const index_t rows = W.rows, n = drift.in_features();
  require_view("W (out, in)", W);
  require_shape("W (out, in)", {rows, n}, {W.rows, W.cols});
  require_shape("calibration (in, in)", {n, n},
                {calibration.in_features(), calibration.in_features()});
  require_shape("factor (in, in)", {n, n}, {factor.in_features(), factor.in_features()});
  using Owner = typename B::template matrix<T>;
  Owner wide(rows, n), ordered(rows, n), transposed(n, n), result(rows, n);
  const auto order = detail::to_backend<B>(factor.order);
  const index_t* positions = order.view().data;
  const MatrixView<const T> U = factor.upper.view();

  B::multiply(wide.view(), W, drift.sum());
  B::for_each_element(rows, n,
                      kernels::GatherScaled<T>{detail::as_const(wide.view()), ordered.view(),
                                               positions, share * calibration.hessian_scale()});
  B::for_each_element(n, n, kernels::TransposeElement<T>{U, transposed.view()});
  B::multiply(wide.view(), detail::as_const(ordered.view()), detail::as_const(transposed.view()));
  B::multiply(ordered.view(), detail::as_const(wide.view()), U);
  B::copy(W, result.view());
  B::for_each_element(rows, n,
                      kernels::ScatterAdd<T>{detail::as_const(ordered.view()), result.view(),
                                             positions});
  return result;
}

}  // namespace pare
