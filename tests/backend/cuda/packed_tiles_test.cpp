// The arrangement of packed linears that the GPU's product reads, decoded on the host as the
// description of PackedTiles says: no GPU is needed.
#define BOOST_TEST_MODULE pare_packed_tiles
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>
#include <vector>

#include "packed_support.hpp"
#include "pare/backend/cuda/packed_arrange.hpp"
#include "support.hpp"

using namespace pare;
using namespace pare::backend::cuda;

namespace {

std::uint32_t bits_at(const std::uint32_t* words, std::uint64_t position, int bits) {
  std::uint32_t value = 0;
  for (int k = 0; k < bits; ++k, ++position)
    value |= (words[position / 32] >> position % 32 & 1) << k;
  return value;
}

/// Codes of one linear, and which weights are kept.
struct Decoded {
  Matrix<std::uint8_t> codes, kept;  // (out, in)

  explicit Decoded(const PackedLayout& layout)
      : codes(layout.rows, layout.columns), kept(layout.rows, layout.columns) {
    codes.fill(0);
    kept.fill(0);
  }
  bool operator==(const Decoded& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size());
    };
    return same(codes, other.codes) && same(kept, other.kept);
  }
};

Decoded decode(const PackedLinear& packed) {
  Decoded out(packed.layout);
  std::vector<std::uint8_t> pruned(std::size_t(packed.layout.columns), 0);
  for (index_t i = 0; i < packed.layout.rows; ++i) {
    pare::detail::read_mask_row(packed, i, pruned.data());
    pare::detail::for_each_code(packed, i, pruned.data(),
                                [&](index_t j, index_t, std::uint64_t code) {
                                  out.codes(i, j) = std::uint8_t(code);
                                  out.kept(i, j) = 1;
                                });
  }
  return out;
}

/// Reads the tiles as the lanes of the kernel do.
class TilesReader {
 public:
  TilesReader(const PackedTiles& tiles, const PackedLinear& packed)
      : tiles_(tiles), packed_(packed), out_(packed.layout) {}

  Decoded operator()() {
    for (const PackedTier& tier : tiles_.tiers)
      for (int tile = tier.first_tile; tile < tier.last_tile; ++tile)
        for (int unit = 0; unit < tier.units(); ++unit) {
          const int lanes = tier.lanes(unit);
          const std::uint32_t base =
              tier.base + std::uint32_t(tile - tier.first_tile) * tier.stride;
          for (int g = 0; g < 8; ++g)
            for (int c = 0; c < lanes; ++c)
              if (tiles_.mask_bits == 0)
                pieces(tier, tile, unit, base, lanes, g, c);
              else
                stream(tier, tile, unit, base, lanes, g, c);
        }
    return std::move(out_);
  }

 private:
  /// @param grids  word of the codes where the grids of the unit begin, where there are runs
  void put(const PackedTier& tier, int tile, int unit, std::size_t grids, int g, int c, int k,
           std::uint32_t code) {
    const index_t place = index_t(tier.first_unit + unit) * unit_columns + c * chunk_columns + k;
    index_t column = place;
    if (!tiles_.column_of.empty())
      column = tiles_.column_of[std::size_t(place)];
    else if (tiles_.run_steps > 0)  // a step has neighbours in all lanes
      column = index_t(tier.first_unit + unit) * unit_columns +
               (k / step_columns * tier.lanes(unit) + c) * step_columns + k % step_columns;
    const std::int32_t row = tiles_.row_ends[std::size_t(tile * tile_rows + g)].row;
    if (column < 0 || column >= out_.codes.cols() || row < 0) return;
    if (tiles_.run_steps > 0) {
      const std::size_t at = std::size_t(packed_.grids.of_column[std::size_t(column)]) *
                                 std::size_t(packed_.layout.rows) +
                             std::size_t(row);
      const std::uint32_t word =
          tiles_.codes[grids + std::size_t(k / step_columns / tiles_.run_steps * tile_rows + g)];
      BOOST_REQUIRE(std::bit_cast<float>(word >> 8 << 7) == half_to_float(packed_.scales[at]));
      BOOST_REQUIRE((word & 255) == packed_.zeros[at]);
    }
    out_.codes(row, column) = std::uint8_t(code);
    out_.kept(row, column) = 1;
  }

  void pieces(const PackedTier& tier, int tile, int unit, std::uint32_t base, int lanes, int g,
              int c) {
    const int grid_pieces = tiles_.grid_words() / 4;
    const std::size_t grids =
        base + std::size_t(unit * (16 * unit_chunks * tier.bits + grid_pieces));
    for (int h = 0; h < 2; ++h) {
      std::vector<std::uint32_t> words;
      for (int j = 0; j < tier.bits; ++j) {
        const std::size_t piece =
            grids + std::size_t(grid_pieces + (2 * j + h) * 8 * lanes + g * lanes + c);
        words.insert(words.end(), tiles_.codes.begin() + std::ptrdiff_t(4 * piece),
                     tiles_.codes.begin() + std::ptrdiff_t(4 * piece + 4));
      }
      for (int k = 0; k < chunk_columns; ++k)
        put(tier, tile, unit, 4 * grids, g + 8 * h, c, k,
            bits_at(words.data(), std::uint64_t(packing::code_position(tier.bits, k)), tier.bits));
    }
  }

