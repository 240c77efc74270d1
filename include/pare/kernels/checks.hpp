// What the post-conditions of a solve ask of every row.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "pare/kernels/reduction.hpp"
#include "pare/quantization/grid.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// What is wrong with a row; the earlier ones hide the later.
enum class RowFault : std::int32_t {
  none,        ///< nothing
  grid_width,  ///< a grid has another width than its channel
  off_grid,    ///< a weight is not on its grid
  run_count,   ///< n:m: other than n of m weights were pruned
  not_zero,    ///< a pruned weight is not zero
};

/// Finds the first fault of each row but for run_count.
template <class T>
struct RowFaults {
  /// Weights off their grid, pruned weights that are not zero.
  using partial = Sums<std::int32_t, 2>;

  MatrixView<const T> weights;           // (out, in)
  MatrixView<const std::uint8_t> mask;   // (out, in), 1 = pruned
  GridView<const T> grids;               // (grids, out), no rows without a quantizer
  const std::int32_t* column_grid;       ///< (in), not read without a quantizer
  const std::uint8_t* bits;              ///< width of grid g of row i: [g * per_grid + i * per_row]
  index_t per_grid, per_row;             ///< 1 where widths differ, else 0
  std::int32_t* fault;                   ///< (out), a RowFault each
  MatrixView<const std::uint8_t> given;  // (out, in), not 0 = had to be pruned; may be empty

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return weights.cols; }
  /// Checks one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& wrong) const {
    const T q = weights(i, j);
    if (grids.top.rows > 0) {
      const index_t g = column_grid[j];
      wrong[0] += !(round_to_grid(q, grids.scale(g, i), grids.zero(g, i), grids.top(g, i)) == q);
    }
    const bool forced = given.rows > 0 && given(i, j) != 0;
    wrong[1] += (mask(i, j) != 0 && q != T(0)) || (forced && (mask(i, j) == 0 || q != T(0)));
  }
  /// Checks the widths of row i and writes its fault.
  PARE_HOST_DEVICE void finish(index_t i, const partial& wrong) const {
    bool width = true;
    for (index_t g = 0; g < grids.top.rows; ++g)
      width &= grids.top(g, i) == T((1 << bits[g * per_grid + i * per_row]) - 1);
    fault[i] = std::int32_t(!width         ? RowFault::grid_width
                            : wrong[0] > 0 ? RowFault::off_grid
                            : wrong[1] > 0 ? RowFault::not_zero
                                           : RowFault::none);
  }
};

/// Adds run_count to the faults of each row, after RowFaults.
struct RunFaults {
  /// Wrong runs of `of` inputs.
  using partial = Sums<std::int32_t, 1>;

  MatrixView<const std::uint8_t> mask;   // (out, in), 1 = pruned
  int zeros, of;                         ///< n:m
  std::int32_t* fault;                   ///< (out), a RowFault each
  MatrixView<const std::uint8_t> given;  // (out, in), not 0 = had to be pruned; may be empty

  /// The runs of a row.
  PARE_HOST_DEVICE index_t columns() const { return mask.cols / of; }
  /// Counts one run.
  PARE_HOST_DEVICE void add(index_t i, index_t run, partial& wrong) const {
    int count = 0, forced = 0;
    for (int k = 0; k < of; ++k) {
      count += mask(i, run * of + k);
      if (given.rows > 0) forced += given(i, run * of + k) != 0;
    }
    wrong[0] += count != (forced > zeros ? forced : zeros);
  }
  /// Writes the fault of row i unless it has an earlier one.
  PARE_HOST_DEVICE void finish(index_t i, const partial& wrong) const {
    const bool earlier = fault[i] != 0 && fault[i] < std::int32_t(RowFault::run_count);
    if (wrong[0] > 0 && !earlier) fault[i] = std::int32_t(RowFault::run_count);
  }
};

