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

/// Rows without a mask in the order of rows_by_width, four at a time; x laid out for each width.
struct RowsInFours {
  const PackedLinear& packed;
  std::vector<std::int32_t> order;
  std::array<FieldLayout, max_bits + 1> layouts = {};

  RowsInFours(const PackedLinear& linear, std::span<const float> x)
      : packed(linear), order(rows_by_width(linear.layout)) {
    std::vector<int> present;
    for (index_t f = 0; f < fours(); ++f)
      if (present.empty() || present.back() != width(f)) present.push_back(width(f));
    host_parallel_for(present.size(), [&](std::size_t k) {
      layouts[std::size_t(present[k])] =
          with_code_bits(present[k], [&](auto bits) { return lay_out_fields<bits>(x); });
    });
  }

  index_t fours() const { return index_t(order.size() / 4); }
  std::size_t row(index_t four, std::size_t r) const {
    return std::size_t(order[std::size_t(4 * four) + r]);
  }
  int width(index_t four) const { return packed.layout.code_bits(index_t(row(four, 0)), 0); }
  std::array<const std::byte*, 4> begin(index_t four) const {
    std::array<const std::byte*, 4> at;
    for (std::size_t r = 0; r < 4; ++r)
      at[r] = packed.codes.data() + packed.row_begin[row(four, r)];
    return at;
  }
  /// Sums of four rows, see multiply_fields.
  template <class Scales>
  void multiply(index_t four, const Scales& scales, float* sums) const {
    const int bits_of_code = width(four);
    const index_t next = four + 1 < fours() && width(four + 1) == bits_of_code ? four + 1 : four;
    with_code_bits(bits_of_code, [&](auto bits) {
      multiply_fields<bits>(begin(four), begin(next), layouts[std::size_t(bits)],
                            (std::size_t(packed.layout.columns) * std::size_t(bits) + 31) / 32,
                            scales, sums);
    });
  }
};

/// The product of a quantized linear without a mask, a grid per row.
inline void multiply_unmasked(const PackedLinear& packed, std::span<const float> x, double x_sum,
                              std::span<float> y) {
  const RowsInFours rows(packed, x);
  for_each_block(rows.fours(), [&](index_t begin, index_t end) {
    for (index_t f = begin; f < end; ++f) {
      float sums[4];
      rows.multiply(f, OneScale{}, sums);
      for (std::size_t r = 0; r < 4; ++r) {
        const std::size_t row = rows.row(f, r);
        y[row] = float(double(half_to_float(packed.scales[row])) *
                       (double(sums[r]) - double(packed.zeros[row]) * x_sum));
      }
    }
  });
}

/// Scales of the groups of some rows, and what the zero points take from their products.
/// @param rows    which, (count)
/// @param x_sums  sum of x of each group, (grids)
/// @param scales  (grids, stride)
/// @param less    sum over the groups of scale * zero * x_sum, (stride)
inline void read_group_scales(const PackedLinear& packed, std::span<const std::int32_t> rows,
                              std::span<const float> x_sums, std::size_t stride, float* scales,
                              float* less) {
  const hn::ScalableTag<float> df;
  const hn::RebindToSigned<decltype(df)> di;
  const hn::Rebind<hwy::float16_t, decltype(df)> halves;
  const hn::Rebind<std::uint8_t, decltype(df)> bytes;
  const std::size_t lanes = hn::Lanes(df), count = rows.size();
  std::fill_n(less, stride, 0.0f);
  bool neighbours = true;
  for (std::size_t r = 1; r < count; ++r) neighbours = neighbours && rows[r] == rows[r - 1] + 1;
  for (std::size_t g = 0; g < x_sums.size(); ++g, scales += stride) {
    const std::size_t at = g * std::size_t(packed.layout.rows);
    std::size_t r = 0;
    if (neighbours) {
      const auto x_sum = hn::Set(df, x_sums[g]);
      const std::size_t first = at + std::size_t(rows.front());
      for (; r + lanes <= count; r += lanes) {
        const auto scale =
            hn::PromoteTo(df, hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(
                                                    packed.scales.data() + first + r)));
        const auto zero =
            hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(bytes, packed.zeros.data() + first + r)));
        hn::StoreU(scale, df, scales + r);
        hn::StoreU(hn::MulAdd(hn::Mul(scale, zero), x_sum, hn::LoadU(df, less + r)), df, less + r);
      }
    }
    for (; r < count; ++r) {
      const std::size_t k = at + std::size_t(rows[r]);
      scales[r] = half_to_float(packed.scales[k]);
      less[r] += scales[r] * float(packed.zeros[k]) * x_sums[g];
    }
  }
}

