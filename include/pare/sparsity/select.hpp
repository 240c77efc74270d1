// Exact counts for pruning masks.
#pragma once

#include <cmath>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// floor(share * count): how many weights of a block the unstructured mask zeroes.
/// The tiny addend undoes the binary rounding of shares such as 0.29.
inline index_t pruned_count(double share, index_t count) {
  return index_t(std::floor(share * double(count) + 1e-6));
}

/// Whether entry `at` of `of` is among the `zeros` smallest; ties go to the lower position.
/// @param score  callable, score(i) for i in [0, of)
/// @param at     position, [0, of)
/// @param of     how many entries
/// @param zeros  how many of them are marked
template <class Score>
PARE_HOST_DEVICE PARE_INLINE bool among_smallest(const Score& score, int at, int of, int zeros) {
  const auto mine = score(at);
  int rank = 0;
  for (int i = 0; i < of; ++i) {
    const auto other = score(i);
    rank += (other < mine) || (other == mine && i < at);
  }
  return rank < zeros;
}

}  // namespace pare
