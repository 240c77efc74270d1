// The grids of all rows of a matrix.
#pragma once

#include <cstdint>

#include "pare/quantization/fit.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// Fits grids to the rows of a matrix, each by fit_grid to neighbouring columns of its row. Plain
/// data: what a backend's `fit_grids` is given.
template <class T>
struct GridFit {
  MatrixView<const T> weights;  // (out, columns)
  /// Grid g is fitted to columns begin[g] to begin[g + 1] - 1, (grids + 1); null: one grid, all
  /// columns.
  const index_t* begin = nullptr;
  const std::uint8_t* bits = nullptr;  ///< width of grid g of row i: [g * per_grid + i * per_row]
  index_t per_grid = 0;                ///< 0 where all grids of a row have one width
  index_t per_row = 0;                 ///< 0 where all rows have one width
  /// How a grid is fitted.
  GridOptions options = {};
  int clip_steps =
      detail::clip_steps;  ///< ranges that a clip search tries: these, or those of groups
  GridView<T> grids;       // (grids, out)

  /// The first column of grid g; that of the grid after the last is the number of columns.
  PARE_HOST_DEVICE index_t first_column(index_t g) const {
    return begin != nullptr ? begin[g] : g * weights.cols;
  }
  /// The width of grid g of row i in bits.
  PARE_HOST_DEVICE int width(index_t g, index_t i) const {
    return int(bits[g * per_grid + i * per_row]);
  }
  /// Writes grid g of row i.
  PARE_HOST_DEVICE void store(index_t g, index_t i, const Grid<T>& grid) const {
    grids.scale(g, i) = grid.scale;
    grids.zero(g, i) = grid.zero;
    grids.top(g, i) = grid.top;
  }
};

/// Fits the grids of row i, one after the other: the loop of the hosts.
template <class T>
void fit_row(const GridFit<T>& fit, index_t i) {
  const T* row = fit.weights.row(i);
  for (index_t g = 0; g < fit.grids.scale.rows; ++g) {
    const index_t first = fit.first_column(g), last = fit.first_column(g + 1);
    fit.store(g, i,
              fit_grid(row + first, last - first, fit.width(g, i), fit.options, fit.clip_steps));
  }
}

}  // namespace pare::kernels
