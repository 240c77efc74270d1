// What the signals and distortions of channels sum over their weights.
#pragma once

#include <cmath>
#include <cstdint>

#include "pare/kernels/reduction.hpp"
#include "pare/quantization/grid.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// Sums over the columns of each row of W, (out, 5): w . mean, w . product, |w|, rounding
/// distortion, sum_j w_j^2 H_jj.
template <class T>
struct ScoreSums {
  /// The five.
  using partial = Sums<double, 5>;

  MatrixView<const T> weights, product;  // (out, in)
  const double* mean;                    ///< (in)
  const double* diagonal;                ///< (in): diag(H)
  GridView<const T> grids;               // (grids, out)
  const std::int32_t* column_grid;       ///< (in): grid of each column
  MatrixView<double> out;                // (out, 5)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return weights.cols; }
  /// Adds one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sums) const {
    const T w = weights(i, j);
    const index_t g = column_grid[j];
    const T q = round_to_grid(w, grids.scale(g, i), grids.zero(g, i), grids.top(g, i));
    const double d = double(w) - double(q);
    sums[0] += double(w) * mean[j];
    sums[1] += double(w) * double(product(i, j));
    sums[2] += std::abs(double(w));
    sums[3] += d * d * diagonal[j];
    sums[4] += double(w) * double(w) * diagonal[j];
  }
  /// Writes the sums of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sums) const {
    for (int k = 0; k < 5; ++k) out(i, k) = sums[k];
  }
};

/// What rounding w at row i and input j loses: squared, over U_jj^2. A pruned weight is lost whole.
template <class T>
struct RoundingLoss {
  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned; may be empty
  const double* inverse_u;              ///< (in): 1 / U_jj, 0 where the input is dead
  GridView<const T> grids;              // (grids, out)
  const std::int32_t* column_grid;      ///< (in): grid of each column

  /// The root of the loss.
  PARE_HOST_DEVICE double root(index_t i, index_t j) const {
    const T w = weights(i, j);
    const bool pruned = mask.rows > 0 && mask(i, j) != 0;
    const index_t g = column_grid[j];
    const double q =
        pruned ? 0 : double(round_to_grid(w, grids.scale(g, i), grids.zero(g, i), grids.top(g, i)));
    return std::abs(double(w) - q) * inverse_u[j];
  }
};

/// out(i, k) = sum of the rounding losses of row i.
template <class T>
struct RowRoundingLoss {
  /// The sum.
  using partial = Sums<double, 1>;

  /// Of one weight.
  RoundingLoss<T> loss;
  MatrixView<double> out;  // (out, widths)
  /// The width's column of `out`.
  index_t k;

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return loss.weights.cols; }
  /// Adds one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& sum) const {
    const double root = loss.root(i, j);
    sum[0] += root * root;
  }
  /// Writes the sum of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& sum) const { out(i, k) = sum[0]; }
};

/// The root of the rounding loss of every weight.
template <class T>
struct ElementRoundingLoss {
  /// Of one weight.
  RoundingLoss<T> loss;
  MatrixView<double> out;  // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t i, index_t j) const { out(i, j) = loss.root(i, j); }
};

}  // namespace pare::kernels
