// A plan improved by trades: one linear gets bits that another gives, kept where the KL falls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pare/kernels/random.hpp"
#include "pare/model/divergence.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/sensitivity.hpp"

namespace pare::inline PARE_TARGET {

/// Which trades are tried, and on what they are measured.
struct SwapOptions {
  /// Trades that are tried, each between two linears.
  index_t swaps = 0;
  /// Windows that the KL is measured on, the first of the calibration text; none: as many as the
  /// sensitivities', 4 at least where there are so many.
  std::optional<index_t> windows = {};
  std::uint64_t seed = 1;  ///< which linears trade how much
};

/// What became of a plan. KL is that of the model whose linears are all compressed as the plan says,
/// each by the moments of its inputs in the dense model, nats per token.
struct SwappedPlan {
  ModelPlan plan;                 ///< within the budget of the one given
  index_t tried = 0, kept = 0;    ///< trades
  index_t windows = 0;            ///< that the KL was measured on
  double divergence = 0;          ///< KL by the plan given
  double swapped_divergence = 0;  ///< KL by `plan`, at most that
};

namespace detail {

/// What a plan spends on one linear, and where it stands in the tables.
struct SpentRate {
  double bits = 0, loss = 0;
};

/// @param rates   of the linear
/// @param linear  with the modes that `rates` has, in this order
/// @param plan    of this linear
/// @throws argument_error when the plan chooses what was not measured
inline SpentRate spent_rate(const LinearRates& rates, const LinearSensitivity& linear,
                            const LinearPlan& plan) {
  for (std::size_t m = 0; m < linear.modes.size(); ++m) {
    if (linear.modes[m].pattern != plan.pattern || linear.modes[m].group_size != plan.group_size ||
        linear.modes[m].rotated != plan.rotated)
      continue;
    const RateMode& mode = rates.modes[m];
    const std::size_t levels = mode.widths.size();
    SpentRate spent{mode.fixed_bits, 0};
    for (std::size_t c = 0; c < plan.bits.size(); ++c) {
      const auto level = std::find(mode.widths.begin(), mode.widths.end(), int(plan.bits[c]));
      if (level == mode.widths.end() || plan.bits.size() != mode.channels()) break;
      const std::size_t at = c * levels + std::size_t(level - mode.widths.begin());
      spent.bits += mode.cost[at];
      spent.loss += mode.distortion[at];
      if (c + 1 == plan.bits.size()) return spent;
    }
  }
  throw argument_error("plan: " + linear.name +
                       ": its pattern, group size, basis and widths were not "
                       "measured");
}

/// A model of which every linear can be compressed anew, alone, by the moments of its inputs in the
/// dense model.
template <class M>
class RecompressedModel {
  using B = typename M::backend_type;
  using S = typename M::scalar_type;
  using T = compute_scalar<S>;

 public:
  /// Goes through the calibration text once. Holds a second model and H of every input.
  /// @param dense        needed as long as this
  /// @param windows      calibration tokens
  /// @param sensitivity  how linears are solved, and which
  RecompressedModel(const M& dense, const CalibrationWindows& windows,
                    const SensitivityOptions& sensitivity)
      : dense_(dense),
        model_(dense),
        solver_(sensitivity.solver),
        rotation_(sensitivity.rotation),
        both_(measured_rotations(sensitivity).size() > 1) {
    const std::span<const std::int32_t> ids(windows.ids.data(),
                                            std::size_t(windows.count() * windows.seqlen));
    Walk<M> walk(dense, ids, windows.seqlen, sensitivity.batch_tokens.value_or(batch_tokens<B>));
    walk.embed_all();
    const index_t layers = index_t(dense.layers.size());
    calibrations_.reserve(dense.layers.size());
    for (index_t i = 0; i < layers; ++i) {
      calibrations_.push_back(
          layer_calibrations(walk, i, dense.layers[std::size_t(i)], sensitivity.selection,
                             both_ ? std::nullopt : rotation_, i + 1 == layers));
      const auto linears = dense.layers[std::size_t(i)].linears();
      for (std::size_t l = 0; l < linears.size(); ++l)
        if (sensitivity.selection.selects(i, linears[l]->name))
          places_.push_back({std::size_t(i), l});
    }
  }

