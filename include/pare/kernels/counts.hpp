// What a solved linear holds, counted where it lies.
#pragma once

#include <cstdint>

#include "pare/kernels/reduction.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// Counts of each row: weights the mask pruned, weights that are zero, bits of those not pruned.
template <class T>
struct CountWeights {
  /// Pruned, zero, bits.
  using partial = Sums<std::int64_t, 3>;

  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  const std::uint8_t* widths;           ///< of weight (i, j): [i * per_row + j * per_column]
  index_t per_row, per_column;          ///< 1 where widths differ, else 0
  MatrixView<std::int64_t> counts;      // (out, 3)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return weights.cols; }
  /// Counts one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& counted) const {
    const bool kept = mask(i, j) == 0;
    counted[0] += !kept;
    counted[1] += weights(i, j) == T(0);
    counted[2] += kept ? widths[i * per_row + j * per_column] : 0;
  }
  /// Writes the counts of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& counted) const {
    for (int k = 0; k < 3; ++k) counts(i, k) = counted[k];
  }
};

/// Marked weights of each block of columns in visit order, by row; row i and block b of the weights
/// are row i * blocks + b here. T holds such counts exactly.
template <class T>
struct CountBlocks {
  /// Marked weights.
  using partial = Sums<std::int32_t, 1>;

  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  const index_t* order;                 ///< (in): input visited at each position
  index_t block_size;                   ///< columns of a block; the last may have fewer
  MatrixView<T> counts;                 // (out, blocks)

  /// Rows of the reduction.
  PARE_HOST_DEVICE index_t rows() const { return counts.rows * counts.cols; }
  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const {
    return block_size < mask.cols ? block_size : mask.cols;
  }
  /// Counts one weight.
  PARE_HOST_DEVICE void add(index_t row, index_t column, partial& counted) const {
    const index_t i = row / counts.cols, p = row % counts.cols * block_size + column;
    if (p < mask.cols) counted[0] += mask(i, order[p]) != 0;
  }
  /// Writes the count of one block of one row.
  PARE_HOST_DEVICE void finish(index_t row, const partial& counted) const {
    counts(row / counts.cols, row % counts.cols) = T(counted[0]);
  }
};

/// Weights that the mask leaves in each row.
struct CountKept {
  /// Weights left.
  using partial = Sums<std::int64_t, 1>;

  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  MatrixView<std::int64_t> counts;      // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return mask.cols; }
  /// Counts one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& counted) const {
    counted[0] += mask(i, j) == 0;
  }
  /// Writes the count of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& counted) const {
    counts(0, i) = counted[0];
  }
};

/// out = 1 where the mask leaves a weight, 0 where it prunes it.
template <class T>
struct KeptElement {
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  MatrixView<T> out;                    // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t i, index_t j) const { out(i, j) = mask(i, j) == 0; }
};

}  // namespace pare::kernels
