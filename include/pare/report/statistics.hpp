// Statistics of a compression: one entry per linear, and their totals.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// Lowest, mean and highest of a list.
struct Range {
  /// Of the same unit as the list.
  double lowest = 0, mean = 0, highest = 0;
};

/// One compressed linear.
struct LinearStatistics {
  /// Name of its weight in the model.
  std::string name;
  index_t rows = 0, columns = 0;  ///< (out, in)
  /// What a channel is.
  ChannelAxis axis = ChannelAxis::output;
  index_t channels = 0;                   ///< quantized channels; 0 without a quantizer
  std::map<int, index_t> bits_histogram;  ///< channels by width
  std::optional<double> average_bits;     ///< mean width of the channels
  std::optional<Range> score;             ///< of the channels; with mixed precision
  index_t group_size = 0;                 ///< inputs that share a grid; 0: all of a row or tier
  double sparsity = 0;                    ///< share of weights the mask pruned
  double zeros = 0;                       ///< share of weights that are zero, rounded ones too
  double loss = 0;                        ///< of the weights that are stored; half the sum of
                                          ///< squared compensated errors, and rounding_loss
  double rounding_loss = 0;               ///< what rounding to the stored type added to the loss
  /// Where a search for masks or exact weights were asked for, what was kept: "greedy", "greedy
  /// refined" or "admm"; otherwise empty.
  std::string mask_search = {};
  std::optional<double> greedy_loss = {};  ///< then: the loss of the greedy result
  double damping = 0;                      ///< share of mean(diag H) in force
  /// How often the damping was raised.
  int damping_retries = 0;
  /// 8 times the bytes of its tensors in a packed file; with a quantizer of one's own its grids'
  /// bits in place of a packed file's.
  double stored_bits = 0;
  /// Wall time of the solve.
  double seconds = 0;

  /// Number of weights.
  index_t weights() const { return rows * columns; }
};

/// Sums over linears. Averages are per weight, so they say what is stored.
struct Totals {
  /// Linears, their weights and their quantized channels.
  index_t linears = 0, weights = 0, channels = 0;
  /// Channels by width.
  std::map<int, index_t> bits_histogram;
  std::optional<double> average_bits;  ///< code bits per weight; none without a quantizer
  /// Shares of weights pruned and zero, and the sum of the losses.
  double sparsity = 0, zeros = 0, loss = 0;
  double rounding_loss = 0;  ///< what rounding to the stored type added to the loss
  /// Bits of a packed file's tensors per weight, and added_bits_per_weight.
  double stored_bits_per_weight = 0;
  double added_bits_per_weight = 0;  ///< as in Statistics
  /// Wall time of the solves.
  double seconds = 0;
};

/// Everything a run recorded.
struct Statistics {
  /// In the order of compression.
  std::vector<LinearStatistics> linears;
  /// Bits per weight of a linear that the model has grown by beside them: those of a head that a
  /// rotation has untied, see pare::added_bits_per_weight.
  double added_bits_per_weight = 0;
};

/// Adds the linears up.
inline Totals totals(const Statistics& statistics) {
  Totals t;
  double code_bits = 0, pruned = 0, zeros = 0;
  for (const LinearStatistics& linear : statistics.linears) {
    const double weights = double(linear.weights());
    ++t.linears;
    t.weights += linear.weights();
    t.channels += linear.channels;
    for (const auto& [bits, count] : linear.bits_histogram) t.bits_histogram[bits] += count;
    if (linear.average_bits) code_bits += *linear.average_bits * weights;
    pruned += linear.sparsity * weights;
    zeros += linear.zeros * weights;
    t.loss += linear.loss;
    t.rounding_loss += linear.rounding_loss;
    t.stored_bits_per_weight += linear.stored_bits;
    t.seconds += linear.seconds;
  }
  if (t.weights == 0) return t;
  if (t.channels > 0) t.average_bits = code_bits / double(t.weights);
  t.sparsity = pruned / double(t.weights);
  t.zeros = zeros / double(t.weights);
  t.added_bits_per_weight = statistics.added_bits_per_weight;
  t.stored_bits_per_weight = t.stored_bits_per_weight / double(t.weights) + t.added_bits_per_weight;
  return t;
}

/// Throws invariant_error (post-condition 2) unless every quantized channel of every linear is
/// counted once; a run that asked for quantization must have recorded channels.
inline void require_counted(const Statistics& statistics, bool quantized) {
  for (const LinearStatistics& linear : statistics.linears) {
    index_t counted = 0;
    for (const auto& [bits, count] : linear.bits_histogram) counted += count;
    const index_t expected = !quantized                           ? 0
                             : linear.axis == ChannelAxis::output ? linear.rows
                                                                  : linear.columns;
    if (counted != expected || linear.channels != expected)
      throw invariant_error(2,
                            "expected " + std::to_string(expected) +
                                " quantized channels, counted " + std::to_string(counted),
                            linear.name);
  }
  if (quantized && statistics.linears.empty())
    throw invariant_error(2, "quantization was asked for and no channel was recorded");
}

/// Throws invariant_error (post-condition 2) unless the statistics hold every selected linear once,
/// in order, and no other.
/// @param statistics  of the run
/// @param names  of the selected linears, in the order of compression
inline void require_linears(const Statistics& statistics, const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < std::max(names.size(), statistics.linears.size()); ++i) {
    const std::string expected = i < names.size() ? names[i] : "no more linears";
    const std::string found =
        i < statistics.linears.size() ? statistics.linears[i].name : "no more linears";
    if (expected != found)
      throw invariant_error(2, "statistics: expected " + expected + ", found " + found);
  }
}

/// Throws invariant_error (post-condition 1) unless the widths recorded of a quantized linear are
/// tiers, their mean is the one recorded, and it is at most the target and less than one step of
/// one channel below it.
/// @param linear  what was recorded of the linear
/// @param target  mean bits per channel; none: any mean will do
/// @param tiers   widths a channel may have, increasing; the base width alone without a policy
/// @param policy  who chose the widths, for the message; empty: nobody
inline void require_mean_bits(const LinearStatistics& linear, std::optional<double> target,
                              const std::vector<int>& tiers, std::string_view policy = {}) {
  const auto fail = [&](const std::string& what) {
    throw invariant_error(1, what,
                          policy.empty() ? linear.name : linear.name + ": " + std::string(policy));
  };
  double spent = 0;
  int widest_step = 0;  // of the steps that are still to be had
  for (const auto& [bits, count] : linear.bits_histogram) {
    const auto tier = std::find(tiers.begin(), tiers.end(), bits);
    if (tier == tiers.end())
      fail("recorded channels of " + std::to_string(bits) + " bits, which is no tier");
    spent += double(bits) * double(count);
    if (tier + 1 != tiers.end()) widest_step = std::max(widest_step, *(tier + 1) - *tier);
  }
  const double channels = double(linear.channels), mean = linear.average_bits.value_or(0);
  if (!(std::abs(mean * channels - spent) <= 1e-6))
    fail("mean bits " + std::to_string(mean) + " recorded of channels whose mean is " +
         std::to_string(spent / channels));
  if (!target) return;
  const double left = *target * channels - spent;
  if (left < -1e-6 || (widest_step > 0 && left >= widest_step + 1e-6))
    fail("mean bits " + std::to_string(mean) + " for target " + std::to_string(*target));
}

}  // namespace pare
