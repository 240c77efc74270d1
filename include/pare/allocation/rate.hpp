// Rate-distortion allocation: widths for the channels of one linear or of many under one budget.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// One way to store a linear, with one sparsity pattern for instance: what every width of every
/// channel costs and loses. The tables are (channels, widths), row-major.
struct RateMode {
  double fixed_bits = 0;           ///< bits spent whatever the widths
  std::vector<int> widths;         ///< in bits, strictly increasing
  std::vector<double> cost;        ///< bits that a channel takes at a width, rising with the width
  std::vector<double> distortion;  ///< loss of a channel at a width, any unit, >= 0; need not fall

  /// Rows of the tables.
  std::size_t channels() const { return widths.empty() ? 0 : cost.size() / widths.size(); }
};

/// The ways to store one linear; one of them is chosen.
struct LinearRates {
  /// At least one, all with the same channels.
  std::vector<RateMode> modes;
};

/// What was chosen, and how much better a choice could be at most.
struct RatePlan {
  /// What is done with one linear.
  struct Choice {
    /// Index into LinearRates::modes.
    std::size_t mode = 0;
    std::vector<std::uint8_t> bits;  ///< width per channel
  };
  /// In the order of the linears given.
  std::vector<Choice> linears;
  double bits = 0;        ///< spent, <= budget
  double distortion = 0;  ///< of this choice
  double bound = 0;       ///< no choice within the budget has less (Lagrangian dual)

  /// No other choice has a distortion that is smaller by more.
  double gap() const { return distortion - bound; }
};

