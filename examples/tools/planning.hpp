// The options of pare that plan bits from sensitivities, and their checks.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "common/compression_options.hpp"
#include "pare/core/text.hpp"
#include "pare/pipeline/run/run_inputs.hpp"

namespace tool {

inline void add_sensitivity_options(CLI::App& app, CompressionFlags& flags) {
  add_value(app, "--sensitivity", flags.sensitivity,
            "read what the plan is made from, or measure it and write it here", "FILE");
  add_value(app, "--kl-windows", flags.kl_windows,
            "windows to measure the kl on (default: as many as half a compression's time allows)");
}

inline void add_plan_options(CLI::App& app, CompressionFlags& flags) {
  begin_group(app, "Plan of widths");
  add_value(app, "--target-bits-per-weight", flags.target_stored_bits,
            "mean bits per weight with grids, masks and widths counted, for the whole model");
  add_value(app, "--scope", flags.scope,
            "who meets the target: every layer by itself (default) or the model as a whole");
  add_value(app, "--importance", flags.importance,
            "what bits are spent on: five signals (default with --scope layer), the distortion by "
            "grid and factor, or the measured kl (default with --scope model)");
  add_flag(app, "--fused-widths", flags.fused_widths,
           "one width for q, k and v together, for gate and up, and for every other linear, as "
           "programs that serve a model load them");
  add_sensitivity_options(app, flags);
  add_value(
      app, "--plan-swaps", flags.plan_swaps,
      "trades of bits between two linears to try on the plan; those are kept that lower the kl "
      "of the whole model (default: 0)");
}

namespace detail {

inline void check_plan_values(const CompressionFlags& flags) {
  if (flags.scope && *flags.scope != "layer" && *flags.scope != "model")
    throw unknown_value("--scope", *flags.scope, "scope", {"layer", "model"});
  if (flags.importance && *flags.importance != "five" && *flags.importance != "distortion" &&
      *flags.importance != "kl")
    throw unknown_value("--importance", *flags.importance, "importance",
                        {"five", "distortion", "kl"});
  if (flags.target_average_bits && flags.target_stored_bits)
    throw usage_error(
        "--target-avg-bits with --target-bits-per-weight: a run has one target; "
        "leave one of them out");
  if (!has_target(flags))
    for (const auto& [given, option] : {std::pair{flags.scope.has_value(), "--scope"},
                                        {flags.importance.has_value(), "--importance"},
                                        {flags.sensitivity.has_value(), "--sensitivity"},
                                        {flags.kl_windows.has_value(), "--kl-windows"},
                                        {flags.plan_swaps.has_value(), "--plan-swaps"},
                                        {flags.fused_widths, "--fused-widths"}})
      if (given)
        throw usage_error(std::string(option) +
                          " without a target: there are no bits to share out; add "
                          "--target-avg-bits 3.0");
  if (flags.kl_windows && *flags.kl_windows < 1)
    throw usage_error("--kl-windows " + std::to_string(*flags.kl_windows) +
                      ": there is nothing to measure on; write 1 or more");
}

inline void check_swaps(const CompressionFlags& flags, bool model_scope) {
  if (!flags.plan_swaps) return;
  if (!model_scope)
    throw usage_error("--plan-swaps " + std::to_string(*flags.plan_swaps) +
                      " with --scope layer: linears that meet the target each by itself have "
                      "nothing to trade; write --scope model");
  if (*flags.plan_swaps < 1)
    throw usage_error("--plan-swaps " + std::to_string(*flags.plan_swaps) +
                      ": nothing would be tried; write 1 or more, or leave it out");
  if (flags.fused_widths)
    throw usage_error("--plan-swaps " + std::to_string(*flags.plan_swaps) +
                      " with --fused-widths: linears that share a width cannot trade bits; leave "
                      "one of them out");
}

/// Refuses what a plan cannot do.
inline void check_plan(const CompressionFlags& flags, bool model_scope, const std::string& by) {
  if (flags.target_stored_bits && by == "five")
    throw usage_error(
        "--importance five with --target-bits-per-weight: a score says nothing of "
        "what is stored; write --importance distortion or kl");
  if (model_scope && by == "five")
    throw usage_error(
        "--importance five with --scope model: scores of different linears have no "
        "common unit; write --importance kl");
  if (!model_scope && by == "kl")
    throw usage_error(
        "--importance kl with --scope layer: the kl of a linear does not tell its "
        "channels apart; write --importance distortion, or --scope model");
  if (by != "five" && flags.bit_method == "quantile")
    throw usage_error("--bit-method quantile with --importance " + by +
                      ": a plan spends bits along curves, not by rank; write --bit-method budget");
  const std::vector<int>& tiers = pare::default_tiers();
  if (by == "kl" && std::find(tiers.begin(), tiers.end(), *flags.wbits) == tiers.end())
    throw usage_error("--wbits " + std::to_string(*flags.wbits) +
                      " with --importance kl: the kl is measured at this width, which must be one "
                      "of the tiers " +
                      pare::tiers_text(tiers) + "; write --wbits 3");
  if (flags.kl_windows && by != "kl")
    throw usage_error("--kl-windows with --importance " + by +
                      ": no kl is measured; write --importance kl");
  if (flags.target_stored_bits && !(*flags.target_stored_bits > 0))
    throw usage_error("--target-bits-per-weight " + pare::number_text(*flags.target_stored_bits) +
                      ": weights take bits; write for instance --target-bits-per-weight 3.0");
}

}  // namespace detail

/// What the command line asks to plan; none when every linear chooses by itself as it is solved.
/// @param request  what checked(flags) gave
/// @throws usage_error for a combination that cannot be, or in which an option would be ignored
inline std::optional<pare::FolderPlan> planned(const CompressionFlags& flags,
                                               const pare::CompressionRequest& request) {
  detail::check_plan_values(flags);
  if (!detail::has_target(flags)) return std::nullopt;
  const bool model_scope =
      flags.scope.value_or(flags.target_stored_bits ? "model" : "layer") == "model";
  const std::string by = flags.importance.value_or(model_scope                ? "kl"
                                                   : flags.target_stored_bits ? "distortion"
                                                                              : "five");
  detail::check_swaps(flags, model_scope);
  detail::check_plan(flags, model_scope, by);
  if (by == "five") {
    if (flags.fused_widths)
      throw usage_error(
          "--fused-widths with --importance five: scores choose widths of single channels; write "
          "--scope model, or --importance distortion");
    if (flags.sensitivity)
      throw usage_error(
          "--sensitivity with --importance five: scores are taken while a linear is "
          "compressed, there is nothing to keep; write --scope model");
    return std::nullopt;
  }
  pare::FolderPlan plan;
  plan.options.scope = model_scope ? pare::PlanScope::model : pare::PlanScope::layer;
  plan.options.objective =
      by == "kl" ? pare::PlanObjective::divergence : pare::PlanObjective::distortion;
  plan.options.budget =
      flags.target_stored_bits ? pare::BudgetKind::stored_bits : pare::BudgetKind::code_bits;
  plan.options.bits_per_weight =
      flags.target_stored_bits.value_or(flags.target_average_bits.value_or(0));
  plan.sensitivity.solver = pare::without_choices(request.solver);
  plan.sensitivity.patterns = {request.pattern()};
  if (flags.sparsity_auto)
    plan.sensitivity.patterns = {{},
                                 pare::n_of_m(2, 4),
                                 pare::unstructured(0.5),
                                 pare::unstructured(0.7)};
  plan.sensitivity.group_sizes = {request.solver.group_size};
  if (flags.group_size_auto && flags.target_stored_bits) {
    plan.sensitivity.group_sizes = {64, 128, 32, 0};
    plan.sensitivity.whole_groups = true;
  }
  plan.sensitivity.choose_rotation = flags.rotate == "auto";
  plan.sensitivity.widths = pare::default_tiers();
  plan.sensitivity.divergence_widths.clear();
  if (by == "kl") plan.sensitivity.divergence_widths = {*flags.wbits};
  plan.sensitivity.divergence_windows = flags.kl_windows;
  plan.swaps = {.swaps = flags.plan_swaps.value_or(0), .windows = flags.kl_windows};
  if (flags.sensitivity) plan.file = *flags.sensitivity;
  return plan;
}

/// A plan in one or two lines.
inline std::string plan_text(const pare::ModelPlan& plan, const pare::FolderPlan& request) {
  using pare::number_text;
  const bool kl = request.options.objective == pare::PlanObjective::divergence;
  std::string text =
      "plan: " + number_text(plan.bits_per_weight) +
      (request.options.budget == pare::BudgetKind::stored_bits ? " stored bits per weight"
                                                               : " code bits per weight") +
      ", predicted " + (kl ? "kl " : "distortion ") + number_text(plan.predicted_loss) +
      ", at least " + number_text(plan.bound) + " for any choice";
  if (request.sensitivity.choose_rotation)
    text += "; inputs of " +
            std::to_string(std::ranges::count_if(plan.linears, &pare::LinearPlan::rotated)) +
            " of " + std::to_string(plan.linears.size()) + " linears rotated";
  if (!plan.uniform_loss) return text + "; no uniform width fits\n";
  text += "; uniform " + std::to_string(*plan.uniform_bits) + " bits (" + plan.uniform_pattern +
          (plan.uniform_group_size > 0 ? ", groups of " + std::to_string(plan.uniform_group_size)
                                       : "") +
          ") " + number_text(*plan.uniform_loss);
  return text + (plan.uniform_kept ? ", which is kept\n" : "\n");
}

/// What trades have made of a plan, in a line.
inline std::string swaps_text(const pare::SwappedPlan& swapped) {
  return "swaps: " + std::to_string(swapped.kept) + " of " + std::to_string(swapped.tried) +
         " trades kept, kl " + pare::number_text(swapped.divergence) + " before, " +
         pare::number_text(swapped.swapped_divergence) + " after, on " +
         std::to_string(swapped.windows) + " windows\n";
}

}  // namespace tool
