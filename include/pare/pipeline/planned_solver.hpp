// The solver of linears whose pattern, group size and widths are data.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// Solves linears whose pattern, group size and widths are known at run time only.
template <class B, class T>
class PlannedSolver {
 public:
  /// @param options  axis, grid, group_fit, damping, block_size, act_order and the search for masks;
  ///                 the rest must be unset, for the pattern, the group size and the widths say it
  /// @throws argument_error for an option that would be ignored
  explicit PlannedSolver(SolverOptions options) : options_(std::move(options)) {
    if (options_.group_size != 0)
      throw argument_error("group_size: expected none, a plan says it for every linear, got " +
                           std::to_string(options_.group_size));
    SolverOptions others = options_;
    others.group_fit = GroupFit::dense;  // goes with linears that have groups
    // These say what must be unset.
    const Solver<Dense> rounding(without_search(others));
    const Solver<Unstructured> pruning(with_pattern(others, unstructured(0)));
  }

  /// Factor of the linears that share these inputs and this pattern.
  Factor<B, T> prepare(const Pattern& pattern, const Calibration<B, T>& calibration) const {
    return with(pattern, 0, false, [&](auto solver) { return solver.prepare(calibration); });
  }

  /// See SparseGPTSolver::solve. Where nothing is pruned, `refine` needs a mask that is given.
  CompressedLinear<B, T> solve(const Pattern& pattern, index_t group_size,
                               const SolveInputs<B, T, true>& inputs) const {
    return std::move(solve_together(pattern, group_size, std::span(&inputs, 1)).front());
  }

  /// See SparseGPTSolver::solve_together; masks are given to all linears or to none.
  std::vector<CompressedLinear<B, T>> solve_together(
      const Pattern& pattern, index_t group_size,
      std::span<const SolveInputs<B, T, true>> linears) const {
    const auto masked = [](const SolveInputs<B, T, true>& inputs) {
      return inputs.mask.get().rows > 0;
    };
    const std::ptrdiff_t masks = std::count_if(linears.begin(), linears.end(), masked);
    if (masks != 0 && masks != std::ssize(linears))
      throw argument_error("mask: expected one for all linears or for none, got " +
                           std::to_string(masks) + " for " + std::to_string(linears.size()));
    return with(pattern, group_size, masks > 0,
                [&](auto solver) { return solver.solve_together(linears); });
  }

  /// Whether solve_together() solves linears side by side.
  bool solves_together() const {
    return options_.axis == ChannelAxis::output && options_.mask_search == MaskSearch::greedy &&
           !options_.refine;
  }

  /// The options given.
  const SolverOptions& options() const { return options_; }

 private:
  template <class Kind>
  using Solver =
      SparseGPTSolver<Compression<Kind, BaseQuantizer, MixedPrecision<Assigned>, DynamicSearch>, B,
                      T>;

  template <class F>
  auto with(const Pattern& pattern, index_t group_size, bool masked, F&& f) const {
    SolverOptions options = with_pattern(options_, pattern);
    options.group_size = group_size;
    if (group_size == 0) options.group_fit = GroupFit::dense;  // a whole row is as it is
    if (pattern.kind != PatternKind::unstructured) options.mask_region.reset();
    switch (pattern.kind) {
      case PatternKind::unstructured:
        return f(Solver<Unstructured>(options));
      case PatternKind::n_of_m:
        return f(Solver<NofM<>>(options));
      case PatternKind::dense:
        break;
    }
    options.mask_search = MaskSearch::greedy;  // there is no mask to search for
    options.refine = options.refine && masked;
    return f(Solver<Dense>(options));
  }

  SolverOptions options_;
};

}  // namespace pare
