// A packed linear: codes, grids and mask as plain data; its masks, and what is checked.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/hadamard.hpp"
#include "pare/storage/packed_layout.hpp"

namespace pare::inline PARE_TARGET {

/// A compressed linear as a packed file holds it; docs/format.md describes every byte.
struct PackedLinear {
  /// Shape, axis, widths and mask.
  PackedLayout layout;
  DType dtype = DType::f32;  ///< what the checkpoint stores weights in, and weights round to
  /// How pruned weights are told.
  PackedMask kind = PackedMask::none;
  bool transposed = false;  ///< the checkpoint stores the weight as (in, out)
  /// R, where codes, grids and mask are those of W' for W = W' R: a product multiplies R x by W'.
  std::optional<kernels::HadamardRotation> rotation = {};
  std::vector<std::byte> codes;       ///< a little-endian bit stream per row
  std::vector<std::byte> mask;        ///< the same, empty without a mask
  std::vector<std::uint16_t> scales;  ///< (grids, out) float16
  std::vector<std::uint8_t> zeros;    ///< (grids, out)
  // What reading needs and the file does not hold; see index_rows().
  std::vector<std::uint64_t> row_begin;  ///< byte of `codes` where each row begins, (out + 1)
  GridMap grids = {};                    ///< which grid each column is on

  /// Bytes of its tensors in a file.
  std::uint64_t bytes() const {
    return codes.size() + mask.size() + 2 * scales.size() + zeros.size() +
           (layout.widths.size() > 1 ? layout.widths.size() : 0);
  }
  /// What s (c - z) rounds to: the checkpoint's type, but for rotated inputs, whose weights are
  /// those of the checkpoint only after they are rotated back.
  DType value_type() const { return rotation ? DType::f32 : dtype; }
  /// Bytes of one row of the mask.
  std::uint64_t mask_row_bytes() const {
    return packed_mask_row_bytes(kind, layout.columns, layout.pattern);
  }
};

namespace detail {

/// Reads a stream of little-endian 32-bit words, the lowest bits first.
class BitReader {
 public:
  explicit BitReader(const std::byte* at) : at_(at) {}
  /// The next `bits` bits, at most 32. Reads no word before a bit of it is asked for.
  std::uint32_t get(int bits) {
    if (count_ < bits) {
      std::uint32_t word;
      std::memcpy(&word, at_, sizeof word);
      at_ += sizeof word;
      held_ |= std::uint64_t(word) << count_;
      count_ += 32;
    }
    const auto value = std::uint32_t(held_ & ((std::uint64_t{1} << bits) - 1));
    held_ >>= bits;
    count_ -= bits;
    return value;
  }
  /// What is left of the word at work.
  std::uint64_t rest() const { return held_; }

 private:
  const std::byte* at_;
  std::uint64_t held_ = 0;
  int count_ = 0;
};

/// Writes such a stream into memory that has room for it.
class BitWriter {
 public:
  explicit BitWriter(std::byte* at) : at_(at) {}
  void put(std::uint32_t value, int bits) {
    held_ |= std::uint64_t(value) << count_;
    count_ += bits;
    if (count_ < 32) return;
    flush_word();
    count_ -= 32;
  }
  /// Pads to a whole word.
  void finish() {
    if (count_ > 0) flush_word();
    count_ = 0;
  }

