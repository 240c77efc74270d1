// Which widths the channels of a linear get, where the configuration says who chooses.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/allocation/allocator.hpp"
#include "pare/allocation/rate.hpp"
#include "pare/importance/distortion.hpp"
#include "pare/importance/scorer.hpp"
#include "pare/kernels/masks.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/solver/custom_parts.hpp"
#include "pare/solver/options.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Whether a channel is an input.
template <class Config>
bool has_input_channels(const SolverOptions& options) {
  return Config::mixed && options.axis == ChannelAxis::input;
}

/// The policy of a configuration with its target and tiers.
/// @throws unattainable_error when the tiers cannot meet the target
template <class Config>
auto allocator_of(const SolverOptions& options) {
  return BitAllocator<typename Config::policy>({.target_average_bits = options.target_average_bits,
                                                .tiers = options.tiers.value_or(default_tiers())});
}

/// What weights are divided by before a mask is chosen in one shot, (1, in), in the backend's memory.
template <class B, class T>
auto one_shot_divisor(const ScoringInput<B, T>& input) {
  std::vector<double> u = input_signal::Hessian{}(input);
  for (std::size_t j = 0; j < u.size(); ++j)
    if (input.factor.dead[j] != 0) u[j] = 1;  // weights are zero there
  return to_backend<B>(std::vector<T>(u.begin(), u.end()));
}

/// What a pattern would take of dense weights in one shot beside what must be zero, (out, in); empty
/// when nothing goes.
/// @param zero        (out, in), 1 where a weight must be zero; may be empty
/// @param block_size  columns that a pattern of one's own marks at a time
template <class Config, class B, class T>
typename B::template matrix<std::uint8_t> one_shot_mask(const SolverOptions& options,
                                                        const ScoringInput<B, T>& input,
                                                        MatrixView<const std::uint8_t> zero,
                                                        index_t block_size) {
  using Pattern = typename Config::pattern;
  const index_t rows = input.weights.rows, cols = input.weights.cols;
  typename B::template matrix<std::uint8_t> mask;
  if (!Config::prunes && zero.rows == 0) return mask;
  mask = zeros<B, std::uint8_t>(rows, cols);
  if constexpr (Config::prunes && !is_custom_pattern<Pattern>) {
    const double share = is_n_of_m<Pattern> ? double(*options.zeros) / double(*options.of)
                                            : pattern_of(options).sparsity;
    const auto divisor = one_shot_divisor(input);
    B::select_smallest(input.weights, as_const(divisor.view()), pruned_count(share, rows * cols),
                       mask.view());
  }
  if (zero.rows > 0) B::for_each_element(rows, cols, kernels::AddMarks{zero, mask.view()});
  if constexpr (is_custom_pattern<Pattern>) {
    const auto diagonal = one_shot_divisor(input);
    const std::vector<index_t> order = natural_order(cols);
    for (index_t begin = 0; begin < cols; begin += block_size) {
      const index_t count = std::min(block_size, cols - begin);
      Pattern::template mark<B, T>(
          {input.weights.columns(begin, count), as_const(diagonal.view()).columns(begin, count),
           std::span(order).subspan(std::size_t(begin), std::size_t(count)), cols},
          options, mask.view().columns(begin, count));
    }
  }
  return mask;
}

/// The loss at the base width ranks channels; Budget spends along the whole curves. Weights that a
/// one-shot mask would prune count as lost.
template <class Config, class B, class T>
void choose_by_distortion(const SolverOptions& options, const ScoringInput<B, T>& input,
                          MatrixView<const std::uint8_t> zero, CompressedLinear<B, T>& linear) {
  const auto mask = one_shot_mask<Config>(options, input, zero, linear.block_size);
  const auto distortion = [&](std::span<const int> widths) {
    return channel_distortion(input, options.axis, widths, as_const(mask.view()));
  };
  const std::vector<int> base{input.bits};
  linear.scores = distortion(base);
  if constexpr (std::is_same_v<typename Config::policy, Budget>) {
    RateMode mode;
    mode.widths = options.tiers.value_or(default_tiers());
    mode.distortion = distortion(mode.widths);
    make_falling(mode.distortion, mode.widths.size());
    for (std::size_t c = 0; c < linear.scores.size(); ++c)
      mode.cost.insert(mode.cost.end(), mode.widths.begin(), mode.widths.end());
    const double budget = *options.target_average_bits * double(linear.scores.size());
    const LinearRates rates{{std::move(mode)}};
    linear.bits = allocate_rates(std::span(&rates, 1), budget).linears.front().bits;
  } else {
    linear.bits = allocator_of<Config>(options).allocate(linear.scores).bits;
  }
}

/// Writes scores and widths of a linear that has neither.
/// @param options  of a quantizing configuration without Assigned
/// @param input    weights, those of dead inputs zero, calibration and factor; bits and grid are set
/// @param zero     (out, in), 1 where a weight must be zero; may be empty
/// @param linear   gets scores and bits
/// @throws shape_error when an objective of one's own returns another number of channels
template <class Config, class B, class T>
void choose_bits(const SolverOptions& options, ScoringInput<B, T> input,
                 MatrixView<const std::uint8_t> zero, CompressedLinear<B, T>& linear) {
  if constexpr (!Config::mixed) {
    linear.bits.assign(std::size_t(input.weights.rows), std::uint8_t(*options.bits));
  } else {
    using Objective = typename Config::mixed_precision::objective;
    input.bits = *options.bits;
    input.group_size = resolved_group_size(options.group_size, input.weights.cols);
    // Without clip search: a score ranks rows, and the search would cost as much as the solve.
    input.grid = {.symmetric = options.grid.symmetric};
    const bool by_input = has_input_channels<Config>(options);
    if constexpr (std::is_same_v<Objective, GridDistortion>) {
      input.grid = options.grid;
      return choose_by_distortion<Config>(options, input, zero, linear);
    } else if constexpr (std::is_same_v<Objective, FiveSignals>) {
      linear.scores = by_input ? ImportanceScorer<5, B, T, ChannelAxis::input>().score(input).score
                               : ImportanceScorer<5, B, T>().score(input).score;
    } else {
      linear.scores = Objective{}(input, options.axis);
      const index_t channels = by_input ? input.weights.cols : input.weights.rows;
      if (index_t(linear.scores.size()) != channels)
        throw shape_error("objective: expected a number for each of " + std::to_string(channels) +
                          " channels, got " + std::to_string(linear.scores.size()));
    }
    linear.bits = allocator_of<Config>(options).allocate(linear.scores).bits;
  }
}

}  // namespace pare::detail
