// The statistics of one solved linear.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pare/pipeline/stored.hpp"
#include "pare/report/statistics.hpp"
#include "pare/solver/count.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare {

namespace detail {

/// Sums over the weights of one linear.
struct WeightCounts {
  double pruned = 0;     ///< weights the mask pruned
  double zeros = 0;      ///< weights that are zero, rounded ones too
  double bits = 0;       ///< bits of all weights
  double kept_bits = 0;  ///< bits of those the mask did not prune
};

/// Counts on the backend; only a few numbers per row travel.
/// @param dense_bits  bits of a weight that is not quantized
template <class B, class T>
WeightCounts count_weights(const CompressedLayer<B, T>& layer, int dense_bits) {
  const index_t rows = layer.weights.rows(), cols = layer.weights.cols();
  const bool by_row = layer.quantized() && layer.axis == ChannelAxis::output;
  const bool by_column = layer.quantized() && layer.axis == ChannelAxis::input;
  const std::vector<std::uint8_t> widths =
      layer.quantized() ? layer.bits : std::vector<std::uint8_t>{std::uint8_t(dense_bits)};
  const auto on_backend = to_backend<B>(widths);
  auto counts = zeros<B, std::int64_t>(rows, 3);
  B::for_each_row(rows, CountRow<T>{layer.weights.view(), layer.mask.view(), on_backend.view().data,
                                    by_row ? 1 : 0, by_column ? 1 : 0, counts.view()});
  const Matrix<std::int64_t> host = B::to_host(MatrixView<const std::int64_t>(counts.view()));
  WeightCounts sums;
  for (index_t i = 0; i < rows; ++i) {
    sums.pruned += double(host(i, 0));
    sums.zeros += double(host(i, 1));
    sums.kept_bits += double(host(i, 2));
  }
  sums.bits = std::accumulate(widths.begin(), widths.end(), 0.0) * double(rows * cols) /
              double(widths.size());
  return sums;
}

/// Bits of one linear when packed: codes of the weights that stay, grids, a mask or group indices, a
/// width per channel with mixed precision. Codes of all weights and no mask where that is smaller;
/// zero is on every grid.
template <class B, class T>
double stored_bits(const CompressedLayer<B, T>& layer, const WeightCounts& counts) {
  LinearPattern pattern;
  if (layer.pruned())
    pattern = {layer.group > 0 ? PatternKind::n_of_m : PatternKind::unstructured, layer.sparsity,
               layer.zeros, layer.group};
  double bits = counts.bits;
  if (layer.pruned())
    bits = std::min(bits, counts.kept_bits +
                              stored_mask_bits(pattern, double(layer.weights.size())));
  bits += stored_grid_bits * double(layer.grids.scale.rows() * layer.grids.scale.cols());
  if (layer.mixed_widths) bits += stored_width_bits * double(layer.bits.size());
  return bits;
}

}  // namespace detail

/// Counts what became of one linear.
/// @param dense_bits  bits of a weight that is not quantized
template <class B, class T>
LayerStatistics layer_statistics(std::string name, const CompressedLayer<B, T>& layer,
                                 int dense_bits) {
  const detail::WeightCounts counts = detail::count_weights(layer, dense_bits);
  LayerStatistics s;
  s.name = std::move(name);
  s.rows = layer.weights.rows();
  s.columns = layer.weights.cols();
  s.axis = layer.axis;
  s.channels = index_t(layer.bits.size());
  for (const std::uint8_t bits : layer.bits) ++s.bits_histogram[bits];
  if (layer.quantized())
    s.average_bits = double(std::accumulate(layer.bits.begin(), layer.bits.end(), index_t{0})) /
                     double(layer.bits.size());
  if (!layer.scores.empty()) {
    const auto [lowest, highest] = std::minmax_element(layer.scores.begin(), layer.scores.end());
    s.score = Range{*lowest,
                    std::accumulate(layer.scores.begin(), layer.scores.end(), 0.0) /
                        double(layer.scores.size()),
                    *highest};
  }
  s.sparsity = counts.pruned / double(s.weights());
  s.zeros = counts.zeros / double(s.weights());
  s.loss = layer.loss;
  s.damping = layer.damping;
  s.damping_retries = layer.damping_retries;
  s.stored_bits = detail::stored_bits(layer, counts);
  s.seconds = layer.seconds;
  return s;
}

}  // namespace pare
