// A plan: a pattern, a group size, a basis and widths for every linear of a model, chosen from its
// sensitivities.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/allocation/rate.hpp"
#include "pare/allocation/shared_width.hpp"
#include "pare/core/channel.hpp"
#include "pare/pipeline/sensitivity.hpp"
#include "pare/pipeline/stored.hpp"
#include "pare/quantization/grid_map.hpp"

namespace pare::inline PARE_TARGET {

/// Who meets the budget: every linear by itself, or all of them together.
enum class PlanScope : std::uint8_t { layer, model };

/// What a plan makes small: the distortion by grid and factor, or that scaled for every linear to
/// the divergence (KL) that it was measured to cause alone.
enum class PlanObjective : std::uint8_t { distortion, divergence };

/// What the budget counts: codes of all weights, or everything that is stored.
enum class BudgetKind : std::uint8_t { code_bits, stored_bits };

/// What a plan has to meet.
struct PlanOptions {
  /// Who meets the budget.
  PlanScope scope = PlanScope::model;
  /// What is made small.
  PlanObjective objective = PlanObjective::divergence;
  /// What the target counts.
  BudgetKind budget = BudgetKind::code_bits;
  double bits_per_weight = 0;  ///< the target, mean over the weights
  /// Bits per weight that are stored beside the linears and count against a target of stored bits,
  /// for every linear alike; see Statistics.
  double added_bits_per_weight = 0;
  /// Linears, by name, that get one width, pattern, group size and basis together, the same for all
  /// their channels; those that are not planned may be among them. Channels of the others choose alone.
  std::vector<std::vector<std::string>> together = {};
};

/// What is done to one linear.
struct LinearPlan {
  /// Name of the linear's weight in the model.
  std::string name;
  /// What is pruned of it.
  Pattern pattern;
  std::vector<std::uint8_t> bits;  ///< width per channel
  index_t group_size = 0;          ///< inputs that share a grid; 0: all of a row or tier
  bool rotated = false;            ///< whether its inputs are turned, by the rotation of the plan
};

/// What is done to a model, and what is expected of it. Losses are in nats per token with the
/// objective divergence, otherwise in the unit of H.
struct ModelPlan {
  /// In the order of the model.
  std::vector<LinearPlan> linears;
  /// What a channel is.
  ChannelAxis axis = ChannelAxis::output;
  /// Of the inputs of linears that are `rotated`: their channels and grids are those of the turned
  /// basis.
  std::optional<kernels::HadamardRotation> rotation = {};
  double bits_per_weight = 0;          ///< spent, as the budget counts, <= the target; with what
                                       ///< is stored beside the linears
  double predicted_loss = 0;           ///< sum over all channels
  double bound = 0;                    ///< no choice within the budget has less
  std::optional<double> uniform_loss;  ///< predicted for uniform widths within the same budget
  std::optional<int> uniform_bits;     ///< these; none when the narrowest do not fit
  std::string uniform_pattern;         ///< and their pattern
  index_t uniform_group_size = 0;      ///< and their group size
  bool uniform_rotated = false;        ///< and their basis
  bool uniform_kept = false;           ///< whether they were better, and are the plan
};

namespace detail {

/// Divergence per unit of distortion at every width: measured there, or interpolated in the
/// logarithm of the distortion; beyond the measured widths it stays as it is at the nearest.
/// @param mode      whose distortions are scaled
/// @param measured  of the same linear and pattern, whose divergence was measured
/// @param widths    of both
inline std::vector<double> divergence_scale(const ModeSensitivity& mode,
                                            const ModeSensitivity& measured,
                                            const std::vector<int>& widths) {
  const std::size_t levels = widths.size();
  const auto sums_of = [&](const ModeSensitivity& of) {
    std::vector<double> sums(levels, 0.0);
    for (std::size_t i = 0; i < of.distortion.size(); ++i) sums[i % levels] += of.distortion[i];
    return sums;
  };
  const std::vector<double> sums = sums_of(mode), measured_sums = sums_of(measured);
  struct Point {
    double log_distortion, log_scale;
  };
  std::vector<Point> points;  // by falling distortion
  for (const auto& [width, divergence] : measured.divergence) {
    const auto found = std::find(widths.begin(), widths.end(), width);
    if (found == widths.end())
      throw argument_error("sensitivities: a divergence at " + std::to_string(width) +
                           " bits, which is no width a plan may choose");
    const double sum = measured_sums[std::size_t(found - widths.begin())];
    if (sum > 0 && divergence > 0) points.push_back({std::log(sum), std::log(divergence / sum)});
  }
  std::vector<double> scale(levels, 0.0);  // of a linear that changes nothing
  if (points.empty()) return scale;
  std::sort(points.begin(), points.end(),
            [](const Point& a, const Point& b) { return a.log_distortion > b.log_distortion; });
  for (std::size_t k = 0; k < levels; ++k) {
    const double x = sums[k] > 0 ? std::log(sums[k]) : points.back().log_distortion;
    std::size_t p = 0;
    while (p < points.size() && points[p].log_distortion > x) ++p;
    if (p == 0 || p == points.size()) {
      scale[k] = std::exp(points[p == 0 ? 0 : p - 1].log_scale);
    } else {
      const Point &a = points[p - 1], &b = points[p];
      const double share = (a.log_distortion - x) / (a.log_distortion - b.log_distortion);
      scale[k] = std::exp(a.log_scale + share * (b.log_scale - a.log_scale));
    }
  }
  return scale;
}

/// Grids of a row at most, whichever input channel has which width.
inline index_t most_grids(index_t columns, index_t tiers, index_t group_size) {
  if (group_size == 0) return std::min(tiers, columns);
  // Every tier may end in a group that is not full.
  return tiers < columns ? tiers + (columns - tiers) / group_size : columns;
}

/// What a linear costs and loses in every mode.
inline LinearRates rates_of(const LinearSensitivity& linear, const Sensitivities& sensitivities,
                            const PlanOptions& options) {
  const std::vector<int>& widths = sensitivities.widths;
  const std::size_t levels = widths.size();
  const bool by_row = sensitivities.solver.axis == ChannelAxis::output;
  const double channel = double(by_row ? linear.columns : linear.rows);  // weights of one
  LinearRates rates;
  for (const ModeSensitivity& measured : linear.modes) {
    RateMode mode;
    mode.widths = widths;
    mode.distortion = measured.distortion;
    if (options.objective == PlanObjective::divergence) {
      const auto with_divergence =
          std::find_if(linear.modes.begin(), linear.modes.end(), [&](const ModeSensitivity& other) {
            return other.pattern == measured.pattern && other.rotated == measured.rotated &&
                   !other.divergence.empty();
          });
      if (with_divergence == linear.modes.end())
        throw argument_error("sensitivities: " + linear.name +
                             ": no divergence was measured; measure it, or plan by distortion");
      const std::vector<double> scale =
          divergence_scale(measured, measured.divergence.empty() ? *with_divergence : measured,
                           widths);
      for (std::size_t i = 0; i < mode.distortion.size(); ++i)
        mode.distortion[i] *= scale[i % levels];
    }
    make_falling(mode.distortion, levels);
    const bool stored = options.budget == BudgetKind::stored_bits;
    if (stored) {
      mode.fixed_bits = stored_mask_bits(measured.pattern, linear.rows, linear.columns);
      if (!by_row)
        mode.fixed_bits += double(linear.rows) *
                           (stored_grid_bits * double(most_grids(linear.columns, index_t(levels),
                                                                 measured.group_size)) +
                            stored_padding_bits);
    } else if (measured.group_size != linear.modes.front().group_size) {
      throw argument_error("sensitivities: " + linear.name +
                           ": several group sizes under a budget of code bits, which counts no "
                           "grids; plan for stored bits, or measure one group size");
    }
    const double row_grids = double(group_count(linear.columns, measured.group_size));
    for (std::size_t i = 0; i < mode.distortion.size(); ++i) {
      const double kept = stored ? channel * measured.kept[i / levels] : channel;
      double cost = kept * widths[i % levels];
      if (stored && by_row) cost = stored_row_bits(measured.pattern, cost);
      // The last term: a channel of which all is pruned must have a price too.
      if (stored)
        cost += stored_width_bits + (by_row ? stored_grid_bits * row_grids : 0) +
                1e-6 * double(i % levels);
      mode.cost.push_back(cost);
    }
    rates.modes.push_back(std::move(mode));
  }
  return rates;
}

/// Linears that are planned as one, by their index, each set in order of its first.
struct PlannedSet {
  std::vector<std::size_t> linears = {};
  bool shares_width = false;  ///< of all channels
};

inline std::vector<PlannedSet> planned_sets(const Sensitivities& sensitivities,
                                            const PlanOptions& options) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::map<std::string, std::size_t> of;
  for (std::size_t t = 0; t < options.together.size(); ++t)
    for (const std::string& name : options.together[t])
      if (!of.emplace(name, t).second)
        throw argument_error("together: expected every linear once, got " + name + " twice");
  std::vector<PlannedSet> sets;
  std::vector<std::size_t> at(options.together.size(), none);  // in sets
  for (std::size_t g = 0; g < sensitivities.linears.size(); ++g) {
    const auto found = of.find(sensitivities.linears[g].name);
    if (found == of.end()) {
      sets.push_back({{g}, false});
    } else if (at[found->second] == none) {
      at[found->second] = sets.size();
      sets.push_back({{g}, true});
    } else {
      sets[at[found->second]].linears.push_back(g);
    }
  }
  return sets;
}

/// Loss and bits of a linear at one width.
struct UniformRate {
  double bits = 0, loss = 0;
};

inline UniformRate uniform_rate(const RateMode& mode, std::size_t level) {
  UniformRate rate{mode.fixed_bits, 0};
  for (std::size_t i = level; i < mode.cost.size(); i += mode.widths.size()) {
    rate.bits += mode.cost[i];
    rate.loss += mode.distortion[i];
  }
  return rate;
}

}  // namespace detail

