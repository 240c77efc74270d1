// Arranges a packed linear in tiles: which rows and columns stand where. Host code.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pare/backend/cuda/packed_tiles.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace packing {

/// The rows in the order of the tiles, each width in tiles of its own, -1 where a tile has no row;
/// the tiers of output channels.
inline std::vector<std::int32_t> order_rows(const PackedLayout& layout, PackedTiles& tiles) {
  std::vector<std::int32_t> row_of;
  const bool mixed = layout.by_row() && layout.widths.size() > 1;
  for (const std::uint8_t bits : layout.tiers()) {
    PackedTier tier{.bits = bits, .first_tile = tiles.tiles};
    tier.chunks = int((layout.columns + chunk_columns - 1) / chunk_columns);
    for (index_t i = 0; i < layout.rows; ++i)
      if (!mixed || layout.widths[std::size_t(i)] == bits) {
        row_of.push_back(std::int32_t(i));
        ++tier.rows;
      }
    while (row_of.size() % tile_rows != 0) row_of.push_back(-1);
    tiles.tiles = tier.last_tile = int(row_of.size() / tile_rows);
    tiles.tiers.push_back(tier);
    if (!layout.by_row()) break;  // columns carry the widths
  }
  tiles.units = tiles.tiers.front().units();
  return row_of;
}

/// Places the columns of a unit, which ascend, so that the numbers that the lanes of a warp load at
/// a time are near each other.
/// @param lanes    chunks of the unit
/// @param place_of receives the column of each of the unit's places
inline void place_columns(const std::int32_t* columns, std::size_t count, int lanes,
                          std::int32_t* place_of) {
  std::size_t next = 0;
  for (int first_step = 0; first_step < chunk_steps; first_step += lane_steps)
    for (int k = 0; k < step_columns; ++k)
      for (int step = first_step; step < first_step + lane_steps; ++step)
        for (int c = 0; c < lanes && next < count; ++c)
          place_of[c * chunk_columns + step * step_columns + k] = columns[next++];
}

/// Columns in the order of the units; the tiers of input channels.
inline void order_columns(const PackedLayout& layout, PackedTiles& tiles) {
  PackedTier like = tiles.tiers.front();
  tiles.tiers.clear();
  tiles.units = 0;
  for (const std::uint8_t bits : layout.tiers()) {
    PackedTier tier = like;
    tier.bits = bits;
    tier.first_unit = tiles.units;
    std::vector<std::int32_t> columns;
    for (index_t j = 0; j < layout.columns; ++j)
      if (layout.widths[std::size_t(j)] == bits) columns.push_back(std::int32_t(j));
    tier.chunks = int((index_t(columns.size()) + chunk_columns - 1) / chunk_columns);
    tiles.units += tier.units();
    tiles.column_of.resize(std::size_t(tiles.units) * unit_columns, -1);
    for (int unit = 0; unit < tier.units(); ++unit) {
      const std::size_t first = std::size_t(unit) * unit_columns;
      place_columns(columns.data() + first,
                    std::min(columns.size() - first, std::size_t{unit_columns}), tier.lanes(unit),
                    tiles.column_of.data() + std::size_t(tier.first_unit + unit) * unit_columns);
    }
    tiles.tiers.push_back(tier);
  }
}

/// Places the columns of every grid in whole runs of a unit's steps; the tiers of input channels. A step
/// is of 8 columns for each of the unit's chunks, of which there are 1, 2 or 4.
inline void place_groups(const GridMap& map, PackedTiles& tiles) {
  const index_t run = index_t(tiles.run_steps) * unit_chunks * step_columns;
  const PackedTier like = tiles.tiers.front();
  if (tiles.tiers_of_columns) tiles.tiers.clear();
  tiles.units = 0;
  for (index_t g = 0; g < map.grids();) {
    const index_t first_grid = g;
    std::vector<std::int32_t> columns;
    for (; g < map.grids() && (!tiles.tiers_of_columns ||
                               map.width[std::size_t(g)] == map.width[std::size_t(first_grid)]);
         ++g) {
      for (const index_t j : map.columns_of(g)) columns.push_back(std::int32_t(j));
      columns.resize((columns.size() + std::size_t(run) - 1) / std::size_t(run) * std::size_t(run),
                     -1);
    }
    PackedTier tier = like;
    tier.first_unit = tiles.units;
    tier.chunks = int((index_t(columns.size()) + chunk_columns - 1) / chunk_columns);
    if (tier.chunks % unit_chunks == 3) ++tier.chunks;
    tiles.units += tier.units();
    tiles.column_of.resize(std::size_t(tiles.units) * unit_columns, -1);
    for (std::size_t q = 0; q < columns.size(); ++q) {
      const int unit = int(q / unit_columns), lanes = tier.lanes(unit);
      const int eight = int(q % unit_columns) / step_columns, c = eight % lanes;
      tiles.column_of[std::size_t(tier.first_unit + unit) * unit_columns +
                      std::size_t(c * chunk_columns + eight / lanes * step_columns) +
                      q % step_columns] = columns[q];
    }
    if (tiles.tiers_of_columns) {
      tier.bits = map.width[std::size_t(first_grid)];
      tiles.tiers.push_back(tier);
    } else {
      for (PackedTier& of_rows : tiles.tiers) of_rows.chunks = tier.chunks;
    }
  }
}

}  // namespace packing

