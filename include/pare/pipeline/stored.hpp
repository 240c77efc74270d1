// What a linear takes when it is packed: the statistics and the plans count by the same rules.
#pragma once

#include <cmath>

#include "pare/pipeline/pattern.hpp"

namespace pare {

/// A grid: a float16 scale and an integer zero point.
inline constexpr double stored_grid_bits = 24;
/// The width of a channel, where channels differ.
inline constexpr double stored_width_bits = 8;

/// Bits that say which weights of a linear are pruned: a mask, or per group of n:m the index among
/// the ways to choose, ceil(log2(binomial(group, zeros))).
/// @param weights  out * in
inline double stored_mask_bits(const LinearPattern& pattern, double weights) {
  switch (pattern.kind) {
    case PatternKind::unstructured: return weights;
    case PatternKind::n_of_m: {
      double ways = 1;
      for (int i = 1; i <= pattern.zeros; ++i)
        ways = ways * (pattern.group - pattern.zeros + i) / i;
      return weights / pattern.group * std::ceil(std::log2(ways) - 1e-9);
    }
    case PatternKind::dense: break;
  }
  return 0;
}

}  // namespace pare