/// The power of two by which W - Q is multiplied so that its loss is about one. Without it D G leaves the
/// scalar type's range where the loss does not. A power of two rounds nothing.
/// @param loss  about the loss in the unit of H
PARE_HOST_DEVICE inline double loss_unit(double loss) {
  const bool normal =
      loss >= std::numeric_limits<double>::min() && loss <= std::numeric_limits<double>::max();
  return normal ? std::ldexp(1.0, int(std::round(-0.5 * std::log2(loss)))) : 1.0;
}

/// Finds loss_unit() of rows 0, step, 2 step, ...
struct LossUnit {
  MatrixView<const double> row_loss;  // (1, out)
  index_t checked, step;              ///< how many rows, and how far apart
  double* unit;                       ///< (1)

  /// Writes it; to be called for row 0 only.
  PARE_HOST_DEVICE void operator()(index_t) const {
    double sum = 0;
    for (index_t r = 0; r < checked; ++r) sum += row_loss(0, r * step);
    *unit = loss_unit(sum);
  }
};

/// (W - Q) of chosen rows in units of 1 / unit, dead inputs of W zeroed.
template <class T>
struct Difference {
  MatrixView<const T> before, after;  // (out, in)
  const std::uint8_t* dead;           ///< (in)
  index_t step;                       ///< row r of `out` is row r * step of the weights
  const double* unit;                 ///< (1), a power of two
  MatrixView<T> out;                  // (checked, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t j) const {
    const double w = dead[j] != 0 ? 0.0 : double(before(r * step, j));
    out(r, j) = T(*unit * (w - double(after(r * step, j))));
  }
};

/// Closed form of each row's loss, and how far rounding alone may move it.
template <class T>
struct ClosedLoss {
  /// Loss, noise of the weights, spread.
  using partial = Sums<double, 3>;

  MatrixView<const T> before;               // (out, in)
  MatrixView<const T> difference, product;  // (checked, in): D and D G, in units of 1 / unit
  MatrixView<const T> gram;                 // (in, in)
  const std::uint8_t* dead;                 ///< (in), weights there are zero
  bool identity;                            ///< H is the identity
  const double* factor;                     ///< (in), U_jj by input
  index_t step;                             ///< row r is row r * step of the weights
  const double* unit;                       ///< (1), a power of two
  double scale, added;                      ///< H = scale G, damping
  MatrixView<double> out;  // (4, checked): loss, noise of the weights, noise of H, unit

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return difference.cols; }
  /// Adds one weight.
  PARE_HOST_DEVICE void add(index_t r, index_t j, partial& sums) const {
    const double epsilon = double(std::numeric_limits<T>::epsilon());
    const double tiny = *unit * double(std::numeric_limits<T>::denorm_min());
    const double n = double(difference.cols);
    const double diagonal = added + (identity || dead[j] != 0 ? 1.0 : 0.0);
    const double h = scale * double(gram(j, j)) + diagonal;  // H_jj and damping
    const double d = difference(r, j);
    const double w = epsilon * *unit * (dead[j] != 0 ? 0.0 : double(before(r * step, j)));
    sums[0] += 0.5 * d * (scale * double(product(r, j)) + diagonal * d);
    // A weight takes part in up to `in` updates, each rounded to epsilon |w|, up or down, or to a
    // multiple of the smallest number, often the same way. So is its error e, which is (w - q) in
    // units of U_jj. Twice all that, because compensation may make a weight larger than it was.
    const double update = n * tiny, error = tiny * factor[j];
    sums[1] += 2 * h * (n * w * w + update * update + error * error);
    sums[2] += 0.5 * d * d * h;
  }
  /// Writes the sums of row r.
  PARE_HOST_DEVICE void finish(index_t r, const partial& sums) const {
    const double epsilon = double(std::numeric_limits<T>::epsilon());
    const double n = double(difference.cols);
    out(0, r) = sums[0];
    out(1, r) = sums[1];
    // Sums of `in` rounded terms: epsilon each, and they are as often too large as too small.
    out(2, r) = 8 * epsilon * std::sqrt(n) * sums[2];
    out(3, r) = *unit;
  }
};

}  // namespace pare::kernels
