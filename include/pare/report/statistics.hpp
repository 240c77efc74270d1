// Statistics of a compression: one entry per linear, and their totals.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pare/core/backend.hpp"

namespace pare {

/// Lowest, mean and highest of a list.
struct Range {
  double lowest = 0, mean = 0, highest = 0;
};

/// One compressed linear.
struct LayerStatistics {
  std::string name;
  index_t rows = 0, columns = 0;  ///< (out, in)
  ChannelAxis axis = ChannelAxis::output;
  index_t channels = 0;                   ///< quantized channels; 0 without a quantizer
  std::map<int, index_t> bits_histogram;  ///< channels by width
  std::optional<double> average_bits;     ///< mean width of the channels
  std::optional<Range> score;             ///< of the channels; with mixed precision
  double sparsity = 0;                    ///< share of weights the mask pruned
  double zeros = 0;                       ///< share of weights that are zero, rounded ones too
  double loss = 0;                        ///< half the sum of squared compensated errors
  double damping = 0;                     ///< share of mean(diag H) in force
  int damping_retries = 0;
  double stored_bits = 0;  ///< bits of codes, grids, masks and widths when packed
  double seconds = 0;

  index_t weights() const { return rows * columns; }
};

/// Sums over linears. Averages are per weight, so they say what is stored.
struct Totals {
  index_t layers = 0, weights = 0, channels = 0;
  std::map<int, index_t> bits_histogram;
  std::optional<double> average_bits;  ///< code bits per weight; none without a quantizer
  double sparsity = 0, zeros = 0, loss = 0;
  double stored_bits_per_weight = 0;
  double seconds = 0;
};

/// Everything a run recorded.
struct Statistics {
  std::vector<LayerStatistics> layers;
};

/// Adds the linears up.
inline Totals totals(const Statistics& statistics) {
  Totals t;
  double code_bits = 0, pruned = 0, zeros = 0;
  for (const LayerStatistics& layer : statistics.layers) {
    const double weights = double(layer.weights());
    ++t.layers;
    t.weights += layer.weights();
    t.channels += layer.channels;
    for (const auto& [bits, count] : layer.bits_histogram) t.bits_histogram[bits] += count;
    if (layer.average_bits) code_bits += *layer.average_bits * weights;
    pruned += layer.sparsity * weights;
    zeros += layer.zeros * weights;
    t.loss += layer.loss;
    t.stored_bits_per_weight += layer.stored_bits;
    t.seconds += layer.seconds;
  }
  if (t.weights == 0) return t;
  if (t.channels > 0) t.average_bits = code_bits / double(t.weights);
  t.sparsity = pruned / double(t.weights);
  t.zeros = zeros / double(t.weights);
  t.stored_bits_per_weight /= double(t.weights);
  return t;
}

/// Throws invariant_error (post-condition 2) unless every quantized channel of every linear is
/// counted once; a run that asked for quantization must have recorded channels.
inline void require_counted(const Statistics& statistics, bool quantized) {
  for (const LayerStatistics& layer : statistics.layers) {
    index_t counted = 0;
    for (const auto& [bits, count] : layer.bits_histogram) counted += count;
    const index_t expected =
        !quantized ? 0 : layer.axis == ChannelAxis::output ? layer.rows : layer.columns;
    if (counted != expected || layer.channels != expected)
      throw invariant_error(2, layer.name + ": expected " + std::to_string(expected) +
                                   " quantized channels, counted " + std::to_string(counted));
  }
  if (quantized && statistics.layers.empty())
    throw invariant_error(2, "quantization was asked for and no channel was recorded");
}

}  // namespace pare