 private:
  void flush_word() {
    const auto word = std::uint32_t(held_);
    std::memcpy(at_, &word, sizeof word);
    at_ += sizeof word;
    held_ >>= 32;
  }
  std::byte* at_;
  std::uint64_t held_ = 0;
  int count_ = 0;
};

/// Index of a choice among the ways to prune `zeros` of `of` weights: sum binomial(position, rank)
/// over the pruned positions in rising order, rank = 1, 2, ...
inline std::uint32_t n_of_m_index(const std::uint8_t* pruned, int of) {
  std::uint64_t index = 0;
  std::size_t rank = 0;
  for (int c = 0; c < of; ++c)
    if (pruned[c] != 0) index += binomials[std::size_t(c)][++rank];
  return std::uint32_t(index);
}

/// The inverse: marks the pruned positions. Nothing beyond `of` weights is written for any index.
inline void mark_pruned(std::uint32_t index, int zeros, int of, std::uint8_t* pruned) {
  std::uint64_t left = index;
  std::size_t rank = std::size_t(zeros);
  for (int c = of - 1; c >= 0; --c) {
    const bool take = rank > 0 && binomials[std::size_t(c)][rank] <= left;
    pruned[c] = take;
    if (take) left -= binomials[std::size_t(c)][rank--];
  }
}

/// A value of the checkpoint's type from its bits.
inline float value_of_bits(std::uint64_t bits, DType dtype) {
  switch (dtype) {
    case DType::f16:
      return half_to_float(std::uint16_t(bits));
    case DType::bf16:
      return bfloat_to_float(std::uint16_t(bits));
    case DType::f32:
      return std::bit_cast<float>(std::uint32_t(bits));
    case DType::f64:
      break;
  }
  return float(std::bit_cast<double>(bits));
}

/// The bits of a value in the checkpoint's type.
inline std::uint64_t bits_of_value(float value, DType dtype) {
  switch (dtype) {
    case DType::f16:
      return float_to_half(value);
    case DType::bf16:
      return float_to_bfloat(value);
    case DType::f32:
      return std::bit_cast<std::uint32_t>(value);
    case DType::f64:
      break;
  }
  return std::bit_cast<std::uint64_t>(double(value));
}

/// What every index of n:m prunes, (ways, of); empty where there are too many ways to list.
inline std::span<const std::uint8_t> marks_of_indices(int zeros, int of) {
  struct Listed {
    int zeros = 0, of = 0;
    std::vector<std::uint8_t> marks = {};
  };
  constexpr std::uint64_t most = 4096;
  thread_local Listed listed;
  const std::uint64_t ways = binomials[std::size_t(of)][std::size_t(zeros)];
  if (ways > most) return {};
  if (listed.zeros != zeros || listed.of != of) {
    listed = {zeros, of, std::vector<std::uint8_t>(std::size_t(ways) * std::size_t(of))};
    for (std::uint32_t index = 0; index < ways; ++index)
      mark_pruned(index, zeros, of, listed.marks.data() + std::size_t(index) * std::size_t(of));
  }
  return listed.marks;
}

/// Marks the weights of a row that have no code.
/// @param pruned  (in), 1 where the mask prunes, else 0
inline void read_mask_row(const PackedLinear& packed, index_t row, std::uint8_t* pruned) {
  const PackedLayout& layout = packed.layout;
  const std::byte* const begin = packed.mask.data() + std::uint64_t(row) * packed.mask_row_bytes();
  switch (packed.kind) {
    case PackedMask::none:
      std::fill_n(pruned, layout.columns, std::uint8_t(0));
      return;
    case PackedMask::bits: {
      BitReader reader(begin);
      for (index_t j = 0; j < layout.columns; j += 32) {
        const index_t count = std::min<index_t>(32, layout.columns - j);
        const std::uint32_t word = reader.get(32);
        for (index_t k = 0; k < count; ++k) pruned[j + k] = std::uint8_t(word >> k & 1);
      }
      return;
    }
    case PackedMask::n_of_m: {
      const int zeros = layout.pattern.zeros, of = layout.pattern.of;
      const int bits = n_of_m_index_bits(zeros, of);
      const std::span<const std::uint8_t> marks = marks_of_indices(zeros, of);
      BitReader reader(begin);
      for (index_t j = 0; j < layout.columns; j += of) {
        const std::uint32_t index = reader.get(bits);
        const std::size_t at = std::size_t(index) * std::size_t(of);
        if (at < marks.size())
          std::memcpy(pruned + j, marks.data() + at, std::size_t(of));
        else
          mark_pruned(index, zeros, of, pruned + j);
      }
      return;
    }
  }
}

/// Number of weights of a row that a mask keeps.
inline index_t kept_in_row(const PackedLinear& packed, index_t row) {
  const PackedLayout& layout = packed.layout;
  if (packed.kind == PackedMask::none) return layout.columns;
  if (packed.kind == PackedMask::n_of_m)
    return layout.columns / layout.pattern.of * (layout.pattern.of - layout.pattern.zeros);
  BitReader reader(packed.mask.data() + std::uint64_t(row) * packed.mask_row_bytes());
  index_t pruned = 0;
  for (index_t j = 0; j < layout.columns; j += 32)  // what pads the last word counts for nothing
    pruned += std::popcount(reader.get(int(std::min<index_t>(32, layout.columns - j))));
  return layout.columns - pruned;
}

}  // namespace detail

/// Finds where rows and grids lie, which the file does not say, and checks everything that reading
/// relies on. Sizes of the parts are checked against the layout before anything is read.
/// @param packed  the linear; row_begin and grids are filled in
/// @param who  what messages begin with
/// @throws format_error naming the part, what was expected and what is there
inline void index_rows(PackedLinear& packed, const std::string& who) {
  const PackedLayout& layout = packed.layout;
  const auto require = [&](const char* part, std::uint64_t expected, std::uint64_t given) {
    if (expected != given)
      throw format_error(who + part + ": expected " + std::to_string(expected) + " bytes, got " +
                         std::to_string(given));
  };
  const auto fail = [&](const char* part, const std::string& what) {
    throw format_error(who + part + ": " + what);
  };
  for (std::size_t c = 0; c < layout.widths.size(); ++c)
    if (layout.widths[c] < min_bits || layout.widths[c] > max_bits)
      fail(".widths", "expected widths within 2..8, got " + std::to_string(layout.widths[c]) +
                          " for channel " + std::to_string(c));
  if (layout.widths.size() > 1)
    require(".widths", std::uint64_t(layout.channels()), layout.widths.size());
  const std::uint64_t grids = std::uint64_t(layout.grids()) * std::uint64_t(layout.rows);
  require(".scales", 2 * grids, 2 * packed.scales.size());
  require(".zeros", grids, packed.zeros.size());
  require(".mask", std::uint64_t(layout.rows) * packed.mask_row_bytes(), packed.mask.size());

  // Bits of a row's codes without a mask.
  const bool by_column = !layout.by_row() && layout.widths.size() > 1;
  const std::uint64_t total =
      std::accumulate(layout.widths.begin(), layout.widths.end(), std::uint64_t{0});
  const auto unmasked_bits = [&](index_t i) {
    return by_column ? total
                     : std::uint64_t(layout.columns) * std::uint64_t(layout.code_bits(i, 0));
  };
  // Nothing is allocated for rows or columns that neither a mask nor codes are there for.
  if (packed.kind == PackedMask::none) {
    std::uint64_t expected = 0;
    for (index_t i = 0; i < layout.rows; ++i) expected += detail::row_bytes(unmasked_bits(i));
    require(".codes", expected, packed.codes.size());
  }

  packed.grids = grid_map(layout.axis, layout.widths, layout.columns, layout.group_size);
  for (std::size_t k = 0; k < packed.scales.size(); ++k) {
    const std::size_t row = k % std::size_t(layout.rows), g = k / std::size_t(layout.rows);
    const float scale = half_to_float(packed.scales[k]);
    const int width = packed.grids.width_of(index_t(g), index_t(row), layout.widths);
    if (!(scale > 0 && std::isfinite(scale)))
      fail(".scales", "expected finite numbers > 0, got " + std::to_string(scale) + " for row " +
                          std::to_string(row) + ", grid " + std::to_string(g));
    if (packed.zeros[k] >= (1 << width))
      fail(".zeros", "expected at most " + std::to_string((1 << width) - 1) + ", got " +
                         std::to_string(packed.zeros[k]) + " for row " + std::to_string(row) +
                         ", grid " + std::to_string(g));
  }

  // Masks first: how long a row of codes is depends on them.
  std::vector<std::uint8_t> pruned(
      by_column && packed.kind != PackedMask::none ? std::size_t(layout.columns) : 0);
  packed.row_begin.assign(1, 0);
  for (index_t i = 0; i < layout.rows; ++i) {
    std::uint64_t bits = 0;
    if (packed.kind == PackedMask::none) {
      bits = unmasked_bits(i);
    } else {
      if (packed.kind == PackedMask::n_of_m) {
        detail::BitReader reader(packed.mask.data() + std::uint64_t(i) * packed.mask_row_bytes());
        const std::uint64_t ways =
            detail::binomials[std::size_t(layout.pattern.of)][std::size_t(layout.pattern.zeros)];
        for (index_t j = 0; j < layout.columns; j += layout.pattern.of) {
          const std::uint32_t index =
              reader.get(detail::n_of_m_index_bits(layout.pattern.zeros, layout.pattern.of));
          if (index >= ways)
            fail(".mask", "expected indices below " + std::to_string(ways) + ", got " +
                              std::to_string(index) + " in row " + std::to_string(i));
        }
      }
      if (by_column) {
        detail::read_mask_row(packed, i, pruned.data());
        for (index_t j = 0; j < layout.columns; ++j)
          if (pruned[std::size_t(j)] == 0) bits += std::uint64_t(layout.code_bits(i, j));
      } else {
        bits =
            std::uint64_t(detail::kept_in_row(packed, i)) * std::uint64_t(layout.code_bits(i, 0));
      }
    }
    packed.row_begin.push_back(packed.row_begin.back() + detail::row_bytes(bits));
  }
  require(".codes", packed.row_begin.back(), packed.codes.size());
}

}  // namespace pare
