// The solver of linears whose pattern and widths are data.
#pragma once

#include <utility>

#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// Solves linears whose pattern and widths are known at run time only.
template <class B, class T>
class PlannedSolver {
 public:
  /// @param options  axis, grid, damping, block_size and act_order; the rest must be unset, for the
  ///                 pattern and the widths say it
  /// @throws argument_error for an option that would be ignored
  explicit PlannedSolver(SolverOptions options) : options_(std::move(options)) {
    Solver<Dense>{options_};  // says what must be unset
  }

  /// Factor of the linears that share these inputs and this pattern.
  Factor<B, T> prepare(const Pattern& pattern, const Calibration<B, T>& calibration) const {
    return with(pattern, [&](auto solver) { return solver.prepare(calibration); });
  }

  /// See SparseGPTSolver::solve.
  CompressedLinear<B, T> solve(const Pattern& pattern,
                               const SolveInputs<B, T, true>& inputs) const {
    return with(pattern, [&](auto solver) { return solver.solve(inputs); });
  }

  /// The options given.
  const SolverOptions& options() const { return options_; }

 private:
  template <class Kind>
  using Solver = SparseGPTSolver<Compression<Kind, BaseQuantizer, MixedPrecision<Assigned>>, B, T>;

  template <class F>
  auto with(const Pattern& pattern, F&& f) const {
    const SolverOptions options = with_pattern(options_, pattern);
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