  /// The model as it is now.
  const M& model() const { return model_; }
  /// How many linears are compressed, in the order of the sensitivities.
  std::size_t count() const { return places_.size(); }

  /// Compresses one linear as a plan says, from its dense weights.
  void compress(std::size_t index, const LinearPlan& plan) {
    const Place at = places_[index];
    const Linear<B, S>& dense = *std::as_const(dense_.layers[at.layer]).linears()[at.linear];
    const Calibration<B, T>& kept = *calibrations_[at.layer][std::size_t(dense.input)];
    Linear<B, S>& linear = linear_at(index);
    in_context(dense.name, [&] {
      MatrixView<const T> W = dense_weights(dense, converted_);
      std::optional<kernels::HadamardRotation> rotation;
      if (plan.rotated) rotation = rotation_;
      std::optional<Calibration<B, T>> turned;
      if (plan.rotated && both_) turned = turned_calibration<B, T>(kept, *rotation);
      const Calibration<B, T>& calibration = turned ? *turned : kept;
      if (rotation) W = turned_rows<B, T, T>(W, *rotation, turned_);
      auto solved = solver_.solve(plan.pattern, plan.group_size,
                                  {.weights = W,
                                   .calibration = calibration,
                                   .factor = solver_.prepare(plan.pattern, calibration),
                                   .bits = plan.bits});
      set_weights(linear, solved, rotation);
    });
  }

  /// The weights of a linear, to be put back.
  typename B::template matrix<S> weights(std::size_t index) { return linear_at(index).weight; }
  void put_back(std::size_t index, typename B::template matrix<S>&& weights) {
    linear_at(index).weight = std::move(weights);
  }

 private:
  /// Of a linear that is compressed.
  struct Place {
    std::size_t layer, linear;
  };

  Linear<B, S>& linear_at(std::size_t index) {
    return *model_.layers[places_[index].layer].linears()[places_[index].linear];
  }

