// The statistics of one solved linear.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pare/pipeline/pack.hpp"
#include "pare/report/statistics.hpp"
#include "pare/solver/count.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare {

namespace detail {

/// Sums over the weights of one linear.
struct WeightCounts {
  double pruned = 0;                     ///< weights the mask pruned
  double zeros = 0;                      ///< weights that are zero, rounded ones too
  std::vector<std::uint64_t> kept_bits;  ///< of the codes that each row keeps, (out)
};

/// Counts on the backend; only a few numbers per row travel.
/// @param dense_bits  bits of a weight that is not quantized
template <class B, class T>
WeightCounts count_weights(const CompressedLayer<B, T>& layer, int dense_bits) {
  const index_t rows = layer.weights.rows();
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
    sums.kept_bits.push_back(std::uint64_t(host(i, 2)));
  }
  return sums;
}

}  // namespace detail

/// Counts what became of one linear.
/// @param name        of its weight in the model
/// @param layer       as solve() returned it
/// @param dense_bits  bits of a weight that is not quantized
/// @return            its entry in the statistics
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
  s.stored_bits =
      8.0 * double(packed_size(detail::packed_layout(layer, dense_bits), counts.kept_bits).bytes());
  s.seconds = layer.seconds;
  return s;
}

}  // namespace pare