  void stream(const PackedTier& tier, int tile, int unit, std::uint32_t base, int lanes, int g,
              int c) {
    const std::size_t item = std::size_t(tile * tiles_.units + tier.first_unit + unit);
    const std::size_t grids = tiles_.unit_begin[item], end = tiles_.unit_begin[item + 1];
    const std::size_t begin = grids + std::size_t(tiles_.grid_words());
    BOOST_REQUIRE(end > begin && grids % 32 == 0 && begin % 32 == 0 && end <= tiles_.codes.size());
    BOOST_REQUIRE(end - begin <= 32 * std::size_t(tiles_.longest_stream));
    std::vector<std::uint32_t> words;
    for (std::size_t at = begin + std::size_t(unit_chunks * g + c); at < end; at += 32)
      words.push_back(tiles_.codes[at]);
    std::uint64_t position = 0;
    for (int h = 0; h < 2; ++h) {
      const std::size_t mask = base + std::size_t(unit * 8 * unit_chunks * 2 * tiles_.mask_words() +
                                                  ((8 * h + g) * lanes + c) * tiles_.mask_words());
      for (int step = 0; step < chunk_steps; ++step) {
        const std::uint32_t index =
            bits_at(tiles_.masks.data() + mask, std::uint64_t(step * tiles_.mask_bits),
                    tiles_.mask_bits);
        for (int k = 0; k < step_columns; ++k) {
          if ((tiles_.kept_of[index] >> k & 1) == 0) continue;
          BOOST_REQUIRE(position + std::uint64_t(tier.bits) <= 32 * words.size());
          put(tier, tile, unit, grids, g + 8 * h, c, step * step_columns + k,
              bits_at(words.data(), position, tier.bits));
          position += std::uint64_t(tier.bits);
        }
      }
    }
  }

  const PackedTiles& tiles_;
  const PackedLinear& packed_;
  Decoded out_;
};

void check_tiles(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  const PackedTiles tiles = arrange_tiles(packed);
  BOOST_CHECK(TilesReader(tiles, packed)() == decode(packed));
  // Every row has one place, with its grids where they do not stand with the codes.
  const std::size_t places = std::size_t(tiles.tiles) * tile_rows;
  BOOST_REQUIRE(tiles.row_ends.size() ==
                places *
                    (tiles.run_steps > 0 ? 1 : packed.scales.size() / std::size_t(layout.rows)));
  std::vector<int> seen(std::size_t(layout.rows), 0);
  for (std::size_t at = 0; at < tiles.row_ends.size(); ++at) {
    const PackedRow& end = tiles.row_ends[at];
    if (end.row < 0) continue;
    const std::size_t grid = at / places * std::size_t(layout.rows) + std::size_t(end.row);
    BOOST_REQUIRE(end.scale == (tiles.run_steps > 0 ? 0 : packed.scales[grid]));
    BOOST_REQUIRE(end.zero == (tiles.run_steps > 0 ? 0 : packed.zeros[grid]));
    if (at < places) ++seen[std::size_t(end.row)];
  }
  BOOST_CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

const index_t shapes[][2] = {{1, 8}, {16, 512}, {40, 136}, {37, 1544}};

}  // namespace

BOOST_AUTO_TEST_CASE(every_width_and_mask) {
  for (const auto& [rows, columns] : shapes)
    for (int bits = min_bits; bits <= max_bits; ++bits)
      BOOST_TEST_CONTEXT("(" << rows << ", " << columns << ") at " << bits << " bits") {
        PackedLayout layout{.rows = rows, .columns = columns, .widths = {std::uint8_t(bits)}};
        check_tiles(test::random_packed(layout, PackedMask::none, DType::f16, 1));
        layout.pattern = unstructured(0.5);
        for (const double density : {0.0, 0.02, 0.5, 1.0})
          check_tiles(test::random_packed(layout, PackedMask::bits, DType::f16, 2, density));
        for (const auto& [zeros, of] : {std::pair{2, 4}, {1, 2}, {3, 8}, {7, 8}}) {
          layout.pattern = n_of_m(zeros, of);
          check_tiles(test::random_packed(layout, PackedMask::n_of_m, DType::f16, 3));
        }
      }
}