namespace detail {

inline void require_rates(std::span<const LinearRates> linears) {
  const auto fail = [](std::size_t linear, std::size_t mode, const std::string& what) {
    throw argument_error("linears: mode " + std::to_string(mode) + " of linear " +
                         std::to_string(linear) + ": " + what);
  };
  if (linears.empty()) throw argument_error("linears: expected at least one, got none");
  for (std::size_t g = 0; g < linears.size(); ++g) {
    if (linears[g].modes.empty())
      throw argument_error("linears: linear " + std::to_string(g) + ": expected at least one mode");
    for (std::size_t m = 0; m < linears[g].modes.size(); ++m) {
      const RateMode& mode = linears[g].modes[m];
      const std::size_t levels = mode.widths.size();
      if (levels == 0) fail(g, m, "expected at least one width");
      for (std::size_t k = 1; k < levels; ++k)
        if (mode.widths[k] <= mode.widths[k - 1]) fail(g, m, "widths: expected rising ones");
      if (mode.cost.empty() || mode.cost.size() % levels != 0 ||
          mode.cost.size() != mode.distortion.size())
        fail(g, m,
             "cost and distortion: expected (channels, " + std::to_string(levels) +
                 ") numbers each, got " + std::to_string(mode.cost.size()) + " and " +
                 std::to_string(mode.distortion.size()));
      if (mode.channels() != linears[g].modes.front().channels())
        fail(g, m, "expected as many channels as mode 0");
      if (!(mode.fixed_bits >= 0) || !std::isfinite(mode.fixed_bits))
        fail(g, m, "fixed_bits: expected a number >= 0, got " + std::to_string(mode.fixed_bits));
      for (std::size_t i = 0; i < mode.cost.size(); ++i) {
        const bool rises = i % levels == 0 ? mode.cost[i] >= 0 : mode.cost[i] > mode.cost[i - 1];
        if (!rises || !std::isfinite(mode.cost[i]))
          fail(g, m,
               "cost: expected finite numbers >= 0 that rise with the width, got " +
                   std::to_string(mode.cost[i]) + " for channel " + std::to_string(i / levels));
        if (!(mode.distortion[i] >= 0) || !std::isfinite(mode.distortion[i]))
          fail(g, m,
               "distortion: expected finite numbers >= 0, got " +
                   std::to_string(mode.distortion[i]) + " for channel " +
                   std::to_string(i / levels));
      }
    }
  }
}

/// Width index per channel of every linear, and its mode.
struct RateState {
  std::vector<std::size_t> mode;
  std::vector<std::vector<std::uint8_t>> level;
  double bits = 0, distortion = 0;
};

/// The choice that minimises distortion + price * bits, for price = infinity bits alone; ties go to
/// fewer bits, then to the earlier mode. `dual` receives the minimum.
inline RateState best_at_price(std::span<const LinearRates> linears, double price, double& dual) {
  RateState state;
  const bool bits_alone = std::isinf(price);
  dual = 0;
  std::vector<std::uint8_t> level;
  for (const LinearRates& linear : linears) {
    double best = std::numeric_limits<double>::infinity(), best_bits = 0, best_distortion = 0;
    std::size_t best_mode = 0;
    std::vector<std::uint8_t> best_level;
    for (std::size_t m = 0; m < linear.modes.size(); ++m) {
      const RateMode& mode = linear.modes[m];
      const std::size_t levels = mode.widths.size(), channels = mode.channels();
      level.assign(channels, 0);
      double bits = mode.fixed_bits, distortion = 0;
      for (std::size_t c = 0; c < channels; ++c) {
        const double* cost = mode.cost.data() + c * levels;
        const double* loss = mode.distortion.data() + c * levels;
        std::size_t at = 0;
        if (!bits_alone)
          for (std::size_t k = 1; k < levels; ++k)
            if (loss[k] + price * cost[k] < loss[at] + price * cost[at]) at = k;
        level[c] = std::uint8_t(at);
        bits += cost[at];
        distortion += loss[at];
      }
      const double total = bits_alone ? bits : distortion + price * bits;
      if (total < best || (total == best && bits < best_bits)) {
        best = total;
        best_bits = bits;
        best_distortion = distortion;
        best_mode = m;
        best_level = level;
      }
    }
    dual += best;
    state.bits += best_bits;
    state.distortion += best_distortion;
    state.mode.push_back(best_mode);
    state.level.push_back(std::move(best_level));
  }
  return state;
}

/// Spends what is left of the budget on wider channels, the best gain per bit first, until no step
/// that gains fits any more.
inline void spend_rest(std::span<const LinearRates> linears, RateState& state, double budget) {
  struct Step {
    double gain;  ///< distortion per bit
    std::uint32_t linear, channel;
    std::uint8_t level;
  };
  std::vector<Step> steps;
  while (true) {
    steps.clear();
    const double left = budget - state.bits;
    for (std::size_t g = 0; g < linears.size(); ++g) {
      const RateMode& mode = linears[g].modes[state.mode[g]];
      const std::size_t levels = mode.widths.size();
      for (std::size_t c = 0; c < mode.channels(); ++c) {
        const double* cost = mode.cost.data() + c * levels;
        const double* loss = mode.distortion.data() + c * levels;
        const std::size_t from = state.level[g][c];
        Step best{0, std::uint32_t(g), std::uint32_t(c), 0};
        for (std::size_t k = from + 1; k < levels && cost[k] - cost[from] <= left; ++k) {
          const double gain = (loss[from] - loss[k]) / (cost[k] - cost[from]);
          if (gain > best.gain) best.gain = gain, best.level = std::uint8_t(k);
        }
        if (best.gain > 0) steps.push_back(best);
      }
    }
    if (steps.empty()) return;
    std::stable_sort(steps.begin(), steps.end(),
                     [](const Step& a, const Step& b) { return a.gain > b.gain; });
    for (const Step& step : steps) {
      const RateMode& mode = linears[step.linear].modes[state.mode[step.linear]];
      const std::size_t row = step.channel * mode.widths.size();
      std::uint8_t& level = state.level[step.linear][step.channel];
      const double cost = mode.cost[row + step.level] - mode.cost[row + level];
      if (state.bits + cost > budget) continue;
      state.bits += cost;
      state.distortion += mode.distortion[row + step.level] - mode.distortion[row + level];
      level = step.level;
    }
  }
}

/// Makes every channel's curve fall strictly with the width, by next to nothing where it does not:
/// then all of a budget is spent, to less than a step.
/// @param distortion  (channels, levels), row-major
inline void make_falling(std::vector<double>& distortion, std::size_t levels) {
  double most = 0;
  for (const double d : distortion) most = std::max(most, d);
  const double step = std::max(1e-12 * most, 1e-300);
  for (std::size_t begin = 0; begin < distortion.size(); begin += levels) {
    for (std::size_t k = 1; k < levels; ++k)
      distortion[begin + k] = std::min(distortion[begin + k], distortion[begin + k - 1]);
    for (std::size_t k = 0; k < levels; ++k) distortion[begin + k] += step * double(levels - 1 - k);
  }
}

}  // namespace detail

