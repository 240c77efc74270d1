// The product of a packed linear and a vector on the processor, from the packed bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "pare/backend/packed_masked.hpp"
#include "pare/backend/packed_masked_avx512.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Sums w * x of a row of any layout, weight by weight.
/// @param pruned   room for (in) marks
/// @param weights  room for (in)
inline float multiply_any(const PackedLinear& packed, index_t row, std::span<const float> x,
                          std::uint8_t* pruned, float* weights) {
  const PackedLayout& layout = packed.layout;
  read_mask_row(packed, row, pruned);
  std::fill_n(weights, layout.columns, 0.0f);
  for_each_code(packed, row, pruned, [&](index_t j, index_t g, std::uint64_t code) {
    if (layout.quantized()) {
      const std::size_t at = std::size_t(g * layout.rows + row);
      weights[j] = half_to_float(packed.scales[at]) * (float(code) - float(packed.zeros[at]));
    } else {
      weights[j] = value_of_bits(code, packed.dtype);
    }
  });
  const hn::ScalableTag<float> df;
  const std::size_t lanes = hn::Lanes(df);
  auto sum = hn::Zero(df);
  std::size_t j = 0;
  for (; j + lanes <= x.size(); j += lanes)
    sum = hn::MulAdd(hn::LoadU(df, weights + j), hn::LoadU(df, x.data() + j), sum);
  float total = hn::GetLane(hn::SumOfLanes(df, sum));
  for (; j < x.size(); ++j) total += weights[j] * x[j];
  return total;
}

/// Rows by width, four of the same width in a row; a width's last row may come several times.
inline std::vector<std::int32_t> rows_by_width(const PackedLayout& layout) {
  std::array<std::vector<std::int32_t>, max_bits + 1> of_width;
  for (index_t i = 0; i < layout.rows; ++i)
    of_width[std::size_t(layout.code_bits(i, 0))].push_back(std::int32_t(i));
  std::vector<std::int32_t> order;
  order.reserve(std::size_t(layout.rows) + 4 * of_width.size());
  for (const std::vector<std::int32_t>& rows : of_width) {
    order.insert(order.end(), rows.begin(), rows.end());
    while (order.size() % 4 != 0) order.push_back(order.back());
  }
  return order;
}

/// The product of a quantized linear without a mask, a grid per row.
inline void multiply_unmasked(const PackedLinear& packed, std::span<const float> x, double x_sum,
                              std::span<float> y) {
  const std::vector<std::int32_t> order = rows_by_width(packed.layout);
  const auto width_of = [&](index_t four) {
    return packed.layout.code_bits(order[std::size_t(4 * four)], 0);
  };
  const auto begin_of = [&](index_t four) {
    std::array<const std::byte*, 4> at;
    for (std::size_t r = 0; r < 4; ++r)
      at[r] = packed.codes.data() + packed.row_begin[std::size_t(order[std::size_t(4 * four) + r])];
    return at;
  };
  const index_t fours = index_t(order.size() / 4);
  std::array<FieldLayout, max_bits + 1> layouts;
  std::vector<int> present;
  for (index_t f = 0; f < fours; ++f)
    if (present.empty() || present.back() != width_of(f)) present.push_back(width_of(f));
  host_parallel_for(present.size(), [&](std::size_t k) {
    layouts[std::size_t(present[k])] =
        with_code_bits(present[k], [&](auto bits) { return lay_out_fields<bits>(x); });
  });
  for_each_block(fours, [&](index_t begin, index_t end) {
    for (index_t f = begin; f < end; ++f) {
      const int width = width_of(f);
      const index_t next = f + 1 < fours && width_of(f + 1) == width ? f + 1 : f;
      float sums[4];
      with_code_bits(width, [&](auto bits) {
        multiply_fields<bits>(begin_of(f), begin_of(next), layouts[std::size_t(width)],
                              (x.size() * std::size_t(bits) + 31) / 32, sums);
      });
      for (std::size_t r = 0; r < 4; ++r) {
        const auto row = std::size_t(order[std::size_t(4 * f) + r]);
        y[row] = float(double(half_to_float(packed.scales[row])) *
                       (double(sums[r]) - double(packed.zeros[row]) * x_sum));
      }
    }
  });
}

