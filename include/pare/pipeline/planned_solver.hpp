// The solver of linears whose pattern, group size and widths are data.
#pragma once

#include <utility>

#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// Solves linears whose pattern, group size and widths are known at run time only.
template <class B, class T>
class PlannedSolver {
 public:
  /// @param options  axis, grid, group_fit, damping, block_size and act_order; the rest must be
  ///                 unset, for the pattern, the group size and the widths say it
  /// @throws argument_error for an option that would be ignored
  explicit PlannedSolver(SolverOptions options) : options_(std::move(options)) {
    if (options_.group_size != 0)
      throw argument_error("group_size: expected none, a plan says it for every linear, got " +
                           std::to_string(options_.group_size));
    SolverOptions others = options_;
    others.group_fit = GroupFit::dense;  // goes with linears that have groups
    Solver<Dense>{others};               // says what must be unset
  }

  /// Factor of the linears that share these inputs and this pattern.
  Factor<B, T> prepare(const Pattern& pattern, const Calibration<B, T>& calibration) const {
    return with(pattern, 0, [&](auto solver) { return solver.prepare(calibration); });
  }

  /// See SparseGPTSolver::solve.
  CompressedLinear<B, T> solve(const Pattern& pattern, index_t group_size,
                               const SolveInputs<B, T, true>& inputs) const {
    return with(pattern, group_size, [&](auto solver) { return solver.solve(inputs); });
  }

  /// The options given.
  const SolverOptions& options() const { return options_; }

 private:
  template <class Kind>
  using Solver = SparseGPTSolver<Compression<Kind, BaseQuantizer, MixedPrecision<Assigned>>, B, T>;

  template <class F>
  auto with(const Pattern& pattern, index_t group_size, F&& f) const {
    SolverOptions options = with_pattern(options_, pattern);
    options.group_size = group_size;
    if (group_size == 0) options.group_fit = GroupFit::dense;  // a whole row is as it is
    switch (pattern.kind) {
      case PatternKind::unstructured:
        return f(Solver<Unstructured>(options));
      case PatternKind::n_of_m:
        return f(Solver<NofM<>>(options));
      case PatternKind::dense:
        break;
    }
    return f(Solver<Dense>(options));
  }

  SolverOptions options_;
};

}  // namespace pare
