// The solver of configurations that ask for more than the greedy sweep.
#pragma once

#include <chrono>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pare/solver/alternating.hpp"
#include "pare/solver/exact_solve.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// @cond  Doxygen takes it for the template again.
/// Solves linears with a mask that is searched for, or with weights that are solved exactly on a
/// greedy or a given mask; see SparseGPTSolver.
///
/// The greedy result is computed first. Then a mask is found, the weights that stay are solved
/// exactly, and where the configuration rounds, the sweep does so with the mask given and grids
/// fitted to the new weights. What has the lower loss, in closed form against W, is returned; the
/// result says which it is.
/// @tparam Config  Compression<...> with Alternating, Refined or DynamicSearch
template <class Config, class B, class T>
requires Config::searches class SparseGPTSolver<Config, B, T> {
 public:
  /// What solve() returns.
  using Compressed = CompressedLinear<B, T>;
  /// What solve() reads.
  using Inputs = SolveInputs<B, T, Config::assigned>;

  /// @throws argument_error or unattainable_error naming the option that does not fit
  explicit SparseGPTSolver(SolverOptions options)
      : options_(detail::validated<Config>(std::move(options))), greedy_(greedy_options()) {
    if constexpr (Config::quantizes) rounding_.emplace(with_pattern(without_search(options_), {}));
  }

  /// See SparseGPTSolver::prepare; linears that share the factor share what a search makes of H.
  Factor<B, T> prepare(detail::CalibrationArgument<B, T> given) const {
    Factor<B, T> factor = greedy_.prepare(given);
    if (alternating()) factor.inverses = std::make_shared<ShiftedInverses<B, T>>();
    return factor;
  }

  /// See SparseGPTSolver::solve. With `refine` a pattern or a mask is needed.
  Compressed solve(const Inputs& given) {
    Inputs inputs = given;
    inputs.name = {};
    return detail::in_linear(given.name, [&] { return solve_named(inputs); });
  }

  /// Compresses one linear: solve({.weights = W, .calibration = calibration}).
  Compressed solve(MatrixArgument<T> W, detail::CalibrationArgument<B, T> calibration) {
    return solve({.weights = W, .calibration = calibration});
  }

  /// See SparseGPTSolver::solve_together. Where masks are searched for or weights refined, the linears are
  /// solved one after the other.
  std::vector<Compressed> solve_together(std::span<const Inputs> linears) {
    return searching() ? detail::solve_in_turn(*this, linears) : greedy_.solve_together(linears);
  }

  /// Whether solve_together() solves linears side by side.
  bool solves_together() const { return !searching() && greedy_.solves_together(); }

  /// The options given, static values filled in.
  const SolverOptions& options() const { return options_; }

 private:
  template <class U>
  using Owner = typename B::template matrix<U>;
  using Greedy = SparseGPTSolver<detail::WithoutSearch<Config>, B, T>;
  using Rounding =
      SparseGPTSolver<std::conditional_t<Config::quantizes, detail::RoundingOnly<Config>,
                                         Compression<Dense, BaseQuantizer>>,
                      B, T>;

  bool searching() const { return alternating() || options_.refine; }
  bool alternating() const { return options_.mask_search == MaskSearch::alternating; }

  SolverOptions greedy_options() const {
    SolverOptions options = without_search(options_);
    if constexpr (!Config::prunes && !Config::quantizes) options.sparsity = 0.0;
    return options;
  }

  Compressed solve_named(const Inputs& inputs) {
    const MatrixView<const std::uint8_t> zero = inputs.mask.get();
    if (!Config::prunes && options_.refine && zero.rows == 0)
      throw argument_error(
          "mask: without a pattern only a mask that is given leaves weights to refine, got none; "
          "give solve() one, or leave refine unset");
    const auto start = std::chrono::steady_clock::now();
    const Factor<B, T>* const factor = inputs.factor.get();
    Compressed kept = factor != nullptr ? solve_all(inputs, *factor)
                                        : solve_all(inputs, prepare(inputs.calibration));
    kept.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return kept;
  }

  Compressed solve_all(const Inputs& given, const Factor<B, T>& factor) {
    Inputs inputs = given;
    inputs.factor = factor;
    Compressed greedy = greedy_.solve(inputs);
    if (!searching()) return greedy;
    Compressed found = search(inputs, factor, greedy);
    const bool better = found.loss < greedy.loss;
    greedy.greedy_loss = found.greedy_loss = greedy.loss;
    Compressed& kept = better ? found : greedy;
    if (better)
      verify_linear<B, T>(inputs.weights, inputs.calibration.get(), factor, found,
                          Config::quantizes, inputs.mask.get());
    return std::move(kept);
  }

  /// What comes of the search, whatever its loss.
  Compressed search(const Inputs& inputs, const Factor<B, T>& factor, const Compressed& greedy) {
    const MatrixView<const T> W = inputs.weights;
    const Calibration<B, T>& calibration = inputs.calibration.get();
    Owner<T> room;
    const MatrixView<const T> live = detail::live_weights<B, T>(W, factor, room);
    const detail::Normalized<B, T> linear(live, calibration, factor);
    detail::MaskedWeights<B, T> masked;
    if (alternating())
      masked = find_mask(linear, factor, inputs.mask.get(), greedy.block_size);
    else
      masked = {linear.normalize(greedy.weights.view()), linear.gather(greedy.mask.view())};
    Owner<T> hessian(W.cols, W.cols);
    linear.hessian(0, hessian.view());
    const auto A = detail::as_const(hessian.view());
    const auto marks = detail::as_const(masked.mask.view());
    detail::solve_exactly<B, T>(linear, A, marks, masked.weights.view());

    Compressed found;
    found.mask = linear.scatter(marks);
    found.weights = linear.restore(detail::as_const(masked.weights.view()), marks);
    if constexpr (Config::quantizes) {
      Inputs rounded = inputs;
      rounded.weights = found.weights.view();
      rounded.mask = detail::as_const(found.mask.view());
      found = rounding_->solve(rounded);
    } else {
      found.order = greedy.order;
      found.damping = greedy.damping;
      found.damping_retries = greedy.damping_retries;
    }
    describe(greedy, found);
    found.search_steps = masked.steps;
    masked.weights = linear.normalize(detail::as_const(found.weights.view()));
    found.row_loss = detail::row_losses<B, T>(linear, detail::as_const(masked.weights.view()), A);
    found.loss = std::accumulate(found.row_loss.begin(), found.row_loss.end(), 0.0);
    return found;
  }

  detail::MaskedWeights<B, T> find_mask(const detail::Normalized<B, T>& linear,
                                        const Factor<B, T>& factor,
                                        MatrixView<const std::uint8_t> zero,
                                        index_t block_size) const {
    Owner<std::uint8_t> given;
    if (zero.rows > 0) given = linear.gather(zero);
    const detail::Projection<B, T> project(linear.rows(), linear.cols(), pattern_of(options_),
                                           region(), block_size, detail::as_const(given.view()));
    ShiftedInverses<B, T> own;
    return detail::search_mask(linear, project, factor.inverses ? *factor.inverses : own);
  }

  MaskRegion region() const { return options_.mask_region.value_or(MaskRegion::block); }

  /// What a result was asked for, and how it was found.
  void describe(const Compressed& greedy, Compressed& found) const {
    found.block_size = greedy.block_size;
    found.pattern = greedy.pattern;
    found.given_mask = greedy.given_mask;
    found.custom_pattern = greedy.custom_pattern;
    found.mask_region = region();
    found.mask_search = options_.mask_search;
    found.refined = true;
  }

  SolverOptions options_;
  Greedy greedy_;
  std::optional<Rounding> rounding_;  // where the configuration rounds
};
/// @endcond

}  // namespace pare
