// The statistics of one solved linear.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/pipeline/pack.hpp"
#include "pare/report/statistics.hpp"
#include "pare/solver/count.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

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
WeightCounts count_weights(const CompressedLinear<B, T>& linear, int dense_bits) {
  const index_t rows = linear.weights.rows();
  const bool by_row = linear.quantized() && linear.axis == ChannelAxis::output;
  const bool by_column = linear.quantized() && linear.axis == ChannelAxis::input;
  const std::vector<std::uint8_t> widths =
      linear.quantized() ? linear.bits : std::vector<std::uint8_t>{std::uint8_t(dense_bits)};
  const auto on_backend = to_backend<B>(widths);
  auto counts = zeros<B, std::int64_t>(rows, 3);
  B::for_each_row(rows,
                  CountRow<T>{linear.weights.view(), linear.mask.view(), on_backend.view().data,
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
/// @param linear       as solve() returned it
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
  s.damping = linear.damping;
  s.damping_retries = linear.damping_retries;
  s.stored_bits =
      8.0 *
      double(packed_size(detail::packed_layout(linear, dense_bits), counts.kept_bits).bytes());
  s.seconds = linear.seconds;
  return s;
}

}  // namespace pare
