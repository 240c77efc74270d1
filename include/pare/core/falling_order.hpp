// Indices of numbers in falling order.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Indices of values, the largest first; equal ones in natural order. By radix: a GPU is idle meanwhile, and
/// a comparison sort of a few thousand numbers takes noticeably longer.
/// @param values  no NaN, fewer than 2^32
/// @return a permutation of 0 .. values.size() - 1
inline std::vector<std::uint32_t> falling_order(std::span<const double> values) {
  const std::size_t n = values.size();
  std::vector<std::pair<std::uint64_t, std::uint32_t>> from(n), to(n);
  std::array<std::array<std::uint32_t, 256>, 8> count = {};  // of each byte
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(values[i] + 0.0);  // no negative zero
    // Bits that rise as numbers fall.
    const std::uint64_t key = bits >> 63 != 0 ? bits : ~(bits | std::uint64_t{1} << 63);
    from[i] = {key, std::uint32_t(i)};
    for (int byte = 0; byte < 8; ++byte) ++count[std::size_t(byte)][key >> 8 * byte & 255];
  }
  for (int byte = 0; byte < 8; ++byte) {
    std::array<std::uint32_t, 256>& next = count[std::size_t(byte)];
    std::uint32_t sum = 0;
    for (std::uint32_t& c : next) sum += std::exchange(c, sum);
    for (const auto& entry : from) to[next[entry.first >> 8 * byte & 255]++] = entry;
    from.swap(to);
  }
  std::vector<std::uint32_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = from[i].second;
  return order;
}

}  // namespace pare::detail
