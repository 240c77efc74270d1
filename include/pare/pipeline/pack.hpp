// A compressed linear becomes a packed one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pare/pipeline/count.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/storage/packed.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// What the packed size of a solved linear depends on.
/// @param value_bits  of a weight that is not quantized
template <class B, class T>
PackedLayout packed_layout(const CompressedLinear<B, T>& linear, int value_bits) {
  return {.rows = linear.weights.rows(),
          .columns = linear.weights.cols(),
          .axis = linear.axis,
          .widths = merged_widths(linear.bits),
          .value_bits = linear.quantized() ? 0 : value_bits,
          // n:m has more zeros where a given mask marks more: a bit per weight.
          .pattern =
              linear.given_mask || linear.custom_pattern ? Pattern(Unstructured{}) : linear.pattern,
          .group_size = linear.group_size};
}

/// What packing a row needs, in host memory.
template <class T>
struct RowPacker {
  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in)
  MatrixView<const T> scale, zero;      // (grids, out)
  PackedLinear& packed;

  /// Writes mask and codes of a row. Returns the column of the first weight that no code says, -1
  /// when there is none.
  index_t operator()(index_t i) const {
    const PackedLayout& layout = packed.layout;
    if (packed.kind != PackedMask::none) write_mask(i);
    BitWriter writer(packed.codes.data() + packed.row_begin[std::size_t(i)]);
    index_t wrong = -1;
    for (index_t j = 0; j < layout.columns; ++j) {
      if (packed.kind != PackedMask::none && mask(i, j) != 0) continue;
      if (!layout.quantized()) {
        const std::uint64_t bits = bits_of_value(float(weights(i, j)), packed.dtype);
        writer.put(std::uint32_t(bits), std::min(layout.value_bits, 32));
        if (layout.value_bits > 32) writer.put(std::uint32_t(bits >> 32), 32);
        continue;
      }
      const auto g = index_t(packed.grids.of_column[std::size_t(j)]);
      const int width = layout.code_bits(i, j);
      const T code = std::nearbyint(weights(i, j) / scale(g, i)) + zero(g, i);
      const bool valid = code >= T(0) && code < T(1 << width) &&
                         scale(g, i) * (code - zero(g, i)) == weights(i, j);
      if (!valid && wrong < 0) wrong = j;
      writer.put(valid ? std::uint32_t(code) : 0, width);
    }
    writer.finish();
    return wrong;
  }

 private:
  void write_mask(index_t i) const {
    const PackedLayout& layout = packed.layout;
    BitWriter writer(packed.mask.data() + std::uint64_t(i) * packed.mask_row_bytes());
    if (packed.kind == PackedMask::bits) {
      for (index_t j = 0; j < layout.columns; ++j) writer.put(mask(i, j) != 0 ? 1 : 0, 1);
    } else {
      const int bits = n_of_m_index_bits(layout.pattern.zeros, layout.pattern.of);
      for (index_t j = 0; j < layout.columns; j += layout.pattern.of)
        writer.put(n_of_m_index(mask.row(i) + j, layout.pattern.of), bits);
    }
    writer.finish();
  }
};

}  // namespace detail

/// Packs a solved linear. What unpack_row reads is what the solver computed, rounded to the
/// checkpoint's type.
/// @param linear  solved with GridOptions::half_scale if it is quantized
/// @param dtype   the checkpoint's type
/// @throws argument_error when a scale is no float16, a weight lies on no grid, or the grids are those
///         of a quantizer of one's own
template <class B, class T>
PackedLinear pack_linear(const CompressedLinear<B, T>& linear, DType dtype) {
  if (linear.custom_grids())
    throw argument_error(
        "linear: expected uniform grids, which a packed file holds, got those of a quantizer of "
        "one's "
        "own; save its weights instead");
  PackedLinear packed;
  packed.layout = detail::packed_layout(linear, 8 * dtype_bytes(dtype));
  packed.dtype = dtype;
  const PackedLayout& layout = packed.layout;
  const Matrix<T> weights = B::to_host(detail::as_const(linear.weights.view()));
  const Matrix<std::uint8_t> mask = B::to_host(detail::as_const(linear.mask.view()));
  const Matrix<T> scale = B::to_host(detail::as_const(linear.grids.scale.view()));
  const Matrix<T> zero = B::to_host(detail::as_const(linear.grids.zero.view()));

  const std::vector<std::uint64_t> kept =
      detail::count_weights(linear, 8 * dtype_bytes(dtype)).kept_bits;
  const PackedSize size = packed_size(layout, kept);
  packed.kind = size.kind;
  packed.codes.resize(size.codes);
  packed.mask.resize(size.mask);
  for (index_t k = 0; k < scale.size(); ++k) {
    const std::uint16_t half = float_to_half(float(scale.data()[k]));
    const T point = zero.data()[k];
    if (T(half_to_float(half)) != scale.data()[k])
      throw argument_error("scale of row " + std::to_string(k % layout.rows) +
                           ": expected a float16, which a packed linear holds; solve with "
                           "grid.half_scale");
    if (!(point >= T(0) && point <= T(255)) || point != std::nearbyint(point))
      throw argument_error("zero point of row " + std::to_string(k % layout.rows) +
                           ": expected a whole number within 0..255");
    packed.scales.push_back(half);
    packed.zeros.push_back(std::uint8_t(point));
  }
  packed.row_begin.assign(1, 0);
  std::uint64_t all = 0;
  for (index_t j = 0; j < layout.columns; ++j) all += std::uint64_t(layout.code_bits(0, j));
  for (index_t i = 0; i < layout.rows; ++i) {
    if (layout.quantized() && layout.by_row())
      all = std::uint64_t(layout.columns) * std::uint64_t(layout.code_bits(i, 0));
    packed.row_begin.push_back(
        packed.row_begin.back() +
        detail::row_bytes(packed.kind == PackedMask::none ? all : kept[std::size_t(i)]));
  }
  packed.grids = grid_map(layout.axis, layout.widths, layout.columns, layout.group_size);
  if (layout.quantized())
    require_shape("linear: scales", {packed.grids.grids(), layout.rows},
                  {scale.rows(), scale.cols()});

  std::vector<index_t> wrong(std::size_t(layout.rows), -1);
  const detail::RowPacker<T> pack{weights.view(), mask.view(), scale.view(), zero.view(), packed};
  detail::host_parallel_for(layout.rows, [&](index_t i) { wrong[std::size_t(i)] = pack(i); });
  for (index_t i = 0; i < layout.rows; ++i)
    if (wrong[std::size_t(i)] >= 0)
      throw argument_error("weight " + shape_text(i, wrong[std::size_t(i)]) +
                           ": expected a value of its grid");
  return packed;
}

}  // namespace pare
