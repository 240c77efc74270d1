// Grids of the linears that are solved, fitted to their weights.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "pare/kernels/custom_grids.hpp"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/matrices.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/solver/options.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Whether a configuration rounds with a quantizer of one's own.
template <class Config>
inline constexpr bool has_custom_grids = [] {
  if constexpr (Config::quantizes)
    return !is_uniform<typename Config::quantizer>;
  else
    return false;
}();

/// The grids of such a configuration.
template <class Config, class T>
using OwnGrids = kernels::CustomGrids<
    std::conditional_t<has_custom_grids<Config>, typename Config::quantizer, BaseQuantizer>, T>;

/// Fits the grids of linears of one configuration.
template <class Config, class B, class T>
class GridFitter {
 public:
  using Linear = CompressedLinear<B, T>;

  /// Refers to the options.
  explicit GridFitter(const SolverOptions& options) : options_(options) {}

  /// Makes room for the grids of a linear, and fits them to its dense weights unless the sweep does it.
  /// @param linear  its widths are known
  /// @param W       (out, in), those of dead inputs zero
  /// @param room    may be written; grows to the shape of W
  void fit_all(Linear& linear, MatrixView<const T> W, typename B::template matrix<T>& room) const {
    const GridMap map = grid_map(linear.axis, linear.bits, W.cols, linear.group_size);
    if constexpr (has_custom_grids<Config>) {
      linear.grids.custom = Owner(map.grids() * OwnGrids<Config, T>::numbers, W.rows);
    } else {
      for (auto* m : {&linear.grids.scale, &linear.grids.zero, &linear.grids.top})
        *m = Owner(map.grids(), W.rows);
    }
    linear.grids.of_column = map.of_column;
    if (options_.group_fit == GroupFit::compensated) return;
    MatrixView<const T> by_grid = W;
    if (!map.natural_order()) {
      const auto gather = to_backend<B>(map.columns);
      room.resize(W.rows, W.cols);
      B::for_each_element(W.rows, W.cols,
                          kernels::GatherColumns<T>{W, room.view(), gather.view().data});
      by_grid = room.view();
    }
    const auto begin = to_backend<B>(map.begin);
    const auto widths = to_backend<B>(map.by_row() ? linear.bits : map.width);
    fit(linear, by_grid, begin.view().data, widths.view().data, map.by_row(), 0, map.grids());
  }

  /// Fits some of the grids, by the quantizer's own rule or by the backend's for uniform ones.
  /// @param weights  (out, columns of these grids)
  /// @param begin    where the columns of each grid begin in weights, (count + 1), in the backend's
  ///                 memory; null: one grid, all columns
  /// @param widths   of every row, (out), or of every grid, (count), in the backend's memory
  /// @param first    of the linear's grids
  void fit(Linear& linear, MatrixView<const T> weights, const index_t* begin,
           const std::uint8_t* widths, bool by_row, index_t first, index_t count) const {
    if constexpr (has_custom_grids<Config>) {
      constexpr index_t numbers = OwnGrids<Config, T>::numbers;
      B::for_each_element(weights.rows, count,
                          kernels::CustomFit<typename Config::quantizer, T>{
                              weights, begin, widths, by_row ? 0 : 1, by_row ? 1 : 0, options_.grid,
                              linear.grids.custom.view().block(first * numbers, 0, count * numbers,
                                                               weights.rows)});
    } else {
      const auto part = [&](Owner& m) { return m.view().block(first, 0, count, m.cols()); };
      B::fit_grids(kernels::GridFit<T>{.weights = weights,
                                       .begin = begin,
                                       .bits = widths,
                                       .per_grid = by_row ? 0 : 1,
                                       .per_row = by_row ? 1 : 0,
                                       .options = options_.grid,
                                       .clip_steps = clip_steps_for(linear.group_size),
                                       .grids = {part(linear.grids.scale), part(linear.grids.zero),
                                                 part(linear.grids.top)}});
    }
  }

  /// What a file needs for all grids of a quantizer of one's own, in bits.
  /// @param linear  its widths are known
  /// @param rows    of the linear
  static double own_grid_bits(const Linear& linear, index_t rows,
                              index_t cols) requires(has_custom_grids<Config>) {
    const GridMap map = grid_map(linear.axis, linear.bits, cols, linear.group_size);
    double sum = 0;
    for (const std::uint8_t width : map.by_row() ? linear.bits : map.width)
      sum += double(map.by_row() ? map.grids() : rows) *
             double(Config::quantizer::template grid_bits<T>(int(width)));
    return sum;
  }

  /// Begins to look for a scale that float16 cannot hold in some of the grids, where scales must be
  /// float16.
  auto start_check(const Linear& linear, index_t first, index_t count) const {
    std::optional<decltype(start_find_non_finite<B>(MatrixView<const T>()))> found;
    const MatrixView<const T> scale = linear.grids.scale.view();
    if (!has_custom_grids<Config> && options_.grid.half_scale)
      found.emplace(start_find_non_finite<B>(scale.block(first, 0, count, scale.cols)));
    return found;
  }

 private:
  using Owner = typename B::template matrix<T>;
  const SolverOptions& options_;
};

}  // namespace pare::inline PARE_TARGET::detail
