// What a plan takes a packed linear to cost; packed_size counts what it does cost.
#pragma once

#include <cmath>

#include "pare/sparsity/pattern.hpp"
#include "pare/storage/packed_layout.hpp"

namespace pare::inline PARE_TARGET {

/// A grid: a float16 scale and an integer zero point.
inline constexpr double stored_grid_bits = packed_grid_bits;
/// The width of a channel, where channels differ.
inline constexpr double stored_width_bits = packed_width_bits;
/// What padding adds to a row of codes at most.
inline constexpr double stored_padding_bits = packed_row_bits - 1;

/// Bits that say which weights of a linear (rows, columns) are pruned.
inline double stored_mask_bits(const Pattern& pattern, index_t rows, index_t columns) {
  const PackedMask kind = packed_mask_kind(pattern);
  return 8.0 * double(rows) * double(packed_mask_row_bytes(kind, columns, pattern));
}

/// Bits of a row's codes, at most: padded exactly where it is known how many weights stay, by the
/// largest padding where a mask decides.
/// @param pattern  what is pruned of the linear
/// @param bits  of the codes that stay
inline double stored_row_bits(const Pattern& pattern, double bits) {
  if (pattern.kind == PatternKind::unstructured) return bits + stored_padding_bits;
  return packed_row_bits * std::ceil((bits - 1e-3) / packed_row_bits);
}

}  // namespace pare