  const M& dense_;
  M model_;
  PlannedSolver<B, T> solver_;
  std::optional<kernels::HadamardRotation> rotation_;
  bool both_;  // inputs are kept as they are, and turned where a plan says so
  std::vector<std::vector<std::optional<Calibration<B, T>>>> calibrations_;  // layers, inputs
  std::vector<Place> places_;
  typename B::template matrix<T> converted_, turned_;  // (out, in) of the linear at work
};

}  // namespace detail

/// Tries trades on a plan: a linear gets bits that another one gives, each spends its own by its
/// rates, both are compressed anew, and the trade is kept where the KL of the whole model falls. So
/// it is measured how linears act together, which a plan takes to add up. The KL never rises, the
/// budget holds, and the same call gives the same plan. A plan that kept uniform widths stays as it
/// is.
///
/// Needs a second model and H of every input in memory.
/// @param model          dense; it stays so
/// @param windows        calibration tokens
/// @param sensitivity    what was measured
/// @param sensitivities  by measure_sensitivities of the same
/// @param plan           by plan_bits of these
/// @param options        that it was made for; scope model
/// @param swaps          which trades
/// @param advanced       told the share of trades done, 0..1; may be empty
/// @throws argument_error when linears do not share a budget or share a width, windows lack, or the
///         plan is another's
/// Source: Sieberling et al., "EvoPress" (2024), level-switch mutation, here from the optimum of the
/// additive model.
template <class M>
SwappedPlan swap_levels(const M& model, const CalibrationWindows& windows,
                        const SensitivityOptions& sensitivity, const Sensitivities& sensitivities,
                        const ModelPlan& plan, const PlanOptions& options, const SwapOptions& swaps,
                        const std::function<void(double)>& advanced = {}) {
  if (options.scope != PlanScope::model)
    throw argument_error(
        "scope: expected model, got layer: linears that meet the target each by "
        "itself have nothing to trade");
  if (!options.together.empty())
    throw argument_error("together: linears that share a width cannot trade bits; leave it empty");
  if (swaps.swaps < 0)
    throw argument_error("swaps: expected 0 or more, got " + std::to_string(swaps.swaps));
  if (plan.linears.size() != sensitivities.linears.size())
    throw argument_error("plan: expected " + std::to_string(sensitivities.linears.size()) +
                         " linears, got " + std::to_string(plan.linears.size()));
  SwappedPlan result{.plan = plan};
  result.windows =
      std::min(windows.count(),
               swaps.windows.value_or(std::max<index_t>(4, sensitivities.divergence_windows)));
  if (result.windows < 1)
    throw argument_error("windows: expected at least 1, got " + std::to_string(result.windows));

  const std::size_t count = plan.linears.size();
  std::vector<LinearRates> rates;
  std::vector<detail::SpentRate> spent;
  rates.reserve(count);
  spent.reserve(count);
  double weights = 0;
  for (std::size_t g = 0; g < count; ++g) {
    const LinearSensitivity& linear = sensitivities.linears[g];
    rates.push_back(detail::rates_of(linear, sensitivities, options));
    spent.push_back(detail::spent_rate(rates.back(), linear, plan.linears[g]));
    weights += double(linear.rows * linear.columns);
  }
  detail::RecompressedModel<M> compressed(model, windows, sensitivity);
  if (compressed.count() != count)
    throw argument_error("plan: expected " + std::to_string(compressed.count()) +
                         " linears, which are selected, got " + std::to_string(count));
  for (std::size_t g = 0; g < count; ++g) compressed.compress(g, plan.linears[g]);
  ReferencePredictions<M> reference(
      model, std::span(windows.ids).first(std::size_t(result.windows * windows.seqlen)),
      windows.seqlen);
  result.divergence = result.swapped_divergence = reference.divergence(compressed.model());

  std::uint64_t state = kernels::FillNormal<float>::mix(swaps.seed);
  const auto draw = [&](std::size_t below) {
    state = kernels::FillNormal<float>::mix(state + 0x9e3779b97f4a7c15ull);
    return std::size_t(state % below);
  };
  // One linear with another budget; none where that is below its least or changes nothing.
  struct Choice {
    LinearPlan plan;
    detail::SpentRate spent;
  };
  const auto choose = [&](std::size_t g, double bits) -> std::optional<Choice> {
    const std::span<const LinearRates> of(&rates[g], 1);
    if (!(least_bits(of) <= bits)) return std::nullopt;
    const RatePlan chosen = allocate_rates(of, bits);
    const ModeSensitivity& mode = sensitivities.linears[g].modes[chosen.linears[0].mode];
    Choice choice{{plan.linears[g].name, mode.pattern, chosen.linears[0].bits, mode.group_size,
                   mode.rotated},
                  {chosen.bits, chosen.distortion}};
    const LinearPlan& now = result.plan.linears[g];
    if (choice.plan.pattern == now.pattern && choice.plan.bits == now.bits &&
        choice.plan.group_size == now.group_size && choice.plan.rotated == now.rotated)
      return std::nullopt;
    return choice;
  };
  // Uniform widths have no order in which a linear would give some of them.
  const index_t trades = count > 1 && !plan.uniform_kept ? swaps.swaps : 0;
  for (; result.tried < trades; ++result.tried) {
    if (advanced) advanced(double(result.tried) / double(trades));
    const std::size_t up = draw(count), down = (up + 1 + draw(count - 1)) % count;
    // A half to an eighth of a bit for every weight of the smaller one.
    const auto size = [&](std::size_t g) {
      return double(sensitivities.linears[g].rows * sensitivities.linears[g].columns);
    };
    const double traded = std::min(size(up), size(down)) / double(2 << draw(3));
    const auto less = choose(down, spent[down].bits - traded);
    if (!less) continue;
    const auto more = choose(up, spent[up].bits + (spent[down].bits - less->spent.bits));
    if (!more) continue;
    auto up_before = compressed.weights(up), down_before = compressed.weights(down);
    compressed.compress(up, more->plan);
    compressed.compress(down, less->plan);
    const double divergence = reference.divergence(compressed.model());
    if (!(divergence < result.swapped_divergence)) {
      compressed.put_back(up, std::move(up_before));
      compressed.put_back(down, std::move(down_before));
      continue;
    }
    result.swapped_divergence = divergence;
    ++result.kept;
    for (const auto& [g, choice] : {std::pair{up, &*more}, {down, &*less}}) {
      result.plan.predicted_loss += choice->spent.loss - spent[g].loss;
      result.plan.bits_per_weight += (choice->spent.bits - spent[g].bits) / weights;
      result.plan.linears[g] = choice->plan;
      spent[g] = choice->spent;
    }
  }
  return result;
}

}  // namespace pare
