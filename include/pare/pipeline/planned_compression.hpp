// Compresses a model as a plan says.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/plan.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Compresses every linear as a plan says.
template <class B, class T>
struct PlannedWork {
  PlannedSolver<B, T> solver;
  std::map<std::string, const LinearPlan*> linears;

  const LinearPlan& of(const std::string& name) const {
    const auto found = linears.find(name);
    if (found == linears.end())
      throw argument_error("plan: it says nothing of " + name + ", which is selected");
    return *found->second;
  }
  bool rotated(const std::string& name) const { return of(name).rotated; }
  Pattern pattern(const std::string& name) const { return of(name).pattern; }
  Factor<B, T> prepare(const std::string& name, const Calibration<B, T>& calibration) const {
    return solver.prepare(of(name).pattern, calibration);
  }
  std::vector<CompressedLinear<B, T>> solve(std::span<const LinearToSolve<T>> asked,
                                            const Calibration<B, T>& calibration,
                                            const Factor<B, T>& factor) const {
    std::vector<CompressedLinear<B, T>> solved;
    std::vector<SolveInputs<B, T, true>> inputs;  // neighbours with one group size
    for (std::size_t i = 0; i < asked.size(); ++i) {
      const LinearPlan& plan = of(asked[i].name);
      inputs.push_back({.weights = asked[i].weights,
                        .calibration = calibration,
                        .factor = factor,
                        .bits = plan.bits,
                        .mask = asked[i].zero,
                        .name = asked[i].name});
      if (i + 1 < asked.size() && of(asked[i + 1].name).group_size == plan.group_size) continue;
      for (auto& linear : solver.solve_together(plan.pattern, plan.group_size, inputs))
        solved.push_back(std::move(linear));
      inputs.clear();
    }
    return solved;
  }
};

}  // namespace detail

/// Compresses a model as a plan says; otherwise as the other compress_model.
/// @param model     in the backend's memory
/// @param windows   calibration tokens
/// @param options   options.solver: damping, block_size, act_order, grid and group_fit; what the plan says
///                  must be unset
/// @param plan      of plan_bits, or written by hand
/// @param progress  what is told while it runs
/// @throws also argument_error when the plan names a linear twice or does not fit the model or the
///         selection, is made for another rotation, or with options.magnitude; invariant_error when a linear's widths are not the
///         plan's
template <class M>
Statistics compress_model(M& model, const CalibrationWindows& windows,
                          const ModelCompressionOptions& options, const ModelPlan& plan,
                          const CompressionProgress& progress = {}) {
  LayerStream<M> stream = layers_in_memory(model);
  return compress_model(model, stream, windows, options, plan, progress);
}

/// The same for decoder layers that come one at a time; those of `model` are not looked at.
template <class M>
Statistics compress_model(const M& model, LayerStream<M>& stream, const CalibrationWindows& windows,
                          const ModelCompressionOptions& options, const ModelPlan& plan,
                          const CompressionProgress& progress = {}) {
  using B = typename M::backend_type;
  using T = compute_scalar<typename M::scalar_type>;
  if (options.magnitude)
    throw argument_error("magnitude: a plan calibrates, which magnitude pruning does not");
  if (options.rotation != plan.rotation) {
    const auto text = [](const std::optional<kernels::HadamardRotation>& rotation) {
      return rotation ? "the rotation with seed " + std::to_string(rotation->seed) : "no rotation";
    };
    throw argument_error("rotation: the plan is made for " + text(plan.rotation) + ", got " +
                         text(options.rotation));
  }
  SolverOptions solver_options = options.solver;
  solver_options.axis = plan.axis;
  detail::PlannedWork<B, T> work{PlannedSolver<B, T>(solver_options), {}};
  for (const LinearPlan& linear : plan.linears)
    if (!work.linears.emplace(linear.name, &linear).second)
      throw argument_error("plan: expected every linear once, got " + linear.name + " twice");
  for (index_t i = 0; i < stream.count; ++i)
    for (const std::string& name : stream.names(i))
      if (options.selection.selects(i, name)) work.of(name);
  Statistics statistics = detail::compress_layers(model, stream, windows, options, progress,
                                                  detail::linear_work<B, T>(work));
  require_counted(statistics, true);
  if (statistics.linears.size() != plan.linears.size())
    throw argument_error("plan: it has " + std::to_string(plan.linears.size()) +
                         " linears, of which " + std::to_string(statistics.linears.size()) +
                         " are selected");
  for (const LinearStatistics& linear : statistics.linears) {
    std::map<int, index_t> planned;
    for (const std::uint8_t bits : work.of(linear.name).bits) ++planned[bits];
    if (linear.group_size != work.of(linear.name).group_size)
      throw invariant_error(3, "the group size is not that of the plan", linear.name);
    if (planned != linear.bits_histogram)
      throw invariant_error(1, "the widths are not those of the plan", linear.name);
  }
  return statistics;
}

}  // namespace pare