/// Bits of the narrowest choice for all linears: no budget below can be kept.
/// @throws argument_error naming the linear and mode whose tables do not fit
inline double least_bits(std::span<const LinearRates> linears) {
  detail::require_rates(linears);
  double dual = 0;
  return detail::best_at_price(linears, std::numeric_limits<double>::infinity(), dual).bits;
}

/// Chooses a mode for every linear and a width for every channel: the least distortion within a
/// budget of bits.
///
/// Reverse water-filling: at a price per bit every channel takes its own best width and every
/// linear its best mode, which is optimal for the bits this spends; the price is bisected to the
/// lowest that keeps the budget. What is left goes to single channels by gain per bit, so that the
/// remainder is smaller than any step up that would gain. Ties go to fewer bits and to the lower
/// index; scaling all distortions by a power of two changes nothing.
/// @param linears      one or more; all modes of a linear have the same channels
/// @param budget_bits  bits for all of them, everything counted that their costs count
/// @return             the choice and the bound of its optimality
/// @throws argument_error naming the linear and mode whose tables do not fit, unattainable_error
///         with the least that is needed
/// Source: Shoham & Gersho 1988 for the Lagrangian; Cover & Thomas, section 10.3.3, for reverse
/// water-filling.
inline RatePlan allocate_rates(std::span<const LinearRates> linears, double budget_bits) {
  detail::require_rates(linears);
  const double budget = budget_bits * (1 + 1e-12);  // sums of costs are rounded
  double dual = 0;
  const detail::RateState least =
      detail::best_at_price(linears, std::numeric_limits<double>::infinity(), dual);
  if (!(least.bits <= budget))
    throw unattainable_error("budget_bits: expected at least " + std::to_string(least.bits) +
                             ", which the narrowest choice takes, got " +
                             std::to_string(budget_bits));
  detail::RateState state = detail::best_at_price(linears, 0, dual);
  double bound = dual;
  if (state.bits > budget) {
    // A price above which every channel is at its narrowest: the steepest step there is.
    double high = 0;
    for (const LinearRates& linear : linears)
      for (const RateMode& mode : linear.modes) {
        const std::size_t levels = mode.widths.size();
        double most = 0;
        for (std::size_t i = 0; i < mode.cost.size(); ++i) {
          most += mode.distortion[i];
          if (i % levels == 0) continue;
          high = std::max(high, (mode.distortion[i - i % levels] + mode.distortion[i]) /
                                    (mode.cost[i] - mode.cost[i - 1]));
        }
        high = std::max(high, most);
      }
    double low = 0;
    high = std::max(high, std::numeric_limits<double>::min());
    state = least;
    for (int i = 0; i < 400; ++i) {
      const double price = low > 0 ? std::sqrt(low) * std::sqrt(high) : high * 0x1p-8;
      if (!(price > low && price < high) || (low > 0 && high / low < 1 + 1e-14)) break;
      const detail::RateState tried = detail::best_at_price(linears, price, dual);
      bound = std::max(bound, dual - price * budget);
      if (tried.bits <= budget) {
        high = price;
        state = tried;
      } else {
        low = price;
      }
    }
  }
  detail::spend_rest(linears, state, budget);

  RatePlan plan;
  plan.bits = state.bits;
  plan.bound = bound;
  for (std::size_t g = 0; g < linears.size(); ++g) {
    const RateMode& mode = linears[g].modes[state.mode[g]];
    RatePlan::Choice choice{state.mode[g], {}};
    for (std::size_t c = 0; c < mode.channels(); ++c) {
      const std::size_t level = state.level[g][c];
      choice.bits.push_back(std::uint8_t(mode.widths[level]));
      plan.distortion += mode.distortion[c * mode.widths.size() + level];
    }
    plan.linears.push_back(std::move(choice));
  }
  // Equal but for rounding where the choice is optimal.
  plan.bound = std::min(plan.bound, plan.distortion);
  return plan;
}

}  // namespace pare
