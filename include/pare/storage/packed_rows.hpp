// The weights of a packed linear, row by row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/storage/packed.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// 32 codes out of as many words as a code has bits, and one more.
template <int bits, int... c>
void split_words(const std::uint32_t* words, std::uint8_t* codes,
                 std::integer_sequence<int, c...>) {
  constexpr std::uint32_t all = (1u << bits) - 1;
  const auto pair = [words](int first) {
    return words[first] | std::uint64_t(words[first + 1]) << 32;
  };
  ((codes[c] = std::uint8_t(pair(c * bits / 32) >> (c * bits % 32) & all)), ...);
}

/// Reads codes of one width from a stream.
/// @param at     where it begins
/// @param codes  (count)
template <int bits>
void read_codes(const std::byte* at, index_t count, std::uint8_t* codes) {
  index_t k = 0;
  for (; k + 32 <= count; k += 32, at += 4 * bits) {  // 32 codes are whole words
    std::uint32_t words[bits + 1];
    std::memcpy(words, at, 4 * bits);
    words[bits] = 0;
    split_words<bits>(words, codes + k, std::make_integer_sequence<int, 32>{});
  }
  BitReader reader(at);
  for (; k < count; ++k) codes[k] = std::uint8_t(reader.get(bits));
}

/// Reads the codes of a row of a quantized linear, those of the weights that stay, in order.
/// @param pruned  (in), what read_mask_row gave
/// @param codes   room for (in)
/// @return        how many there are
inline index_t read_codes_of_row(const PackedLinear& packed, index_t row,
                                 const std::uint8_t* pruned, std::uint8_t* codes) {
  const PackedLayout& layout = packed.layout;
  const std::byte* const at = packed.codes.data() + packed.row_begin[std::size_t(row)];
  if (layout.by_row() || layout.widths.size() == 1) {
    index_t count = layout.columns;
    if (packed.kind != PackedMask::none) count -= std::count(pruned, pruned + count, 1);
    constexpr decltype(&read_codes<2>) of_width[] = {read_codes<2>, read_codes<3>, read_codes<4>,
                                                     read_codes<5>, read_codes<6>, read_codes<7>,
                                                     read_codes<8>};  // min_bits to max_bits
    of_width[layout.code_bits(row, 0) - min_bits](at, count, codes);
    return count;
  }
  BitReader reader(at);
  index_t count = 0;
  for (index_t j = 0; j < layout.columns; ++j)
    if (pruned[j] == 0) codes[count++] = std::uint8_t(reader.get(layout.widths[std::size_t(j)]));
  return count;
}

/// Calls use(column, grid, code) for every weight of a row that has a code; without a quantizer the
/// code is the value's bits and the grid 0.
/// @param pruned  (in), what read_mask_row gave
template <class Use>
void for_each_code(const PackedLinear& packed, index_t row, const std::uint8_t* pruned,
                   const Use& use) {
  const PackedLayout& layout = packed.layout;
  if (!layout.quantized()) {
    BitReader reader(packed.codes.data() + packed.row_begin[std::size_t(row)]);
    const int low = std::min(layout.value_bits, 32);
    for (index_t j = 0; j < layout.columns; ++j) {
      if (pruned[j] != 0) continue;
      std::uint64_t bits = reader.get(low);
      if (layout.value_bits > 32) bits |= std::uint64_t(reader.get(32)) << 32;
      use(j, index_t{0}, bits);
    }
    return;
  }
  thread_local std::vector<std::uint8_t> codes;
  codes.resize(std::size_t(layout.columns));
  read_codes_of_row(packed, row, pruned, codes.data());
  const std::uint8_t* next = codes.data();
  for (index_t j = 0; j < layout.columns; ++j)
    if (pruned[j] == 0)
      use(j, index_t(packed.grids.of_column[std::size_t(j)]), std::uint64_t(*next++));
}

/// The weights of a row of a quantized linear; see unpack_row.
template <class S>
void unpack_codes(const PackedLinear& packed, index_t row, const std::uint8_t* pruned, S* out) {
  const PackedLayout& layout = packed.layout;
  const bool masked = packed.kind != PackedMask::none;
  const auto rounded = [&](float value) {
    return S(compute_scalar<S>(round_to(packed.value_type(), value)));
  };
  const S zero_weight = rounded(0.0f);
  thread_local std::vector<std::uint8_t> codes;
  codes.resize(std::size_t(layout.columns) + 1);
  // One after the last is read, and not used.
  codes[std::size_t(read_codes_of_row(packed, row, pruned, codes.data()))] = 0;
  const std::uint8_t* next = codes.data();
  for (index_t g = 0; g < packed.grids.grids(); ++g) {
    const std::size_t k = std::size_t(g * layout.rows + row);
    const float scale = half_to_float(packed.scales[k]), zero = float(packed.zeros[k]);
    const auto value = [&](std::uint8_t code) { return rounded(scale * (float(code) - zero)); };
    const std::span<const index_t> columns = packed.grids.columns_of(g);
    const index_t begin = columns.front(), end = begin + index_t(columns.size());
    const auto fill = [&](const auto& value_of) {
      if (!masked) {
        for (index_t j = begin; j < end; ++j) out[j] = value_of(*next++);
        return;
      }
      // No branch: which weights are pruned is as good as random.
      for (index_t j = begin; j < end; ++j) {
        const S weight = value_of(*next);
        out[j] = pruned[j] != 0 ? zero_weight : weight;
        next += 1 - pruned[j];
      }
    };
    const int values = 1 << layout.code_bits(row, 0);
    if (values > end - begin) {
      fill(value);
    } else {  // every value is rounded once
      S table[1 << max_bits];
      for (int code = 0; code < values; ++code) table[code] = value(std::uint8_t(code));
      fill([&](std::uint8_t code) { return table[code]; });
    }
  }
}