/// The product of a quantized linear with a mask that has pieces, a grid per row.
inline void multiply_all_masked(const PackedLinear& packed, const MaskPieces& pieces,
                                std::span<const float> x, std::span<float> y) {
  AlignedVector<float> padded((x.size() + 7) / 8 * 8, 0.0f);
  std::copy(x.begin(), x.end(), padded.begin());
  const CodePlaces places = code_places(pieces);
  for_each_block(packed.layout.rows, [&](index_t begin, index_t end) {
    thread_local AlignedVector<std::int16_t> codes;
    for (index_t i = begin; i < end; ++i)
      y[std::size_t(i)] = half_to_float(packed.scales[std::size_t(i)]) *
                          multiply_masked(packed, i, places, padded, codes);
  });
}

}  // namespace detail

/// y = W x of a packed linear, from its packed bytes, in float32, on all threads.
///
/// Fast for a grid per row, any widths, without a mask, with a mask of bits, or n:m with m of 2, 4
/// or 8; any other layout is read weight by weight.
/// Quantized weights are those of the grid, s (c - z), not rounded to the checkpoint's type; this
/// differs from unpack_row by at most 2^-11 (F16) or 2^-8 (BF16) of a weight, and not for F32.
/// Against those weights, y_i is off by at most (in / 4 + 32) 2^-24 sum_j r_ij |x_j| plus rounding
/// to float32, r_ij = s 2^b for quantized linears, where weights are pruned too, and |w_ij| for
/// others. With a mask and AVX-512 VBMI2 x counts in 2^-30 of the power of two above its largest.
///
/// @param packed  as index_rows or pack_linear left it
/// @param x       (in), finite
/// @param y       (out); does not overlap x
/// @throws shape_error for x or y of another length; argument_error when `packed` has no row
///         index; non_finite_error
inline void packed_product(const PackedLinear& packed, std::span<const float> x,
                           std::span<float> y) {
  const PackedLayout& layout = packed.layout;
  require_shape("packed_product: x", {layout.columns, 1}, {index_t(x.size()), 1});
  require_shape("packed_product: y", {layout.rows, 1}, {index_t(y.size()), 1});
  if (packed.row_begin.size() != std::size_t(layout.rows) + 1 ||
      packed.row_begin.back() != packed.codes.size())
    throw argument_error("packed_product: packed: expected an index of " +
                         std::to_string(layout.rows) + " rows, got one of " +
                         std::to_string(std::max<std::size_t>(packed.row_begin.size(), 1) - 1) +
                         "; call index_rows");
  double x_sum = 0;
  for (std::size_t j = 0; j < x.size(); ++j) {
    x_sum += double(x[j]);
    if (!std::isfinite(x[j]))
      throw non_finite_error("packed_product: x: expected finite numbers, got " +
                                 std::to_string(x[j]) + " at " + std::to_string(j),
                             index_t(j), 0);
  }

  if (packed.grids.grids() == 1) {  // a grid per row
    if (packed.kind == PackedMask::none) return detail::multiply_unmasked(packed, x, x_sum, y);
    const detail::MaskPieces pieces = detail::mask_pieces(packed);
#ifdef PARE_SPREADS_BYTES
    if (pieces.bits > 0) return detail::multiply_all_spread(packed, pieces, x, y);
#else
    if (pieces.bits > 0) return detail::multiply_all_masked(packed, pieces, x, y);
#endif
  }
  detail::for_each_block(layout.rows, [&](index_t begin, index_t end) {
    thread_local std::vector<std::uint8_t> pruned;
    thread_local std::vector<float> weights;
    pruned.resize(x.size());
    weights.resize(x.size());
    for (index_t i = begin; i < end; ++i)
      y[std::size_t(i)] = detail::multiply_any(packed, i, x, pruned.data(), weights.data());
  });
}

}  // namespace pare
