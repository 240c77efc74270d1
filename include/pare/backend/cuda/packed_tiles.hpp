// The bits of a packed linear in the order in which the GPU's product reads them. Host code.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <numeric>
#include <vector>

#include "pare/storage/packed_rows.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

// A tile is 16 rows, as many as a matrix instruction takes; a warp works on a unit, 16 rows by four
// chunks of 128 columns. Lane 4 g + c holds chunk c of the rows g and g + 8 of the tile.
inline constexpr int tile_rows = 16;
inline constexpr int chunk_columns = 128;
inline constexpr int unit_chunks = 4;
inline constexpr int unit_columns = unit_chunks * chunk_columns;
/// Columns that a lane feeds to one matrix instruction.
inline constexpr int step_columns = 8;
inline constexpr int chunk_steps = chunk_columns / step_columns;
/// Steps of which the lanes of a warp load a number each at a time, one of every chunk.
inline constexpr int lane_steps = 32 / unit_chunks;
inline constexpr int most_tiers = max_bits - min_bits + 1;

/// Channels of one width: with output channels tiles of rows with all columns, with input channels
/// all tiles with some of the columns.
struct PackedTier {
  int bits = 0;
  int first_tile = 0, last_tile = 0;  ///< [first, last)
  int first_unit = 0;                 ///< among the units of the columns
  int chunks = 0;
  int rows = 0;  ///< of its tiles in all; the last tile may have fewer than 16
  /// Where it begins in the first of its tiles, and from one tile to the next: codes in pieces of
  /// 16 bytes, or mask words where there is a mask.
  std::uint32_t base = 0, stride = 0;

  PARE_HOST_DEVICE constexpr int units() const { return (chunks + unit_chunks - 1) / unit_chunks; }
  /// Chunks of one of its units, for which each row has a lane.
  PARE_HOST_DEVICE constexpr int lanes(int unit) const {
    const int left = chunks - unit * unit_chunks;
    return left < unit_chunks ? left : unit_chunks;
  }
};

/// The grid of a row, where it has one, and the row's place in y, -1 where the tile has no such row.
struct PackedRow {
  std::uint16_t scale = 0;  ///< float16
  std::uint8_t zero = 0;
  std::int32_t row = -1;
};

/// A quantized packed linear, its bits rearranged so that the 32 lanes of a warp load neighbouring
/// words. Rows are ordered by width, and columns too where these are the channels.
struct PackedTiles {
  index_t columns = 0;  ///< in
  int tiles = 0;
  int units = 0;  ///< of a tile; with input channels each width begins a new one
  std::vector<PackedTier> tiers;
  bool tiers_of_columns = false;  ///< a tier is of columns, and all tiles have it
  /// Where a row or tier has several grids: neighbouring steps whose columns are on the same, 1, 2 or 4;
  /// they are a run. Otherwise 0.
  int run_steps = 0;
  /// (units * 512), -1 where there is none, see place_columns and place_groups; empty: in order
  std::vector<std::int32_t> column_of;
  std::vector<PackedRow> row_ends;  ///< (grids, tiles * 16); with runs (tiles * 16), without grids
  /// Codes, and in front of those of a unit the grids of its runs, (runs, 16), see grid_word. Without a mask the chunks of a unit as pieces of 16 bytes: piece j of the rows g of all
  /// lanes, of their rows g + 8, and then piece j + 1. With one a stream per lane, all as long as
  /// the longest of the unit: word j of the 32 lanes and then word j + 1.
  std::vector<std::uint32_t> codes;
  /// Bits of an index that says which of 8 weights are kept: 8 = a bit each, 4 or 6 = the indices of
  /// their n:m; 0 without a mask.
  int mask_bits = 0;
  int of = 0;                        ///< m of n:m, with an index of its ways
  int kept_of_eight = 0;             ///< weights kept of 8, with an index
  std::vector<std::uint32_t> masks;  ///< the words of a chunk, of the rows g, then of g + 8
  /// Where each unit of each tile begins in `codes`, and the end; with a mask.
  std::vector<std::uint32_t> unit_begin;  ///< (tiles * units + 1)
  std::vector<std::uint8_t> kept_of;      ///< a bit per kept weight for every index
  int longest_stream = 0;                 ///< words of a lane

  int mask_words() const { return (chunk_steps * mask_bits + 31) / 32; }
  /// Words of the grids in front of a unit.
  int grid_words() const { return run_steps == 0 ? 0 : chunk_steps / run_steps * tile_rows; }
  /// Bytes that a product reads.
  std::uint64_t bytes() const {
    return 4 * (codes.size() + masks.size() + unit_begin.size() + column_of.size()) +
           sizeof(PackedRow) * row_ends.size();
  }
};