/// Rearranges a quantized packed linear.
inline PackedTiles arrange_tiles(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  PackedTiles tiles;
  tiles.columns = layout.columns;
  const std::vector<std::int32_t> row_of = packing::order_rows(layout, tiles);
  tiles.tiers_of_columns = !layout.by_row() && layout.widths.size() > 1;
  const bool grouped =
      layout.grids() > (tiles.tiers_of_columns ? index_t(layout.tiers().size()) : 1);
  bool in_order = !tiles.tiers_of_columns;
  if (grouped) {
    tiles.run_steps = layout.group_size % 128 == 0 ? 4 : layout.group_size % 64 == 0 ? 2 : 1;
    in_order = in_order && layout.group_size % 32 == 0;
    packing::place_groups(packed.grids, tiles);
  } else if (tiles.tiers_of_columns) {
    packing::order_columns(layout, tiles);
  }
  if (packed.kind != PackedMask::none) {
    // The m of n:m lie across columns of several widths; a bit per weight says them everywhere.
    tiles.mask_bits = packed.kind == PackedMask::n_of_m && in_order
                          ? packing::index_bits_of_eight(layout.pattern.zeros, layout.pattern.of)
                          : 8;
    tiles.kept_of =
        packing::kept_of_indices(tiles.mask_bits, layout.pattern.zeros, layout.pattern.of);
    if (tiles.mask_bits < 8) {
      tiles.of = layout.pattern.of;
      tiles.kept_of_eight =
          step_columns / layout.pattern.of * (layout.pattern.of - layout.pattern.zeros);
    }
  }

  const std::int64_t words = tiles.mask_bits == 0 ? 0 : tiles.mask_words();
  std::int64_t base = 0;
  for (PackedTier& tier : tiles.tiers) {
    const std::int64_t lanes = std::int64_t(8) * tier.chunks;
    const std::int64_t size = words == 0
                                  ? lanes * 2 * tier.bits + tier.units() * tiles.grid_words() / 4
                                  : lanes * 2 * words;
    tier.base = std::uint32_t(base);
    tier.stride = std::uint32_t(size);
    base += tiles.tiers_of_columns ? size : size * (tier.last_tile - tier.first_tile);
  }
  if (tiles.tiers_of_columns)
    for (PackedTier& tier : tiles.tiers) tier.stride = std::uint32_t(base);

  const index_t grids = grouped ? 1 : layout.grids();
  for (std::size_t g = 0; g < std::size_t(grids); ++g)
    for (const std::int32_t row : row_of) {
      PackedRow end;
      if (row >= 0) {
        const std::size_t from = g * std::size_t(layout.rows) + std::size_t(row);
        end.row = row;
        if (!grouped) {
          end.scale = packed.scales[from];
          end.zero = packed.zeros[from];
        }
      }
      tiles.row_ends.push_back(end);
    }

  std::vector<packing::TileBits> bits(std::size_t(tiles.tiles));
  pare::detail::host_parallel_for(tiles.tiles, [&](index_t tile) {
    thread_local packing::TileRows rows;
    rows.read(packed, row_of.data() + tile * tile_rows);
    bits[std::size_t(tile)] = packing::TileWriter(tiles, rows)(int(tile));
  });
  for (packing::TileBits& tile : bits) {
    for (const std::uint32_t at : tile.unit_begin)
      tiles.unit_begin.push_back(at + std::uint32_t(tiles.codes.size()));
    tiles.codes.insert(tiles.codes.end(), tile.codes.begin(), tile.codes.end());
    tiles.masks.insert(tiles.masks.end(), tile.masks.begin(), tile.masks.end());
    tiles.longest_stream = std::max(tiles.longest_stream, tile.longest_stream);
    tile = {};
  }
  if (tiles.mask_bits != 0) tiles.unit_begin.push_back(std::uint32_t(tiles.codes.size()));
  if (in_order) tiles.column_of.clear();  // the kernel knows where they are
  return tiles;
}

}  // namespace pare::backend::cuda
