// The statistics of one solved linear.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/pipeline/count.hpp"
#include "pare/pipeline/pack.hpp"
#include "pare/report/statistics.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// Counts what became of one linear.
/// @param name        of its weight in the model
/// @param linear      as solve() returned it
/// @param dense_bits  bits of a weight that is not quantized
/// @return            its entry in the statistics
template <class B, class T>
LinearStatistics linear_statistics(std::string name, const CompressedLinear<B, T>& linear,
                                   int dense_bits) {
  const detail::WeightCounts counts = detail::count_weights(linear, dense_bits);
  LinearStatistics s;
  s.name = std::move(name);
  s.rows = linear.weights.rows();
  s.columns = linear.weights.cols();
  s.axis = linear.axis;
  s.group_size = linear.group_size;
  s.channels = index_t(linear.bits.size());
  for (const std::uint8_t bits : linear.bits) ++s.bits_histogram[bits];
  if (linear.quantized())
    s.average_bits = double(std::accumulate(linear.bits.begin(), linear.bits.end(), index_t{0})) /
                     double(linear.bits.size());
  if (!linear.scores.empty()) {
    const auto [lowest, highest] = std::minmax_element(linear.scores.begin(), linear.scores.end());
    s.score = Range{*lowest,
                    std::accumulate(linear.scores.begin(), linear.scores.end(), 0.0) /
                        double(linear.scores.size()),
                    *highest};
  }
  s.sparsity = counts.pruned / double(s.weights());
  s.zeros = counts.zeros / double(s.weights());
  s.loss = linear.loss;
  if (linear.greedy_loss) {
    s.mask_search = linear.mask_search == MaskSearch::greedy && linear.refined
                        ? "greedy refined"
                        : to_string(linear.mask_search);
    s.greedy_loss = linear.greedy_loss;
  }
  s.damping = linear.damping;
  s.damping_retries = linear.damping_retries;
  s.stored_bits =
      8.0 *
      double(packed_size(detail::packed_layout(linear, dense_bits), counts.kept_bits).bytes());
  if (linear.custom_grids()) {  // its own grids in place of scales and zero points
    const double grids = double(s.rows) * double(detail::packed_layout(linear, dense_bits).grids());
    s.stored_bits += linear.grids.custom_bits - grids * packed_grid_bits;
  }
  s.seconds = linear.seconds;
  return s;
}

}  // namespace pare