namespace packing {

/// Bits of an index for 8 columns that n:m can be said in; 8: bits say it as shortly.
inline int index_bits_of_eight(int zeros, int of) {
  if (of != 2 && of != 4 && of != 8) return 8;
  const int bits = step_columns / of * pare::detail::n_of_m_index_bits(zeros, of);
  return bits <= 4 ? 4 : bits <= 6 ? 6 : 8;
}

/// Where in a word, or in a stream, code `index` of a chunk lies: for widths that divide 8 four
/// neighbours are the bytes of a word after one shift and one mask.
inline int code_position(int bits, int index) {
  if (8 % bits != 0) return bits * index;
  const int per_word = 32 / bits, in_word = index % per_word;
  return index / per_word * 32 + in_word % 4 * 8 + in_word / 4 * bits;
}

/// Puts the lowest bits of a value into words that are zero there.
inline void put_bits(std::uint32_t* words, std::uint64_t position, std::uint32_t value, int bits) {
  const std::uint64_t at = position / 32;
  const int shift = int(position % 32);
  words[at] |= value << shift;
  if (shift + bits > 32) words[at + 1] |= value >> (32 - shift);
}

/// A grid as the kernel reads it: exponent and first 16 bits of the mantissa of the scale as a float,
/// which hold every float16 > 0, and the zero point.
inline std::uint32_t grid_word(std::uint16_t scale, std::uint8_t zero) {
  return std::bit_cast<std::uint32_t>(half_to_float(scale)) >> 7 << 8 | zero;
}

/// Codes and mask of 16 rows as bytes.
struct TileRows {
  const PackedLinear* of = nullptr;
  const std::int32_t* row_of = nullptr;  // (16)
  Matrix<std::uint8_t> codes, kept;      // (16, in)
  std::vector<std::uint8_t> pruned;      // (in)

  void read(const PackedLinear& packed, const std::int32_t* rows) {
    of = &packed;
    row_of = rows;
    const index_t in = packed.layout.columns;
    codes.resize(tile_rows, in);
    kept.resize(tile_rows, in);
    codes.fill(0);
    kept.fill(0);
    pruned.resize(std::size_t(in));
    for (int r = 0; r < tile_rows; ++r) {
      if (row_of[r] < 0) continue;
      pare::detail::read_mask_row(packed, row_of[r], pruned.data());
      pare::detail::for_each_code(packed, row_of[r], pruned.data(),
                                  [&](index_t j, index_t, std::uint64_t code) {
                                    codes(r, j) = std::uint8_t(code);
                                    kept(r, j) = 1;
                                  });
    }
  }
};

/// What one tile adds to codes, masks and unit_begin.
struct TileBits {
  std::vector<std::uint32_t> codes, masks, unit_begin;
  int longest_stream = 0;
};

/// Writes the units of one tile.
class TileWriter {
 public:
  TileWriter(const PackedTiles& tiles, const TileRows& rows) : tiles_(tiles), rows_(rows) {}

  TileBits operator()(int tile) {
    for (const PackedTier& tier : tiles_.tiers) {
      if (tile < tier.first_tile || tile >= tier.last_tile) continue;
      for (int unit = 0; unit < tier.units(); ++unit) {
        const int lanes = tier.lanes(unit);
        const index_t first = index_t(tier.first_unit + unit) * unit_columns;
        if (tiles_.mask_bits != 0) out_.unit_begin.push_back(std::uint32_t(out_.codes.size()));
        if (tiles_.run_steps != 0) grids(first);
        if (tiles_.mask_bits == 0)
          pieces(tier.bits, first, lanes);
        else
          streams(tier.bits, first, lanes);
      }
    }
    return std::move(out_);
  }

 private:
  index_t column(index_t place) const {
    if (tiles_.column_of.empty()) return place < tiles_.columns ? place : -1;
    return tiles_.column_of[std::size_t(place)];
  }

  /// The grids of a unit's runs. Of a run without columns they count for nothing.
  void grids(index_t first) {
    const PackedLinear& packed = *rows_.of;
    for (int step = 0; step < chunk_steps; step += tiles_.run_steps) {
      index_t of_run = -1;
      for (int c = 0; c < unit_chunks && of_run < 0; ++c)
        for (int k = 0; k < tiles_.run_steps * step_columns && of_run < 0; ++k)
          of_run = column(first + c * chunk_columns + step * step_columns + k);
      for (int r = 0; r < tile_rows; ++r) {
        std::uint32_t word = 0;
        if (of_run >= 0 && rows_.row_of[r] >= 0) {
          const std::size_t at = std::size_t(packed.grids.of_column[std::size_t(of_run)]) *
                                     std::size_t(packed.layout.rows) +
                                 std::size_t(rows_.row_of[r]);
          word = grid_word(packed.scales[at], packed.zeros[at]);
        }
        out_.codes.push_back(word);
      }
    }
  }

  void pieces(int bits, index_t first, int lanes) {
    const std::size_t begin = out_.codes.size();
    out_.codes.resize(begin + std::size_t(8 * lanes * 2 * bits * 4), 0);
    std::vector<std::uint32_t> words(std::size_t(4 * bits));
    for (int half = 0; half < 2; ++half)
      for (int g = 0; g < 8; ++g)
        for (int c = 0; c < lanes; ++c) {
          std::fill(words.begin(), words.end(), 0u);
          for (int k = 0; k < chunk_columns; ++k)
            if (const index_t j = column(first + c * chunk_columns + k); j >= 0)
              put_bits(words.data(), std::uint64_t(code_position(bits, k)),
                       rows_.codes(g + 8 * half, j), bits);
          for (int piece = 0; piece < bits; ++piece)
            std::copy_n(words.data() + 4 * piece, 4,
                        out_.codes.data() + begin +
                            std::size_t(((piece * 2 + half) * 8 * lanes + g * lanes + c) * 4));
        }
  }

