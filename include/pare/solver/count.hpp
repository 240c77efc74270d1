// What a solved linear holds, counted where it lies.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Counts of one row: weights the mask pruned, weights that are zero, bits of those not pruned.
template <class T>
struct CountRow {
  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  const std::uint8_t* widths;           ///< of weight (i, j): [i * per_row + j * per_column]
  index_t per_row, per_column;
  MatrixView<std::int64_t> counts;  // (out, 3)

  PARE_HOST_DEVICE void operator()(index_t i) const {
    std::int64_t pruned = 0, zeros = 0, bits = 0;
    for (index_t j = 0; j < weights.cols; ++j) add_column(i, j, pruned, zeros, bits);
    finish(i, pruned, zeros, bits);
  }
  PARE_HOST_DEVICE void add_column(index_t i, index_t j, std::int64_t& pruned, std::int64_t& zeros,
                                   std::int64_t& bits) const {
    const bool kept = mask(i, j) == 0;
    pruned += !kept;
    zeros += weights(i, j) == T(0);
    bits += kept ? widths[i * per_row + j * per_column] : 0;
  }
  PARE_HOST_DEVICE void finish(index_t i, std::int64_t pruned, std::int64_t zeros,
                               std::int64_t bits) const {
    counts(i, 0) = pruned;
    counts(i, 1) = zeros;
    counts(i, 2) = bits;
  }
};

}  // namespace pare::detail
