// A quantized linear as the formats of other programs take it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/storage/packed.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/packed_rows.hpp"

namespace pare::inline PARE_TARGET {

/// What of a quantized linear decides whether a format can hold it. Known before anything is
/// computed, but for `lowest`, `highest`, `exact_minima` and `scale_digits`, which are then bounds.
struct ExportLinear {
  std::string tensor;                ///< name of its weight in the checkpoint
  index_t rows = 0, columns = 0;     ///< (out, in)
  DType dtype = DType::f32;          ///< what the checkpoint stores weights in
  bool transposed = false;           ///< the checkpoint stores the weight as (in, out)
  std::vector<int> widths = {};      ///< bits of its codes, every width once, in rising order
  bool widths_by_input = false;      ///< inputs differ in width, rather than rows
  index_t group_size = 0;            ///< inputs of a grid; 0: all of a row
  bool symmetric = false;            ///< every zero is 2^(width - 1)
  int scale_digits = 11;             ///< significant bits of the scales, which are float16, at most
  int lowest = -255, highest = 255;  ///< what a code may be less its zero, at least and at most
  bool exact_minima = false;         ///< scale times zero is a float16 for every grid
  bool rotated = false;              ///< codes are of W' with inputs that turn when it runs
  bool widened = false;              ///< rows of fewer bits may be stored at the widest
  int fused_width = 0;               ///< the widest of the linears that are loaded as one with it

  /// Bits that a code is stored with, where all take the same.
  int width() const { return widths.empty() ? 0 : std::max(widths.back(), fused_width); }
  /// Grids of a row, where inputs do not differ in width.
  index_t groups() const { return group_size == 0 ? 1 : (columns + group_size - 1) / group_size; }
  /// Name of the module: that of the weight without its end.
  std::string module() const {
    return tensor.ends_with(".weight") ? tensor.substr(0, tensor.size() - 7) : tensor;
  }
};

/// The codes and grids of a linear. A weight is scale * (code - zero) of its row and group; a
/// pruned weight has the code of zero.
struct ExportCodes {
  index_t rows = 0, columns = 0;        ///< (out, in)
  std::vector<std::uint8_t> codes;      ///< (out, in)
  std::vector<std::uint16_t> scales;    ///< (grids, out), float16
  std::vector<std::uint8_t> zeros;      ///< (grids, out)
  std::vector<std::int32_t> of_column;  ///< grid of each input, (in)
  std::vector<std::uint8_t> widths;     ///< bits of a row's codes, (out); the widest of a row

  /// Number of grids of a row.
  index_t grids() const { return rows == 0 ? 0 : index_t(scales.size()) / rows; }
  /// Code of weight (row, column).
  int code(index_t row, index_t column) const { return codes[std::size_t(row * columns + column)]; }
  /// Zero of grid g of a row.
  int zero(index_t g, index_t row) const { return zeros[std::size_t(g * rows + row)]; }
  /// Scale of grid g of a row.
  std::uint16_t scale(index_t g, index_t row) const { return scales[std::size_t(g * rows + row)]; }
};

namespace detail {

/// Significant bits of a float16, 0 for zero.
inline int half_digits(std::uint16_t half) {
  const unsigned fraction = half & 0x3ffu;
  const unsigned digits = (half & 0x7c00u) != 0 ? fraction | 0x400u : fraction;
  return digits == 0 ? 0 : int(std::bit_width(digits)) - std::countr_zero(digits);
}

}  // namespace detail

/// The codes of a packed linear.
/// @param packed  quantized, with index_rows() done
inline ExportCodes export_codes(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  ExportCodes out{.rows = layout.rows,
                  .columns = layout.columns,
                  .codes = {},
                  .scales = packed.scales,
                  .zeros = packed.zeros,
                  .of_column = {},
                  .widths = {}};
  out.codes.resize(std::size_t(layout.rows * layout.columns));
  out.of_column.assign(packed.grids.of_column.begin(), packed.grids.of_column.end());
  out.widths.resize(std::size_t(layout.rows));
  const int widest = layout.tiers().front();
  for (index_t i = 0; i < layout.rows; ++i)
    out.widths[std::size_t(i)] = std::uint8_t(layout.by_row() ? layout.code_bits(i, 0) : widest);
  detail::host_parallel_for(layout.rows, [&](index_t i) {
    thread_local std::vector<std::uint8_t> pruned;
    pruned.resize(std::size_t(layout.columns));
    std::uint8_t* const row = out.codes.data() + i * layout.columns;
    for (index_t j = 0; j < layout.columns; ++j)
      row[j] = std::uint8_t(out.zero(out.of_column[std::size_t(j)], i));
    detail::read_mask_row(packed, i, pruned.data());
    detail::for_each_code(packed, i, pruned.data(), [&](index_t j, index_t, std::uint64_t code) {
      row[j] = std::uint8_t(code);
    });
  });
  return out;
}

/// What of a packed linear decides whether a format can hold it.
/// @param tensor  name of its weight
/// @param packed  with index_rows() done
inline ExportLinear export_linear(const std::string& tensor, const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  ExportLinear linear{.tensor = tensor,
                      .rows = layout.rows,
                      .columns = layout.columns,
                      .dtype = packed.dtype,
                      .transposed = packed.transposed,
                      .widths = {},
                      .widths_by_input = !layout.by_row() && layout.widths.size() > 1,
                      .group_size = layout.group_size,
                      .symmetric = true,
                      .scale_digits = 0,
                      .lowest = 0,
                      .highest = 0,
                      .exact_minima = true,
                      .rotated = packed.rotation.has_value()};
  for (const std::uint8_t width : layout.tiers())
    linear.widths.insert(linear.widths.begin(), width);
  for (std::size_t k = 0; k < packed.zeros.size(); ++k) {
    const index_t row = index_t(k) % layout.rows, g = index_t(k) / layout.rows;
    const int width = packed.grids.width_of(g, row, layout.widths);
    const int zero = packed.zeros[k];
    if (zero != 1 << (width - 1)) linear.symmetric = false;
    linear.lowest = std::min(linear.lowest, -zero);
    linear.highest = std::max(linear.highest, (1 << width) - 1 - zero);
    const float minimum = half_to_float(packed.scales[k]) * float(zero);
    if (half_to_float(float_to_half(minimum)) != minimum) linear.exact_minima = false;
    linear.scale_digits = std::max(linear.scale_digits, detail::half_digits(packed.scales[k]));
  }
  return linear;
}

/// The quantized linears of a packed file, in its order. Reads each of them.
inline std::vector<ExportLinear> export_linears(const PackedFile& file) {
  std::vector<ExportLinear> linears;
  for (const PackedEntry& entry : file.linears())
    if (entry.layout.quantized() || entry.widths_by_channel)
      linears.push_back(export_linear(entry.tensor, file.read(entry)));
  return linears;
}

}  // namespace pare
