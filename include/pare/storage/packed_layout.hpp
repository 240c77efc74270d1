// What a packed linear takes, to the byte: the writer, the statistics and the plans count here.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/matrix.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/sparsity/pattern.hpp"

namespace pare::inline PARE_TARGET {

/// How a packed linear says which weights are pruned and have no code: not at all, by a bit per
/// weight, or by an index per m inputs of n:m among the ways to choose.
enum class PackedMask : std::uint8_t { none, bits, n_of_m };

/// A grid in a packed file: a float16 scale and an 8-bit zero point.
inline constexpr int packed_grid_bits = 24;
/// The width of a channel in a packed file, where channels differ.
inline constexpr int packed_width_bits = 8;
/// A row of codes or of a mask begins at a multiple of this.
inline constexpr int packed_row_bits = 32;

/// Everything of a linear that its packed size depends on, but for what is pruned in which row.
struct PackedLayout {
  index_t rows = 0, columns = 0;  ///< (out, in)
  /// What a channel is.
  ChannelAxis axis = ChannelAxis::output;
  /// Width of the codes: one for all, or one per channel of `axis`; empty without a quantizer.
  std::vector<std::uint8_t> widths = {};
  int value_bits = 0;  ///< of a weight that is not quantized
  /// What is pruned; of an unstructured mask the share counts for nothing.
  Pattern pattern = {};
  index_t group_size = 0;  ///< columns that share a grid; 0: all of a row or tier

  /// Whether codes are on grids.
  bool quantized() const { return !widths.empty(); }
  /// Whether a channel is a row.
  bool by_row() const { return axis == ChannelAxis::output; }
  /// Number of channels.
  index_t channels() const { return by_row() ? rows : columns; }
  /// Bits of the code of weight (row, column).
  int code_bits(index_t row, index_t column) const {
    if (!quantized()) return value_bits;
    return widths[widths.size() == 1 ? 0 : std::size_t(by_row() ? row : column)];
  }
  /// The widths present, widest first. With input channels that is the order of the grids.
  std::vector<std::uint8_t> tiers() const {
    std::vector<std::uint8_t> present = widths;
    std::sort(present.begin(), present.end(), std::greater<>());
    present.erase(std::unique(present.begin(), present.end()), present.end());
    return present;
  }
  /// Number of grids per row.
  index_t grids() const {
    if (!quantized()) return 0;
    if (by_row() || widths.size() == 1) return group_count(columns, group_size);
    return group_size == 0 ? index_t(tiers().size())
                           : grid_map(axis, widths, columns, group_size).grids();
  }
};

/// Bytes of every part of a packed linear.
struct PackedSize {
  /// How pruned weights are told.
  PackedMask kind = PackedMask::none;
  /// Bytes of each part.
  std::uint64_t codes = 0, mask = 0, scales = 0, zeros = 0, widths = 0;

