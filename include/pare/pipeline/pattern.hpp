// The sparsity pattern of one linear as data, and its solver with given widths.
#pragma once

#include <span>
#include <string>

#include "pare/core/scalar.hpp"
#include "pare/pipeline/dispatch.hpp"

namespace pare::inline PARE_TARGET {

/// What is pruned of one linear.
struct LinearPattern {
  /// Which pattern.
  PatternKind kind = PatternKind::dense;
  double sparsity = 0;    ///< unstructured: share of weights zeroed, (0, 1)
  int zeros = 0, of = 0;  ///< n:m: weights zeroed of every `of` inputs

  /// Whether two linears lose the same.
  friend bool operator==(const LinearPattern&, const LinearPattern&) = default;
};

/// "dense", "50%" or "2:4".
inline std::string to_string(const LinearPattern& pattern) {
  switch (pattern.kind) {
    case PatternKind::unstructured:
      return number_text(100 * pattern.sparsity) + "%";
    case PatternKind::n_of_m:
      return std::to_string(pattern.zeros) + ":" + std::to_string(pattern.of);
    case PatternKind::dense:
      break;
  }
  return "dense";
}

/// The pattern that a request's options describe.
inline LinearPattern pattern_of(const CompressionRequest& request) {
  const SolverOptions& o = request.solver;
  return {request.pattern, o.sparsity.value_or(0), o.zeros.value_or(0), o.of.value_or(0)};
}

/// Solves linears whose pattern and widths are known at run time only.
template <class B, class T>
class PlannedSolver {
 public:
  /// @param options  axis, grid, damping, block_size and act_order; the rest must be unset, for the
  ///                 pattern and the widths say it
  /// @throws argument_error for an option that would be ignored
  explicit PlannedSolver(SolverOptions options) : options_(std::move(options)) {
    with({}, [](const auto&) { return 0; });
  }

  /// Factor of the linears that share these inputs and this pattern.
  Factor<B, T> prepare(const LinearPattern& pattern, const Calibration<B, T>& calibration) const {
    return with(pattern, [&](auto solver) { return solver.prepare(calibration); });
  }

  /// See SparseGPTSolver::solve.
  CompressedLinear<B, T> solve(const LinearPattern& pattern, MatrixView<const T> W,
                               const Calibration<B, T>& calibration, const Factor<B, T>& factor,
                               std::span<const std::uint8_t> bits) const {
    return with(pattern, [&](auto solver) { return solver.solve(W, calibration, factor, bits); });
  }

  /// The options given.
  const SolverOptions& options() const { return options_; }

 private:
  template <class Pattern>
  using Solver =
      SparseGPTSolver<Compression<Pattern, BaseQuantizer, MixedPrecision<Assigned>>, B, T>;

  template <class F>
  auto with(const LinearPattern& pattern, F&& f) const {
    SolverOptions options = options_;
    switch (pattern.kind) {
      case PatternKind::unstructured:
        options.sparsity = pattern.sparsity;
        return f(Solver<Unstructured>(options));
      case PatternKind::n_of_m:
        options.zeros = pattern.zeros;
        options.of = pattern.of;
        return f(Solver<NofM<>>(options));
      case PatternKind::dense:
        break;
    }
    return f(Solver<Dense>(options));
  }

  SolverOptions options_;
};

}  // namespace pare
