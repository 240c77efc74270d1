// Grids of a quantizer of one's own: fitted, rounded to and checked by any backend.
#pragma once

#include <bit>
#include <cstdint>

#include "pare/kernels/checks.hpp"
#include "pare/quantization/quantizer.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// The grids of all rows as numbers: number k of grid g of row i is values(g * numbers + k, i).
template <class Q, class T>
struct CustomGrids {
  /// One grid.
  using grid = typename Q::template grid<T>;
  /// Numbers of one grid.
  static constexpr index_t numbers = index_t(sizeof(grid) / sizeof(T));
  /// One grid as numbers.
  struct Numbers {
    T number[numbers];  ///< in the order of the grid's members
  };

  MatrixView<const T> values;  // (grids * numbers, out)

  /// Grid g of row i.
  PARE_HOST_DEVICE grid at(index_t g, index_t i) const {
    Numbers from;
    for (index_t k = 0; k < numbers; ++k) from.number[k] = values(g * numbers + k, i);
    return std::bit_cast<grid>(from);
  }
  /// Rounds one weight of each of `Lanes` neighbouring rows to grid g.
  template <int Lanes>
  PARE_HOST_DEVICE void round(T (&kept)[Lanes], index_t g, index_t row) const {
    for (int l = 0; l < Lanes; ++l) kept[l] = Q::round(kept[l], at(g, row + l));
  }
};

/// Fits the grids of all rows: a function of a row and a grid.
template <class Q, class T>
struct CustomFit {
  /// How grids lie in memory.
  using Grids = CustomGrids<Q, T>;

  MatrixView<const T> weights;  // (out, in), columns grid by grid
  /// Where the columns of each grid begin, (grids + 1); null: one grid, all columns.
  const index_t* begin;
  const std::uint8_t* bits;   ///< width of grid g of row i: [g * per_grid + i * per_row]
  index_t per_grid, per_row;  ///< 1 where widths differ, else 0
  GridOptions options;        ///< of the quantizers that take them
  MatrixView<T> values;       // (grids * numbers, out)

  /// Fits grid g of row i.
  PARE_HOST_DEVICE void operator()(index_t i, index_t g) const {
    const index_t first = begin != nullptr ? begin[g] : 0;
    const index_t end = begin != nullptr ? begin[g + 1] : weights.cols;
    const auto grid =
        Q::fit(weights.row(i) + first, end - first, int(bits[g * per_grid + i * per_row]), options);
    const auto numbers = std::bit_cast<typename Grids::Numbers>(grid);
    for (index_t k = 0; k < Grids::numbers; ++k)
      values(g * Grids::numbers + k, i) = numbers.number[k];
  }
};

/// Adds off_grid to the faults of each row, after RowFaults without grids: a function of a row.
template <class Q, class T>
struct CustomFaults {
  MatrixView<const T> weights;      // (out, in)
  CustomGrids<Q, T> grids;          // (grids * numbers, out)
  const std::int32_t* column_grid;  ///< (in)
  std::int32_t* fault;              ///< (out), a RowFault each

  /// Checks row i.
  PARE_HOST_DEVICE void operator()(index_t i) const {
    bool good = true;
    for (index_t j = 0; j < weights.cols; ++j)
      good &= Q::on_grid(weights(i, j), grids.at(column_grid[j], i));
    if (!good) fault[i] = std::int32_t(RowFault::off_grid);
  }
};

}  // namespace pare::kernels
