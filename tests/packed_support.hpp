// Packed linears of random content, made without a solver; what their product must be.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "pare/storage/packed_rows.hpp"
#include "random.hpp"

namespace test {

using pare::index_t;
using pare::PackedLinear;
using pare::PackedMask;

/// Fills a packed linear of the given layout with random codes, grids and masks.
/// @param density  share of the weights that stay, with a bit mask
inline PackedLinear random_packed(const pare::PackedLayout& layout, PackedMask kind,
                                  pare::DType dtype, std::uint64_t seed, double density = 0.5) {
  Random random(seed);
  PackedLinear packed;
  packed.layout = layout;
  packed.dtype = dtype;
  packed.kind = kind;
  const auto streams = [&](std::vector<std::byte>& bytes, const auto& write_row) {
    std::vector<std::byte> row(std::size_t(layout.columns) * 8 + 8);
    for (index_t i = 0; i < layout.rows; ++i) {
      pare::detail::BitWriter writer(row.data());
      const std::uint64_t bits = write_row(i, writer);
      writer.finish();
      bytes.insert(bytes.end(), row.begin(),
                   row.begin() + std::ptrdiff_t(pare::detail::row_bytes(bits)));
    }
  };
  if (kind == PackedMask::bits)
    streams(packed.mask, [&](index_t, pare::detail::BitWriter& writer) {
      for (index_t j = 0; j < layout.columns; ++j) writer.put(random.uniform() >= density, 1);
      return std::uint64_t(layout.columns);
    });
  if (kind == PackedMask::n_of_m) {
    const int bits = pare::detail::n_of_m_index_bits(layout.pattern.zeros, layout.pattern.of);
    const auto ways = index_t(
        pare::detail::binomials[std::size_t(layout.pattern.of)][std::size_t(layout.pattern.zeros)]);
    streams(packed.mask, [&](index_t, pare::detail::BitWriter& writer) {
      const index_t groups = layout.columns / layout.pattern.of;
      for (index_t k = 0; k < groups; ++k) writer.put(std::uint32_t(random.below(ways)), bits);
      return std::uint64_t(groups) * std::uint64_t(bits);
    });
  }
  std::vector<std::uint8_t> pruned(std::size_t(layout.columns), 0);
  streams(packed.codes, [&](index_t i, pare::detail::BitWriter& writer) {
    pare::detail::read_mask_row(packed, i, pruned.data());
    std::uint64_t total = 0;
    for (index_t j = 0; j < layout.columns; ++j) {
      if (pruned[std::size_t(j)] != 0) continue;
      const int bits = layout.code_bits(i, j);
      total += std::uint64_t(bits);
      if (layout.quantized()) {
        writer.put(std::uint32_t(random.below(index_t{1} << bits)), bits);
      } else {
        const auto value = float(random.normal());
        const std::uint64_t stored = pare::detail::bits_of_value(value, dtype);
        writer.put(std::uint32_t(stored), std::min(bits, 32));
        if (bits > 32) writer.put(std::uint32_t(stored >> 32), 32);
      }
    }
    return total;
  });
  // What is read beyond the content is then seen by a sanitizer.
  packed.codes.shrink_to_fit();
  packed.mask.shrink_to_fit();
  const pare::GridMap map =
      pare::grid_map(layout.axis, layout.widths, layout.columns, layout.group_size);
  for (index_t g = 0; g < map.grids(); ++g)
    for (index_t i = 0; i < layout.rows; ++i) {
      const int bits = map.width_of(g, i, layout.widths);
      packed.scales.push_back(pare::float_to_half(float(0.01 + 0.1 * random.uniform())));
      packed.zeros.push_back(std::uint8_t(random.below(index_t{1} << bits)));
    }
  pare::index_rows(packed, "random");
  return packed;
}

/// Row i of W x and of |W| |x| in float64, the weights not rounded to the checkpoint's type.
/// @param x  (in)
struct ExactRow {
  double value = 0, magnitude = 0;  ///< sums of w x and |w x|
  double weight = 0;                ///< sum of |w|
};
inline ExactRow exact_row(const PackedLinear& packed, index_t i, const float* x) {
  std::vector<std::uint8_t> pruned(std::size_t(packed.layout.columns), 0);
  pare::detail::read_mask_row(packed, i, pruned.data());
  ExactRow row;
  pare::detail::for_each_code(packed, i, pruned.data(),
                              [&](index_t j, index_t g, std::uint64_t code) {
                                const std::size_t at = std::size_t(g * packed.layout.rows + i);
                                const double w =
                                    packed.layout.quantized()
                                        ? double(pare::half_to_float(packed.scales[at])) *
                                              (double(code) - double(packed.zeros[at]))
                                        : double(pare::detail::value_of_bits(code, packed.dtype));
                                row.value += w * double(x[j]);
                                row.magnitude += std::abs(w * double(x[j]));
                                row.weight += std::abs(w);
                              });
  return row;
}

/// Widths of channels, any of 2 to 8.
inline std::vector<std::uint8_t> any_widths(index_t channels, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::uint8_t> widths;
  for (index_t c = 0; c < channels; ++c) widths.push_back(std::uint8_t(2 + random.below(7)));
  return widths;
}

/// Widths of channels in random order whose mean is 3 (up to rounding): every width of
/// {2, 3, 4, 6, 8}, narrow ones most often.
inline std::vector<std::uint8_t> mean_three_widths(index_t channels, std::uint64_t seed) {
  std::vector<std::uint8_t> widths;
  const double shares[] = {0.46, 0.30, 0.165, 0.05, 0.025};
  const std::uint8_t bits[] = {2, 3, 4, 6, 8};
  for (int t = 1; t < 5; ++t)
    widths.insert(widths.end(), std::size_t(shares[t] * double(channels)), bits[t]);
  widths.resize(std::size_t(channels), 2);
  Random random(seed);
  for (std::size_t c = widths.size() - 1; c > 0; --c)
    std::swap(widths[c], widths[std::size_t(random.below(index_t(c + 1)))]);
  return widths;
}

}  // namespace test