/// Whether all values of all grids are finite, so that every row is.
/// @param packed  with index_rows() done
inline bool has_finite_grids(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  for (std::size_t k = 0; k < packed.scales.size(); ++k) {
    const index_t row = index_t(k) % layout.rows, g = index_t(k) / layout.rows;
    const int top = (1 << packed.grids.width_of(g, row, layout.widths)) - 1, zero = packed.zeros[k];
    const float largest = half_to_float(packed.scales[k]) * float(std::max(zero, top - zero));
    if (!std::isfinite(round_to(packed.value_type(), largest))) return false;
  }
  return layout.quantized();
}

}  // namespace detail

/// Reads one row: scale * (code - zero), rounded to the checkpoint's type and then to S, which is
/// what the model held in memory; pruned weights are 0. Where inputs are rotated it is a row of W',
/// see PackedLinear::rotation, which rounds to S alone.
/// @param packed  with index_rows() done
/// @param row     which one
/// @param pruned  room for (in) marks; receives what the mask prunes
/// @param out     (in)
template <class S>
void unpack_row(const PackedLinear& packed, index_t row, std::uint8_t* pruned, S* out) {
  const PackedLayout& layout = packed.layout;
  detail::read_mask_row(packed, row, pruned);
  // Neighbouring columns share a grid.
  if (layout.quantized() && (layout.by_row() || layout.widths.size() == 1))
    return detail::unpack_codes(packed, row, pruned, out);
  const auto store = [&](index_t j, float value) {
    out[j] = S(compute_scalar<S>(round_to(packed.value_type(), value)));
  };
  if (packed.kind != PackedMask::none)
    for (index_t j = 0; j < layout.columns; ++j)
      if (pruned[j] != 0) store(j, 0.0f);
  if (!layout.quantized()) {
    detail::for_each_code(packed, row, pruned, [&](index_t j, index_t, std::uint64_t bits) {
      store(j, detail::value_of_bits(bits, packed.dtype));
    });
    return;
  }
  struct Grid {
    float scale, zero;
  };
  thread_local std::vector<Grid> of_row;  // (grids)
  of_row.clear();
  for (std::size_t k = std::size_t(row); k < packed.scales.size(); k += std::size_t(layout.rows))
    of_row.push_back({half_to_float(packed.scales[k]), float(packed.zeros[k])});
  const Grid* const grids = of_row.data();
  detail::for_each_code(packed, row, pruned, [&](index_t j, index_t g, std::uint64_t code) {
    store(j, grids[g].scale * (float(code) - grids[g].zero));
  });
}

/// Reads out.rows rows from `first` on, on all threads.
/// @param packed  with index_rows() done
/// @param first   row of the linear that becomes row 0 of `out`
/// @param out  (rows, in), in host memory
template <class S>
void unpack_rows(const PackedLinear& packed, index_t first, MatrixView<S> out) {
  constexpr index_t rows_per_task = 16;
  detail::host_parallel_for((out.rows + rows_per_task - 1) / rows_per_task, [&](index_t task) {
    thread_local std::vector<std::uint8_t> pruned;
    pruned.resize(std::size_t(out.cols));
    const index_t end = std::min(out.rows, (task + 1) * rows_per_task);
    for (index_t r = task * rows_per_task; r < end; ++r)
      unpack_row(packed, first + r, pruned.data(), out.row(r));
  });
}

/// Rotates rows of W' back to those of W in place, on all threads; see PackedLinear::rotation. Does
/// nothing where inputs are not rotated.
/// @param packed   whose rows they are
/// @param weights  (rows, in), in host memory
template <class S>
void rotate_back(const PackedLinear& packed, MatrixView<S> weights) {
  if (!packed.rotation) return;
  const kernels::RotateBlock<S> block{detail::as_const(weights), weights, *packed.rotation, true};
  detail::host_parallel_for(block.count(), block);
}

}  // namespace pare
