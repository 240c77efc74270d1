// The statistics of one solved linear.
#pragma once

#include <cmath>
#include <numeric>

#include "pare/report/statistics.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare {

namespace detail {

/// Bits of the index of which `zeros` of `group` weights are gone: ceil(log2(binomial)).
inline double group_index_bits(int zeros, int group) {
  double ways = 1;
  for (int i = 1; i <= zeros; ++i) ways = ways * (group - zeros + i) / i;
  return std::ceil(std::log2(ways) - 1e-9);
}

/// Bits of one linear when packed: codes of the weights that stay, 24 bits per grid (float16 scale
/// and integer zero), a mask or group indices, 8 bits of width per channel with mixed precision.
/// Codes of all weights and no mask where that is smaller; zero is on every grid.
template <class B, class T>
double stored_bits(const CompressedLayer<B, T>& layer, const Matrix<std::uint8_t>& mask,
                   int dense_bits) {
  const double weights = double(mask.size());
  double dense = 0, sparse = 0;
  for (index_t i = 0; i < mask.rows(); ++i)
    for (index_t j = 0; j < mask.cols(); ++j) {
      const int width = !layer.quantized() ? dense_bits
                        : layer.axis == ChannelAxis::output ? layer.bits[std::size_t(i)]
                                                            : layer.bits[std::size_t(j)];
      dense += width;
      sparse += mask(i, j) != 0 ? 0 : width;
    }
  if (layer.group > 0)
    sparse += weights / layer.group * group_index_bits(layer.zeros, layer.group);
  else
    sparse += weights;
  double bits = layer.pruned() ? std::min(dense, sparse) : dense;
  bits += 24.0 * double(layer.grids.scale.rows() * layer.grids.scale.cols());
  if (!layer.scores.empty()) bits += 8.0 * double(layer.bits.size());
  return bits;
}

}  // namespace detail

/// Counts what became of one linear.
/// @param dense_bits  bits of a weight that is not quantized
template <class B, class T>
LayerStatistics layer_statistics(std::string name, const CompressedLayer<B, T>& layer,
                                 int dense_bits) {
  const Matrix<T> Q = B::to_host(detail::as_const(layer.weights.view()));
  const Matrix<std::uint8_t> mask = B::to_host(detail::as_const(layer.mask.view()));
  LayerStatistics s;
  s.name = std::move(name);
  s.rows = Q.rows();
  s.columns = Q.cols();
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
  s.sparsity = double(std::count(mask.data(), mask.data() + mask.size(), 1)) / double(mask.size());
  s.zeros = double(std::count(Q.data(), Q.data() + Q.size(), T(0))) / double(Q.size());
  s.loss = layer.loss;
  s.damping = layer.damping;
  s.damping_retries = layer.damping_retries;
  s.stored_bits = detail::stored_bits(layer, mask, dense_bits);
  s.seconds = layer.seconds;
  return s;
}

}  // namespace pare