/// The product of a quantized linear without a mask, groups of a multiple of aligned_group
/// neighbouring columns.
inline void multiply_groups(const PackedLinear& packed, std::span<const float> x,
                            std::span<float> y) {
  const RowsInFours rows(packed, x);
  const auto grids = std::size_t(packed.grids.grids());
  std::vector<float> x_sums;
  x_sums.reserve(grids);
  for (std::size_t g = 0; g < grids; ++g) {
    double sum = 0;
    for (const index_t j : packed.grids.columns_of(index_t(g))) sum += double(x[std::size_t(j)]);
    x_sums.push_back(float(sum));
  }
  std::array<GridsOfWords, max_bits + 1> grids_of;
  for (index_t f = 0; f < rows.fours(); ++f)
    if (const int bits = rows.width(f); grids_of[std::size_t(bits)].first.empty())
      grids_of[std::size_t(bits)] =
          grids_of_words(bits, packed.layout.columns, packed.layout.group_size);
  for_each_block(rows.fours(), [&](index_t begin, index_t end) {
    const std::size_t count = 4 * std::size_t(end - begin);
    const std::size_t row_stride = grids + hn::Lanes(hn::ScalableTag<float>());
    thread_local std::vector<float> scales, less, by_row;
    scales.resize(grids * count);
    less.resize(count);
    by_row.assign(4 * row_stride, 0.0f);
    read_group_scales(packed, std::span(rows.order).subspan(std::size_t(4 * begin), count), x_sums,
                      count, scales.data(), less.data());
    for (index_t f = begin; f < end; ++f) {
      const std::size_t first = 4 * std::size_t(f - begin);
      const GridsOfWords& of = grids_of[std::size_t(rows.width(f))];
      float sums[4];
      if (of.alike) {
        rows.multiply(f, ScaleOfVector{of, scales.data() + first, count}, sums);
      } else {
        for (std::size_t g = 0; g < grids; ++g)
          for (std::size_t r = 0; r < 4; ++r)
            by_row[r * row_stride + g] = scales[g * count + first + r];
        rows.multiply(f, ScalesOfWords{of, by_row.data(), row_stride}, sums);
      }
      for (std::size_t r = 0; r < 4; ++r) y[rows.row(f, r)] = sums[r] - less[first + r];
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

/// Whether multiply_groups takes a linear.
inline bool has_aligned_groups(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  return packed.grids.grids() > 1 && layout.quantized() && packed.kind == PackedMask::none &&
         (layout.by_row() || layout.widths.size() == 1) && layout.group_size % aligned_group == 0;
}

/// Whether packed_product is fast for a linear; see there.
inline bool has_fast_product(const PackedLinear& packed) {
  if (packed.grids.grids() != 1) return has_aligned_groups(packed);
  return packed.kind == PackedMask::none || mask_pieces(packed).bits > 0;
}

/// y = W' x of a packed linear, x finite and rotated already where inputs are.
inline void packed_product_as_stored(const PackedLinear& packed, std::span<const float> x,
                                     std::span<float> y) {
  const PackedLayout& layout = packed.layout;
  double x_sum = 0;
  for (const float value : x) x_sum += double(value);
  if (packed.grids.grids() == 1) {
    if (packed.kind == PackedMask::none) return multiply_unmasked(packed, x, x_sum, y);
    const MaskPieces pieces = mask_pieces(packed);
#ifdef PARE_SPREADS_BYTES
    if (pieces.bits > 0) return multiply_all_spread(packed, pieces, x, y);
#else
    if (pieces.bits > 0) return multiply_all_masked(packed, pieces, x, y);
#endif
  } else if (has_aligned_groups(packed)) {
    return multiply_groups(packed, x, y);
  }
  for_each_block(layout.rows, [&](index_t begin, index_t end) {
    thread_local std::vector<std::uint8_t> pruned;
    thread_local std::vector<float> weights;
    pruned.resize(x.size());
    weights.resize(x.size());
    for (index_t i = begin; i < end; ++i)
      y[std::size_t(i)] = multiply_any(packed, i, x, pruned.data(), weights.data());
  });
}

}  // namespace detail

/// y = W x of a packed linear, from its packed bytes, in float32, on all threads. Where inputs are
/// rotated x is rotated first, in float32.
///
/// Fast for a grid per row, any widths, without a mask, with a mask of bits, or n:m with m of 2, 4
/// or 8, and for groups of a multiple of 32 neighbouring columns without a mask; any other layout is
/// read weight by weight.
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
  for (std::size_t j = 0; j < x.size(); ++j)
    if (!std::isfinite(x[j]))
      throw non_finite_error("packed_product: x: expected finite numbers, got " +
                                 std::to_string(x[j]) + " at " + std::to_string(j),
                             index_t(j), 0);
  if (!packed.rotation) return detail::packed_product_as_stored(packed, x, y);
  std::vector<float> turned(x.size());
  const kernels::RotateBlock<float> block{{x.data(), 1, layout.columns},
                                          {turned.data(), 1, layout.columns},
                                          *packed.rotation};
  for (index_t task = 0; task < block.count(); ++task) block(task);
  detail::packed_product_as_stored(packed, turned, y);
}

}  // namespace pare
