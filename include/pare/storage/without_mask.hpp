// A packed linear that gives up its mask: more bytes, faster products.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pare/storage/packed_rows.hpp"

namespace pare::inline PARE_TARGET {

/// The same weights without a mask: pruned ones have the code of 0. It takes the bytes of all
/// codes, and products are faster without a mask.
/// @param packed  as index_rows or pack_linear left it
/// @returns       an indexed linear, every weight as before
inline PackedLinear without_mask(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  PackedLinear result = packed;
  result.kind = PackedMask::none;
  result.layout.pattern = {};
  result.mask.clear();
  result.row_begin.assign(1, 0);
  for (index_t i = 0; i < layout.rows; ++i) {
    std::uint64_t bits = 0;
    for (index_t j = 0; j < layout.columns; ++j) bits += std::uint64_t(layout.code_bits(i, j));
    result.row_begin.push_back(result.row_begin.back() + detail::row_bytes(bits));
  }
  result.codes.resize(result.row_begin.back());
  constexpr index_t rows_per_task = 16;
  detail::host_parallel_for((layout.rows + rows_per_task - 1) / rows_per_task, [&](index_t task) {
    const auto in = std::size_t(layout.columns);
    std::vector<std::uint8_t> pruned(in);
    std::vector<std::uint64_t> codes(in);
    const index_t end = std::min(layout.rows, (task + 1) * rows_per_task);
    for (index_t i = task * rows_per_task; i < end; ++i) {
      for (index_t j = 0; j < layout.columns; ++j) {
        codes[std::size_t(j)] = 0;
        if (!layout.quantized()) continue;
        const auto g = index_t(packed.grids.of_column[std::size_t(j)]);
        codes[std::size_t(j)] = packed.zeros[std::size_t(g * layout.rows + i)];
      }
      detail::read_mask_row(packed, i, pruned.data());
      detail::for_each_code(packed, i, pruned.data(), [&](index_t j, index_t, std::uint64_t code) {
        codes[std::size_t(j)] = code;
      });
      detail::BitWriter writer(result.codes.data() + result.row_begin[std::size_t(i)]);
      for (index_t j = 0; j < layout.columns; ++j) {
        const int bits = layout.code_bits(i, j);
        writer.put(std::uint32_t(codes[std::size_t(j)]), std::min(bits, 32));
        if (bits > 32) writer.put(std::uint32_t(codes[std::size_t(j)] >> 32), 32);
      }
      writer.finish();
    }
  });
  return result;
}

}  // namespace pare
