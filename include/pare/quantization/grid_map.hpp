// Which grid every weight of a linear is on: the one rule.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// In place of a group size: the largest of 128, 64 and 32 that divides a linear's inputs, 32 where
/// none does.
inline constexpr index_t dividing_group_size = -1;

/// Inputs that share a grid in one linear.
/// @param group_size  of a configuration: a number, 0 for whole rows, or dividing_group_size
/// @param columns     inputs of the linear
constexpr index_t resolved_group_size(index_t group_size, index_t columns) {
  if (group_size != dividing_group_size) return group_size;
  return columns % 128 == 0 ? 128 : columns % 64 == 0 ? 64 : 32;
}

/// Number of groups that so many columns make.
/// @param columns     how many, >= 0
/// @param group_size  columns of a group, the last may be shorter; 0: all of them
constexpr index_t group_count(index_t columns, index_t group_size) {
  if (columns == 0) return 0;
  return group_size < 1 ? 1 : columns / group_size + (columns % group_size != 0 ? 1 : 0);
}

/// Which grid every column of a linear is on. A row has as many grids as every other, each fitted to
/// the same columns. Plain data; made by grid_map().
struct GridMap {
  /// Columns of a group; 0: all of a row, or of a tier.
  index_t group_size = 0;
  /// Grid of each column, (in).
  std::vector<std::int32_t> of_column = {};
  /// Where the columns of each grid begin in `columns`, and where the last end, (grids + 1).
  std::vector<index_t> begin = {};
  /// Columns grid by grid, in natural order within a grid, (in).
  std::vector<index_t> columns = {};
  /// Width of each grid in bits, (grids), with input channels; empty with output channels, where
  /// the row says it.
  std::vector<std::uint8_t> width = {};

  /// Number of grids of a row; none without a quantizer.
  index_t grids() const { return begin.empty() ? 0 : index_t(begin.size()) - 1; }
  /// Whether the row says the width, because a channel is a row.
  bool by_row() const { return width.empty(); }
  /// The columns of grid g, in natural order.
  std::span<const index_t> columns_of(index_t g) const {
    const index_t first = begin[std::size_t(g)];
    return {columns.data() + first, std::size_t(begin[std::size_t(g) + 1] - first)};
  }
  /// Width in bits of grid g of a row.
  /// @param g     of the grids, [0, grids())
  /// @param row   of the weights, (out)
  /// @param bits  those the map was made from: one per channel, or a single one for all
  int width_of(index_t g, index_t row, std::span<const std::uint8_t> bits) const {
    return by_row() ? bits[bits.size() == 1 ? 0 : std::size_t(row)] : width[std::size_t(g)];
  }
  /// Whether columns grid by grid are columns in natural order.
  bool natural_order() const { return std::is_sorted(columns.begin(), columns.end()); }
};

/// The grids of a linear.
///
/// With output channels a grid is of group_size neighbouring columns, and a row's width holds for all
/// its grids. With input channels a tier is the columns of one width, the widest first; a grid is of
/// group_size columns of a tier, in natural order. The last of a row or tier may have fewer.
/// @param axis         what a channel is
/// @param bits         width of every channel of the axis, or a single one for all; empty without a
///                     quantizer: there is no grid
/// @param in_features  columns, >= 1
/// @param group_size   columns of a grid; 0: all of a row or tier
/// @throws argument_error for a size below its least, shape_error when with input channels there is
///         another number of widths than of columns
inline GridMap grid_map(ChannelAxis axis, std::span<const std::uint8_t> bits, index_t in_features,
                        index_t group_size) {
  if (in_features < 1 || in_features > std::numeric_limits<std::int32_t>::max())
    throw argument_error("in_features: expected a number within 1..2147483647, got " +
                         std::to_string(in_features));
  if (group_size < 0)
    throw argument_error("group_size: expected a number of columns, or 0 for whole rows, got " +
                         std::to_string(group_size));
  GridMap map;
  map.group_size = group_size;
  if (bits.empty()) return map;
  const bool by_row = axis == ChannelAxis::output;
  if (!by_row && bits.size() != 1 && index_t(bits.size()) != in_features)
    throw shape_error("bits: expected a width for each of " + std::to_string(in_features) +
                      " input channels, got " + std::to_string(bits.size()));
  map.of_column.resize(std::size_t(in_features));
  map.columns.resize(std::size_t(in_features));
  std::iota(map.columns.begin(), map.columns.end(), index_t{0});
  map.begin.assign(1, 0);
  // Cuts the next `count` columns into groups.
  const auto cut = [&](index_t count, std::uint8_t width) {
    const index_t first = map.begin.back(), groups = group_count(count, group_size);
    for (index_t g = 1; g <= groups; ++g) {
      map.begin.push_back(first + (g == groups ? count : g * group_size));
      if (!by_row) map.width.push_back(width);
    }
  };
  if (by_row || bits.size() == 1) {
    cut(in_features, bits.front());
  } else {
    std::stable_sort(map.columns.begin(), map.columns.end(), [&](index_t a, index_t b) {
      return bits[std::size_t(a)] > bits[std::size_t(b)];
    });
    std::array<index_t, 256> count = {};  // of each width
    for (const std::uint8_t width : bits) ++count[width];
    for (int width = 255; width >= 0; --width) cut(count[std::size_t(width)], std::uint8_t(width));
  }
  for (index_t g = 0; g < map.grids(); ++g)
    for (const index_t j : map.columns_of(g)) map.of_column[std::size_t(j)] = std::int32_t(g);
  return map;
}

}  // namespace pare