  /// Bytes of all parts.
  std::uint64_t bytes() const { return codes + mask + scales + zeros + widths; }
};

namespace detail {

/// Up to so many weights of n:m have an index; binomial(64, 32) still fits 64 bits.
inline constexpr int longest_indexed_of = 64;

/// binomial(n, k) at [n][k], 0 for k > n.
inline constexpr auto binomials = [] {
  std::array<std::array<std::uint64_t, longest_indexed_of + 1>, longest_indexed_of + 1> c{};
  for (std::size_t n = 0; n < c.size(); ++n) {
    c[n][0] = 1;
    for (std::size_t k = 1; k <= n; ++k) c[n][k] = c[n - 1][k - 1] + c[n - 1][k];
  }
  return c;
}();

/// ceil(log2(binomial(of, zeros))); 0 where `of` is too long or the index wider than 32
/// bits: then a mask has bits.
inline int n_of_m_index_bits(int zeros, int of) {
  if (of < 2 || of > longest_indexed_of || zeros < 1 || zeros >= of) return 0;
  const std::uint64_t ways = binomials[std::size_t(of)][std::size_t(zeros)];
  int bits = 1;
  while (bits <= 32 && (std::uint64_t{1} << bits) < ways) ++bits;
  return bits <= 32 ? bits : 0;
}

/// Bytes of a row's stream.
inline std::uint64_t row_bytes(std::uint64_t bits) {
  return (bits + packed_row_bits - 1) / packed_row_bits * (packed_row_bits / 8);
}

/// Calls f with the width of a code as a constant.
template <class F>
PARE_HOST_DEVICE PARE_INLINE auto with_code_bits(int bits, const F& f) {
  switch (bits) {
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    case 6:
      return f(std::integral_constant<int, 6>{});
    case 7:
      return f(std::integral_constant<int, 7>{});
    default:
      return f(std::integral_constant<int, 8>{});
  }
}

}  // namespace detail

/// How the mask of a pruned linear is written.
inline PackedMask packed_mask_kind(const Pattern& pattern) {
  return !pattern.prunes()                                          ? PackedMask::none
         : detail::n_of_m_index_bits(pattern.zeros, pattern.of) > 0 ? PackedMask::n_of_m
                                                                    : PackedMask::bits;
}

/// Bytes of one row of a mask.
inline std::uint64_t packed_mask_row_bytes(PackedMask kind, index_t columns,
                                           const Pattern& pattern) {
  switch (kind) {
    case PackedMask::bits:
      return detail::row_bytes(std::uint64_t(columns));
    case PackedMask::n_of_m:
      return detail::row_bytes(std::uint64_t(columns / pattern.of) *
                               std::uint64_t(detail::n_of_m_index_bits(pattern.zeros, pattern.of)));
    case PackedMask::none:
      break;
  }
  return 0;
}

/// The size of a linear when packed: codes of the weights that stay and a mask, or, where that is
/// smaller, codes of all weights, for zero is on every grid; then grids, and widths where channels
/// differ.
/// @param layout     of the linear
/// @param kept_bits  bits of the codes that each row keeps, (out); not read when nothing is pruned
inline PackedSize packed_size(const PackedLayout& layout,
                              std::span<const std::uint64_t> kept_bits) {
  PackedSize size;
  std::uint64_t row_total = 0;  // of all codes of a row
  if (!layout.quantized() || !layout.by_row() || layout.widths.size() == 1)
    for (index_t j = 0; j < layout.columns; ++j) row_total += std::uint64_t(layout.code_bits(0, j));
  std::uint64_t kept = 0;
  for (index_t i = 0; i < layout.rows; ++i) {
    if (layout.quantized() && layout.by_row())
      row_total = std::uint64_t(layout.columns) * std::uint64_t(layout.code_bits(i, 0));
    size.codes += detail::row_bytes(row_total);
    if (layout.pattern.prunes()) kept += detail::row_bytes(kept_bits[std::size_t(i)]);
  }
  if (layout.pattern.prunes()) {
    const PackedMask kind = packed_mask_kind(layout.pattern);
    const std::uint64_t mask =
        std::uint64_t(layout.rows) * packed_mask_row_bytes(kind, layout.columns, layout.pattern);
    if (kept + mask < size.codes) {
      size.kind = kind;
      size.codes = kept;
      size.mask = mask;
    }
  }
  const std::uint64_t grids = std::uint64_t(layout.grids()) * std::uint64_t(layout.rows);
  size.scales = 2 * grids;
  size.zeros = grids;
  if (layout.widths.size() > 1) size.widths = layout.widths.size();
  return size;
}

/// `widths` as a layout holds them: a single one where all are the same.
inline std::vector<std::uint8_t> merged_widths(std::vector<std::uint8_t> widths) {
  if (!widths.empty() && std::equal(widths.begin() + 1, widths.end(), widths.begin()))
    widths.resize(1);
  return widths;
}

}  // namespace pare
