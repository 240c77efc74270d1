// Steps of conjugate gradients on the weights that a mask leaves, all rows side by side.
#pragma once

#include <cstdint>

#include "pare/kernels/reduction.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// out = X - Z.
template <class T>
struct SubtractElement {
  MatrixView<const T> X, Z;  // (out, in)
  MatrixView<T> out;         // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { out(r, c) = X(r, c) - Z(r, c); }
};

/// A = 0 where the mask prunes.
template <class T>
struct PruneElement {
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  MatrixView<T> A;                      // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    if (mask(r, c) != 0) A(r, c) = T(0);
  }
};

/// Squared length of every row of a gradient, in units of the weights as they are given.
template <class T>
struct GradientNorm {
  /// The squared length.
  using partial = Sums<double, 1>;

  MatrixView<const T> gradient;         // (out, in), in units in which H has unit diagonal
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned, which does not count; or empty
  const double* root;                   ///< (in), square root of the damped diagonal
  MatrixView<double> out;               // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return gradient.cols; }
  /// Adds one element.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    const double g = double(gradient(i, j)) * root[j];
    if (mask.rows == 0 || mask(i, j) == 0) sums[0] += g * g;
  }
  /// Writes the squared length of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const { out(0, i) = sums[0]; }
};

/// Half of error times error * H: the loss of every row.
template <class T>
struct RowLoss {
  /// The loss.
  using partial = Sums<double, 1>;

  MatrixView<const T> error, product;  // (out, in): E and E H
  MatrixView<double> out;              // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return error.cols; }
  /// Adds one element.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    sums[0] += 0.5 * double(error(i, j)) * double(product(i, j));
  }
  /// Writes the loss of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const { out(0, i) = sums[0]; }
};

/// The first direction of every row is its gradient where the mask leaves weights.
template <class T>
struct BeginDescent {
  /// Squared length of the gradient.
  using partial = Sums<double, 1>;

  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  MatrixView<T> residual, direction;    // (out, in): the gradient in, zero where pruned out
  MatrixView<double> squares;           // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return mask.cols; }
  /// Takes in one element, and writes it.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    const T r = mask(i, j) != 0 ? T(0) : residual(i, j);
    residual(i, j) = direction(i, j) = r;
    sums[0] += double(r) * double(r);
  }
  /// Writes the squared length of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const { squares(0, i) = sums[0]; }
};

/// How far every row goes along its direction.
template <class T>
struct StepLength {
  /// Curvature along the direction.
  using partial = Sums<double, 1>;

  MatrixView<const T> direction, product;  // (out, in): P and P H
  MatrixView<const double> squares;        // (1, out), of the residual
  MatrixView<double> length;               // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return direction.cols; }
  /// Adds one element.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    sums[0] += double(direction(i, j)) * double(product(i, j));
  }
  /// Writes the length of row i; a row that is solved stays.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const {
    length(0, i) = sums[0] > 0 ? squares(0, i) / sums[0] : 0.0;
  }
};

/// Goes that far, and says how much of the direction stays in the next one.
template <class T>
struct Advance {
  /// Squared length of the residual.
  using partial = Sums<double, 1>;

  MatrixView<const std::uint8_t> mask;     // (out, in), 1 = pruned
  MatrixView<const T> direction, product;  // (out, in): P and P H
  MatrixView<const double> length;         // (1, out)
  MatrixView<T> weights, residual;         // (out, in)
  MatrixView<double> squares, kept;        // (1, out): of the residual; share of the direction

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return mask.cols; }
  /// Moves one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    if (mask(i, j) != 0) return;
    const T a = T(length(0, i));
    weights(i, j) += a * direction(i, j);
    const T r = residual(i, j) - a * product(i, j);
    residual(i, j) = r;
    sums[0] += double(r) * double(r);
  }
  /// Writes both of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const {
    kept(0, i) = squares(0, i) > 0 ? sums[0] / squares(0, i) : 0.0;
    squares(0, i) = sums[0];
  }
};

/// direction = residual + kept * direction.
template <class T>
struct TurnDirection {
  MatrixView<const T> residual;   // (out, in)
  MatrixView<const double> kept;  // (1, out)
  MatrixView<T> direction;        // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    direction(r, c) = residual(r, c) + T(kept(0, r)) * direction(r, c);
  }
};

}  // namespace pare::kernels
