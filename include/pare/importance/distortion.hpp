// What rounding loses, channel by channel, at every width.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/importance/signals.hpp"

namespace pare::inline PARE_TARGET {

/// Distortion of every channel at every width: the sum of (w_ij - q_ij)^2 / U_jj^2 over the weights
/// of the channel, q_ij being w_ij on the grid that is fitted to its row, or to its group of
/// neighbouring columns, at that width.
///
/// Dead inputs have no distortion and take no part in a grid.
///
/// Of the loss that the solver ends with this is the part that no error feedback takes back, as far
/// as it can be told before the solve.
/// @param input   weights, factor and how grids are fitted; input.bits is not read
/// @param axis    what a channel is
/// @param widths  in bits, each within 2..8
/// @param mask    (out, in), 1 where a weight is pruned, which is then lost whole at every width;
///                empty when none is
/// @return        (channels, widths), row-major
/// @throws argument_error for a width out of range, shape_error for a mask or a factor of another
///         shape, both for weights or a mask that cannot be read
/// Source: Frantar & Alistarh 2023 (SparseGPT), eq. 3, for the loss of one weight.
template <class B, class T>
std::vector<double> channel_distortion(const ScoringInput<B, T>& input, ChannelAxis axis,
                                       std::span<const int> widths,
                                       MatrixView<const std::uint8_t> mask = {}) {
  const index_t rows = input.weights.rows, cols = input.weights.cols;
  require_view("weights (out, in)", input.weights);
  require_shape("weights (out, in) against factor (in, in)", {rows, input.factor.in_features()},
                {rows, cols});
  require_view("mask (out, in)", mask);
  if (mask.rows > 0) require_shape("mask (out, in)", {rows, cols}, {mask.rows, mask.cols});
  for (const int width : widths)
    if (width < min_bits || width > max_bits)
      throw argument_error("widths: expected numbers within 2..8, got " + std::to_string(width));
  const auto inverse_u = detail::to_backend<B>(input_signal::InverseHessian{}(input));
  typename B::template matrix<T> room;
  const MatrixView<const T> W = detail::live_weights<B, T>(input.weights, input.factor, room);
  const index_t levels = index_t(widths.size());
  const bool by_row = axis == ChannelAxis::output;
  auto sums = detail::zeros<B, double>(by_row ? rows : 0, levels);
  auto roots = detail::zeros<B, double>(by_row ? 0 : rows, cols);
  std::vector<double> result(std::size_t((by_row ? rows : cols) * levels));
  for (index_t k = 0; k < levels; ++k) {
    const auto grids =
        detail::row_grids<B, T>(W, widths[std::size_t(k)], input.grid, input.group_size);
    const kernels::RoundingLoss<T> loss{W, mask, inverse_u.view().data, grids.view(),
                                        grids.of_column()};
    if (by_row) {
      B::reduce_rows(rows, kernels::RowRoundingLoss<T>{loss, sums.view(), k});
      continue;
    }
    B::for_each_element(rows, cols, kernels::ElementRoundingLoss<T>{loss, roots.view()});
    const Matrix<double> m = detail::column_moments<B>(detail::as_const(roots.view()));
    for (index_t j = 0; j < cols; ++j)
      result[std::size_t(j * levels + k)] = m(2, j) + double(rows) * m(1, j) * m(1, j);
  }
  if (by_row) {
    const Matrix<double> host = B::to_host(detail::as_const(sums.view()));
    std::copy_n(host.data(), host.size(), result.begin());
  }
  return result;
}

}  // namespace pare