/// Chooses a pattern, a group size, a basis and widths for every linear of `sensitivities`, the least
/// predicted loss within the budget; uniform widths within the same budget when these are predicted
/// to lose less.
///
/// Losses of linears and channels are taken to add up. Deterministic.
/// @throws argument_error when the sensitivities hold nothing or not what the objective needs,
///         unattainable_error when no choice fits
inline ModelPlan plan_bits(const Sensitivities& sensitivities, const PlanOptions& options) {
  if (sensitivities.linears.empty())
    throw argument_error("sensitivities: expected at least one linear, got none");
  std::vector<LinearRates> rated;
  std::vector<double> weights;
  for (const LinearSensitivity& linear : sensitivities.linears) {
    rated.push_back(detail::rates_of(linear, sensitivities, options));
    weights.push_back(double(linear.rows * linear.columns));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);

  // What linears may spend.
  const double added =
      options.budget == BudgetKind::stored_bits ? options.added_bits_per_weight : 0;
  const double target = options.bits_per_weight - added;

  ModelPlan plan;
  plan.axis = sensitivities.solver.axis;
  plan.rotation = sensitivities.rotation;
  const std::vector<detail::PlannedSet> sets = detail::planned_sets(sensitivities, options);
  std::vector<LinearRates> set_rates;
  std::vector<double> set_weights;
  for (const detail::PlannedSet& set : sets) {
    std::vector<const LinearRates*> members;
    set_weights.push_back(0);
    for (const std::size_t g : set.linears) {
      members.push_back(&rated[g]);
      set_weights.back() += weights[g];
    }
    set_rates.push_back(set.shares_width ? shared_rates(members) : *members.front());
  }
  std::vector<RatePlan::Choice> choices(rated.size());
  double bits = 0;
  std::size_t taken = 0;  // sets
  const auto take = [&](const RatePlan& rates) {
    for (const RatePlan::Choice& choice : rates.linears) {
      const detail::PlannedSet& set = sets[taken++];
      for (const std::size_t g : set.linears) {
        choices[g] = choice;
        if (set.shares_width)
          choices[g].bits.assign(rated[g].modes.front().channels(), choice.bits.front());
      }
    }
    bits += rates.bits;
    plan.predicted_loss += rates.distortion;
    plan.bound += rates.bound;
  };
  const auto spend = [&](std::span<const LinearRates> of, double count) {
    const double least = least_bits(of) / count;
    if (!(least <= target * (1 + 1e-12)))
      throw unattainable_error("bits_per_weight: expected at least " +
                               number_text(std::ceil(1e4 * (least + added)) / 1e4) +
                               ", which the narrowest choice takes" +
                               (added > 0 ? " with " + number_text(std::round(1e4 * added) / 1e4) +
                                                " for what is stored beside the linears"
                                          : "") +
                               ", got " + number_text(options.bits_per_weight));
    take(allocate_rates(of, target * count));
  };
  if (options.scope == PlanScope::model) {
    spend(set_rates, total);
  } else {
    for (std::size_t t = 0; t < sets.size(); ++t)
      in_context(sensitivities.linears[sets[t].linears.front()].name,
                 [&] { spend(std::span(&set_rates[t], 1), set_weights[t]); });
  }
  plan.bits_per_weight = bits / total + added;

  // Uniform: one mode and one width for all linears, the best that fits.
  std::size_t uniform_mode = 0, uniform_level = 0;
  for (std::size_t m = 0; m < rated.front().modes.size(); ++m)
    for (std::size_t k = 0; k < sensitivities.widths.size(); ++k) {
      double spent = 0, loss = 0;
      bool fits = true;
      for (std::size_t g = 0; g < rated.size(); ++g) {
        const detail::UniformRate rate = detail::uniform_rate(rated[g].modes.at(m), k);
        // One width for all is stored once.
        const double widths = options.budget == BudgetKind::stored_bits
                                  ? stored_width_bits * double(rated[g].modes[m].channels())
                                  : 0;
        spent += rate.bits - widths;
        loss += rate.loss;
        if (options.scope == PlanScope::layer)
          fits = fits && rate.bits - widths <= target * weights[g] * (1 + 1e-9);
      }
      fits = fits && spent <= target * total * (1 + 1e-9);
      if (!fits || (plan.uniform_loss && loss >= *plan.uniform_loss)) continue;
      plan.uniform_loss = loss;
      plan.uniform_bits = sensitivities.widths[k];
      plan.uniform_pattern = to_string(sensitivities.linears.front().modes[m].pattern);
      plan.uniform_group_size = sensitivities.linears.front().modes[m].group_size;
      plan.uniform_rotated = sensitivities.linears.front().modes[m].rotated;
      uniform_mode = m;
      uniform_level = k;
    }
  plan.uniform_kept = plan.uniform_loss && *plan.uniform_loss < plan.predicted_loss;
  for (std::size_t g = 0; g < rated.size(); ++g) {
    const LinearSensitivity& linear = sensitivities.linears[g];
    const std::size_t mode = plan.uniform_kept ? uniform_mode : choices[g].mode;
    std::vector<std::uint8_t> widths = choices[g].bits;
    if (plan.uniform_kept)
      widths.assign(widths.size(), std::uint8_t(sensitivities.widths[uniform_level]));
    plan.linears.push_back({linear.name, linear.modes[mode].pattern, std::move(widths),
                            linear.modes[mode].group_size, linear.modes[mode].rotated});
  }
  return plan;
}

}  // namespace pare