  void streams(int bits, index_t first, int lanes) {
    const int words = tiles_.mask_words();
    const std::size_t masks = out_.masks.size();
    out_.masks.resize(masks + std::size_t(8 * lanes * 2 * words), 0);
    std::array<std::vector<std::uint32_t>, 32> streams;
    std::array<std::uint32_t, 4> mask{};
    std::size_t longest = 1;  // a copy of nothing is none
    for (int g = 0; g < 8; ++g)
      for (int c = 0; c < lanes; ++c) {
        const int lane = g * unit_chunks + c;
        std::vector<std::uint32_t>& stream = streams[std::size_t(lane)];
        stream.assign(std::size_t{2} * chunk_columns / 32 * std::size_t(bits) + 1, 0);
        std::uint64_t length = 0;
        for (int half = 0; half < 2; ++half) {
          mask.fill(0);
          for (int step = 0; step < chunk_steps; ++step)
            eight(bits, g + 8 * half, first + c * chunk_columns + step * step_columns, step,
                  mask.data(), stream.data(), length);
          for (int w = 0; w < words; ++w)
            out_.masks[masks + std::size_t(((half * 8 + g) * lanes + c) * words + w)] =
                mask[std::size_t(w)];
        }
        longest = std::max(longest, std::size_t((length + 31) / 32));
      }
    for (std::size_t word = 0; word < longest; ++word)
      for (const auto& stream : streams)
        out_.codes.push_back(word < stream.size() ? stream[word] : 0);
    out_.longest_stream = std::max(out_.longest_stream, int(longest));
  }

  /// Mask and kept codes of 8 columns of a row.
  void eight(int bits, int row, index_t first, int step, std::uint32_t* mask, std::uint32_t* stream,
             std::uint64_t& length) {
    std::array<std::uint8_t, step_columns> code{}, kept{};
    bool any = false;
    for (int k = 0; k < step_columns; ++k)
      if (const index_t j = column(first + k); j >= 0) {
        code[std::size_t(k)] = rows_.codes(row, j);
        kept[std::size_t(k)] = rows_.kept(row, j);
        any = any || kept[std::size_t(k)] != 0;
      } else if (tiles_.mask_bits < 8) {  // m columns that are not there are like the first
        kept[std::size_t(k)] = kept[std::size_t(k % tiles_.of)];
      }
    std::uint32_t index = 0, pattern = 0;
    for (int k = 0; k < step_columns; ++k) pattern |= std::uint32_t(kept[std::size_t(k)]) << k;
    if (tiles_.mask_bits == 8) {
      index = pattern;
    } else {
      // Rows and columns that are not there have index 0 and as many codes as any other.
      if (any) {
        const auto found = std::find(tiles_.kept_of.begin(), tiles_.kept_of.end(), pattern);
        index = std::uint32_t(found - tiles_.kept_of.begin());
      }
      pattern = tiles_.kept_of[index];
    }
    put_bits(mask, std::uint64_t(step) * std::uint64_t(tiles_.mask_bits), index, tiles_.mask_bits);
    for (int k = 0; k < step_columns; ++k)
      if ((pattern >> k & 1u) != 0) {
        put_bits(stream, length, code[std::size_t(k)], bits);
        length += std::uint64_t(bits);
      }
  }

  const PackedTiles& tiles_;
  const TileRows& rows_;
  TileBits out_;
};

/// For every index of 8 columns, which are kept.
inline std::vector<std::uint8_t> kept_of_indices(int mask_bits, int zeros, int of) {
  std::vector<std::uint8_t> kept(std::size_t{1} << mask_bits, 0);
  if (mask_bits == 8) {
    std::iota(kept.begin(), kept.end(), std::uint8_t(0));
    return kept;
  }
  const int bits = pare::detail::n_of_m_index_bits(zeros, of);
  const std::uint64_t ways = pare::detail::binomials[std::size_t(of)][std::size_t(zeros)];
  for (std::size_t index = 0; index < kept.size(); ++index) {
    std::array<std::uint8_t, step_columns> pruned{};
    bool valid = index >> (step_columns / of * bits) == 0;
    for (int first = 0, at = 0; first < step_columns; first += of, at += bits) {
      const auto one = std::uint32_t(index >> at & ((1u << bits) - 1));
      valid = valid && one < ways;
      if (valid) pare::detail::mark_pruned(one, zeros, of, pruned.data() + first);
    }
    for (int k = 0; valid && k < step_columns; ++k)
      kept[index] = std::uint8_t(kept[index] | (pruned[std::size_t(k)] == 0 ? 1 << k : 0));
  }
  return kept;
}

}  // namespace packing
}  // namespace pare::backend::cuda
