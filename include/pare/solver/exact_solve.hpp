// The weights that a mask leaves, solved exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "pare/core/text.hpp"
#include "pare/solver/normalized.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Steps of conjugate gradients before the gradient is looked at.
inline constexpr int descent_steps = 20;
/// How often that is done at most; only an H that hardly is positive definite asks for more than a
/// few.
inline constexpr int descent_rounds = 50;
/// The gradient on the support that a solve may end with, as a share of that of all weights zero.
inline constexpr double gradient_limit = 1e-3;

/// Losses by row of weights Z (out, in) in normalized units.
/// @param linear  X and the units
/// @param A       the normalized Hessian (in, in)
template <class B, class T>
std::vector<double> row_losses(const Normalized<B, T>& linear, MatrixView<const T> Z,
                               MatrixView<const T> A) {
  const MatrixView<const T> X = linear.X();
  typename B::template matrix<T> error(X.rows, X.cols), product(X.rows, X.cols);
  B::for_each_element(X.rows, X.cols, kernels::SubtractElement<T>{X, Z, error.view()});
  B::multiply(product.view(), as_const(error.view()), A);
  auto losses = zeros<B, double>(1, X.rows);
  B::reduce_rows(X.rows, kernels::RowLoss<T>{as_const(error.view()), as_const(product.view()),
                                             losses.view()});
  const Matrix<double> host = B::to_host(as_const(losses.view()));
  std::vector<double> result(host.data(), host.data() + host.size());
  // Rounding may make the form of a tiny error negative.
  for (double& loss : result) loss = std::max(0.0, loss / linear.unit() / linear.unit());
  return result;
}

/// Moves Z to the minimum of tr((X - Z) A (X - Z)^T) over the weights that the mask leaves; the
/// others are zero.
///
/// Conjugate gradients, every row by itself and all in one product per step. In units in which A
/// has unit diagonal they need no other preconditioner. The gradient is computed anew in the end.
/// @param linear  X and the units
/// @param A       the normalized Hessian (in, in)
/// @param mask    (out, in), 1 = pruned
/// @param Z       (out, in): where to begin in, the minimum out
/// @throws invariant_error (post-condition 9) when the gradient stays above gradient_limit
template <class B, class T>
void solve_exactly(const Normalized<B, T>& linear, MatrixView<const T> A,
                   MatrixView<const std::uint8_t> mask, MatrixView<T> Z) {
  using Owner = typename B::template matrix<T>;
  const index_t rows = Z.rows, cols = Z.cols;
  Owner residual(rows, cols), direction(rows, cols), product(rows, cols);
  auto squares = zeros<B, double>(1, rows), length = zeros<B, double>(1, rows);
  auto kept = zeros<B, double>(1, rows);
  const auto norm = [&](MatrixView<const std::uint8_t> without) {
    B::reduce_rows(rows, kernels::GradientNorm<T>{as_const(residual.view()), without, linear.root(),
                                                  length.view()});
    return std::sqrt(sum_of<B, double>(length));
  };
  B::for_each_element(rows, cols, kernels::PruneElement<T>{mask, Z});
  B::multiply(residual.view(), linear.X(), A);
  const double limit = gradient_limit * norm({});
  double gradient = 0;
  for (int round = 0; round <= descent_rounds; ++round) {
    B::for_each_element(rows, cols, kernels::SubtractElement<T>{linear.X(), Z, direction.view()});
    B::multiply(residual.view(), as_const(direction.view()), A);
    if (round > 0) {
      gradient = norm(mask);
      if (gradient <= limit) return;
    }
    if (round == descent_rounds) break;
    B::reduce_rows(rows, kernels::BeginDescent<T>{mask, residual.view(), direction.view(),
                                                  squares.view()});
    for (int step = 0; step < descent_steps; ++step) {
      B::multiply(product.view(), as_const(direction.view()), A);
      B::reduce_rows(rows,
                     kernels::StepLength<T>{as_const(direction.view()), as_const(product.view()),
                                            as_const(squares.view()), length.view()});
      B::reduce_rows(rows, kernels::Advance<T>{mask, as_const(direction.view()),
                                               as_const(product.view()), as_const(length.view()), Z,
                                               residual.view(), squares.view(), kept.view()});
      B::for_each_element(rows, cols,
                          kernels::TurnDirection<T>{as_const(residual.view()),
                                                    as_const(kept.view()), direction.view()});
    }
  }
  throw invariant_error(9, "the gradient on the weights that stay is " +
                               number_text(gradient / limit * gradient_limit) +
                               " of that of W after " +
                               std::to_string(descent_rounds * descent_steps) +
                               " steps; H may be too ill-conditioned for " +
                               std::string(scalar_traits<T>::name) + ": raise the damping");
}

}  // namespace pare::detail