// At a time the lanes of a warp load a number of a place each: lane 4 s + c of chunk c and step s.
BOOST_AUTO_TEST_CASE(lanes_load_neighbouring_columns) {
  std::vector<std::int32_t> columns(unit_columns), place_of(unit_columns, -1);
  std::iota(columns.begin(), columns.end(), 7);
  packing::place_columns(columns.data(), columns.size(), unit_chunks, place_of.data());
  for (int first_step = 0; first_step < chunk_steps; first_step += lane_steps)
    for (int k = 0; k < step_columns; ++k)
      for (int lane = 0; lane < 32; ++lane) {
        const int place = lane % 4 * chunk_columns + (first_step + lane / 4) * step_columns + k;
        BOOST_REQUIRE(place_of[std::size_t(place)] == 7 + (first_step + k) * 32 + lane);
      }
}

BOOST_AUTO_TEST_CASE(mixed_widths_on_both_axes) {
  for (const auto& [rows, columns] : shapes)
    for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input})
      BOOST_TEST_CONTEXT("(" << rows << ", " << columns << "), axis "
                             << (axis == ChannelAxis::output ? "output" : "input")) {
        PackedLayout layout{.rows = rows, .columns = columns, .axis = axis};
        layout.widths = merged_widths(test::any_widths(layout.channels(), 4));
        check_tiles(test::random_packed(layout, PackedMask::none, DType::f32, 5));
        layout.pattern = unstructured(0.5);
        check_tiles(test::random_packed(layout, PackedMask::bits, DType::f32, 6));
        layout.pattern = n_of_m(2, 4);
        check_tiles(test::random_packed(layout, PackedMask::n_of_m, DType::f32, 7));
      }
}

BOOST_AUTO_TEST_CASE(grids_per_group) {
  for (const auto& [rows, columns] : shapes)
    for (const index_t group_size : {8, 32, 40, 64, 128, 192})
      for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input})
        for (const bool mixed : {false, true})
          BOOST_TEST_CONTEXT("(" << rows << ", " << columns << "), groups of " << group_size
                                 << (mixed ? ", mixed" : "") << ", axis "
                                 << (axis == ChannelAxis::output ? "output" : "input")) {
            PackedLayout layout{.rows = rows,
                                .columns = columns,
                                .axis = axis,
                                .widths = {4},
                                .group_size = group_size};
            if (mixed) layout.widths = merged_widths(test::any_widths(layout.channels(), 9));
            check_tiles(test::random_packed(layout, PackedMask::none, DType::f16, 10));
            layout.pattern = unstructured(0.5);
            check_tiles(test::random_packed(layout, PackedMask::bits, DType::f16, 11));
            layout.pattern = n_of_m(2, 4);
            check_tiles(test::random_packed(layout, PackedMask::n_of_m, DType::f16, 12));
          }
}

BOOST_AUTO_TEST_CASE(groups_as_long_as_a_row_or_tier_are_none) {
  PackedLayout layout{.rows = 16, .columns = 512, .widths = {4}, .group_size = 512};
  const auto run_steps = [&] {
    const PackedLinear packed = test::random_packed(layout, PackedMask::none, DType::f16, 9);
    check_tiles(packed);
    return arrange_tiles(packed).run_steps;
  };
  BOOST_TEST(run_steps() == 0);
  for (const int steps : {1, 2, 4}) {
    layout.group_size = 32 * steps;
    BOOST_TEST(run_steps() == steps);
  }
  layout.group_size = 512;
  layout.axis = ChannelAxis::input;
  layout.widths = merged_widths(test::any_widths(512, 4));
  BOOST_TEST(run_steps() == 0);
}

// A float16 below the normal ones has its exponent in the word, too.
BOOST_AUTO_TEST_CASE(every_scale_fits_the_word_of_a_grid) {
  for (std::uint32_t bits = 1; bits < 0x7c00; ++bits) {
    const std::uint32_t word = packing::grid_word(std::uint16_t(bits), 201);
    BOOST_REQUIRE(std::bit_cast<float>(word >> 8 << 7) == half_to_float(std::uint16_t(bits)));
    BOOST_REQUIRE((word & 255) == 201);
  }
}

BOOST_AUTO_TEST_CASE(bytes_are_close_to_those_of_the_file) {
  PackedLayout layout{.rows = 512, .columns = 2048, .widths = {4}};
  const auto ratio = [&](PackedMask kind) {
    const PackedLinear packed = test::random_packed(layout, kind, DType::f16, 8);
    return double(arrange_tiles(packed).bytes()) / double(packed.bytes());
  };
  BOOST_TEST(ratio(PackedMask::none) < 1.01);
  layout.group_size = 128;
  BOOST_TEST(ratio(PackedMask::none) < 1.03);  // 32 bits for 24 of a grid
  layout.group_size = 0;
  layout.pattern = unstructured(0.5);
  BOOST_TEST(ratio(PackedMask::bits) < 1.13);  // streams as long as the longest of 32
  layout.pattern = n_of_m(2, 4);
  BOOST_TEST(ratio(PackedMask::n_of_m) < 1.02);
}
