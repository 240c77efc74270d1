// SparseGPTSolver: prunes and quantizes one linear together, with error feedback.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/solver/block_loop.hpp"
#include "pare/solver/choose_bits.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/solver/custom_parts.hpp"
#include "pare/solver/fit_grids.hpp"
#include "pare/solver/inputs.hpp"
#include "pare/solver/options.hpp"
#include "pare/solver/order.hpp"
#include "pare/solver/stack.hpp"
#include "pare/solver/verify.hpp"

namespace pare::inline PARE_TARGET {

/// Solves linears: prune, quantize, feed every error forward to the columns not yet visited.
///
/// Source: Frantar & Alistarh 2023 (SparseGPT), Algorithm 1; Frantar et al. 2023 (GPTQ) for the
/// rounding and act-order. One solver serves linears of any shape; its workspace grows to the
/// largest and is reused. Deterministic: same input, same backend, same bytes out.
/// @tparam Config  Compression<...>
template <class Config, class B, class T>
class SparseGPTSolver {
  static_assert(detail::is_compression<Config>,
                "pare: SparseGPTSolver<Config, ...> with a Config that is not a Compression<...>: "
                "it says what to do with the weights; write for instance "
                "Compression<Unstructured, BaseQuantizer>");
  static_assert(detail::check_backend<B, T>());
  static_assert(detail::check_parts<Config, B, T>());

 public:
  /// What solve() returns.
  using Compressed = CompressedLinear<B, T>;
  /// What solve() reads.
  using Inputs = SolveInputs<B, T, Config::assigned>;

  /// @throws argument_error or unattainable_error naming the option that does not fit
  explicit SparseGPTSolver(SolverOptions options)
      : options_(detail::validated<Config>(std::move(options))) {
    if constexpr (orders_inputs)
      if (options_.act_order || input_channels())
        throw argument_error(
            "act_order, axis: the pattern says in which order inputs are visited; leave act_order "
            "and axis unset");
    if constexpr (Config::mixed && !Config::assigned)
      detail::allocator_of<Config>(options_);  // an unattainable target ends here, before any work
  }

  /// Factors the Hessian for linears that share their inputs (q, k and v, for instance).
  /// @param given  the calibration of the inputs
  /// @throws factorization_error when the damping ladder ends
  Factor<B, T> prepare(detail::CalibrationArgument<B, T> given) const;

  /// Compresses one linear.
  /// @param inputs  {.weights, .calibration, .factor, .bits, .mask, .name}; see SolveInputs
  /// @throws shape_error, non_finite_error (also when W times the inputs overflows T),
  ///         argument_error (inputs not divisible by m, a channel's width that is none),
  ///         factorization_error, invariant_error
  Compressed solve(const Inputs& inputs) {
    return std::move(solve_together(std::span(&inputs, 1)).front());
  }

  /// Compresses one linear: solve({.weights = W, .calibration = calibration}).
  Compressed solve(MatrixArgument<T> W, detail::CalibrationArgument<B, T> calibration) {
    return solve({.weights = W, .calibration = calibration});
  }

  /// Compresses linears that read the same inputs side by side: the rows of all go through one sweep. Each
  /// linear has a mask, widths, grids and losses of its own, as if it were solved alone; only the
  /// rounding of products may differ. With input channels every linear has its own order, so that
  /// they are solved one after the other.
  /// @param linears  one at least, with the same calibration, and the same factor or none
  /// @return         the results in their order; the wall time is shared out by rows
  /// @throws what solve() throws; argument_error for no linear, or another calibration or factor
  std::vector<Compressed> solve_together(std::span<const Inputs> linears);

  /// Whether solve_together() solves linears side by side.
  bool solves_together() const { return !input_channels(); }

  /// The options given, static values filled in.
  const SolverOptions& options() const { return options_; }

 private:
  template <class U>
  using Owner = typename B::template matrix<U>;
  using Part = detail::StackedLinear<B, T, Config::assigned>;
  using Parts = std::span<const Part>;

  using UserPattern = typename Config::pattern;
  /// Whether pattern and grids are the caller's own.
  static constexpr bool custom_pattern = is_custom_pattern<UserPattern>;
  static constexpr bool orders_inputs = detail::OrdersInputs<UserPattern>;
  static constexpr bool custom_grids = detail::has_custom_grids<Config>;
  static constexpr PatternKind pattern_kind = detail::pattern_kind<Config>;

  /// Solves what require_inputs() has let through.
  /// @param parts     the linears; with input channels one
  /// @param prepared  the factor
  /// @param confirm   called as confirm() before anything is concluded from what the weights and U hold:
  ///                  throws where they cannot be used, true when U has been computed anew
  /// @return          none when that happened after U had been used
  template <class Confirm>
  std::optional<std::vector<Compressed>> solve_all(Parts parts,
                                                   const Calibration<B, T>& calibration,
                                                   const Factor<B, T>& prepared,
                                                   const Confirm& confirm) {
    const index_t rows = parts.back().end(), cols = calibration.in_features();
    live_ = {};  // what an exception left must not become a result
    parts.front().named([&] {
      require_shape("factor (in, in)", {cols, cols},
                    {prepared.upper.rows(), prepared.upper.cols()});
    });
    // Scores need all of U; parts of one's own are shown finite numbers.
    if (custom_pattern || custom_grids || (Config::mixed && !Config::assigned) || input_channels())
      confirm();
    // What is solved; the weights as given are what the results are held against.
    const MatrixView<const T> live = detail::stacked_weights(parts, prepared, live_);
    Compressed all = blank(cols);  // the rows of all linears
    std::vector<Compressed> linears;
    for (const Part& part : parts)
      part.named([&] {
        Compressed linear = blank(cols);
        linear.given_mask = part.zero().rows > 0;
        if constexpr (Config::assigned) {
          const std::span<const std::uint8_t> bits = part.inputs->bits.get();
          linear.bits.assign(bits.begin(), bits.end());
        } else if constexpr (Config::quantizes) {
          detail::choose_bits<Config>(options_, {part.rows_of(live), calibration, prepared},
                                      part.zero(), linear);
        }
        if constexpr (custom_grids)
          linear.grids.custom_bits =
              detail::GridFitter<Config, B, T>::own_grid_bits(linear, part.rows(), cols);
        all.given_mask = all.given_mask || linear.given_mask;
        all.bits.insert(all.bits.end(), linear.bits.begin(), linear.bits.end());
        linears.push_back(std::move(linear));
      });

    Factor<B, T> reordered;
    const Factor<B, T>* factor = &prepared;
    if (input_channels()) {
      reordered = parts.front().named([&] {
        return factorize(calibration,
                         {.damping = options_.damping,
                          .order = visit_order(calibration.hessian_diagonal(), all.bits,
                                               options_.act_order, kept_together(cols))});
      });
      factor = &reordered;
    }
    const auto order = detail::to_backend<B>(factor->order);
    const bool natural = std::is_sorted(factor->order.begin(), factor->order.end());
    const detail::GridFitter<Config, B, T> fitter(options_);
    const auto require_scales = [&](auto scales) {
      if (scales) detail::require_half_scales(parts, scales->get(), rows);
    };
    if constexpr (Config::quantizes)
      parts.front().named([&] { fitter.fit_all(all, live, loop_.weights); });
    const index_t grids = all.grids.scale.rows();
    if constexpr (custom_pattern)
      if (options_.group_fit == GroupFit::dense) require_scales(fitter.start_check(all, 0, grids));
    arrange(live, order.view().data, natural);
    const auto row_loss = loop_.run(options_, parts, all, *factor, order.view().data);
    auto losses = detail::start_to_host<B>(row_loss.view());
    auto scales = fitter.start_check(all, 0, grids);

    std::vector<detail::Verification<B, T>> verifications;
    verifications.reserve(parts.size());
    for (std::size_t i = 0; i < parts.size(); ++i)
      parts[i].named([&] {
        Compressed& linear = linears[i];
        linear.order = factor->order;
        take_result(parts[i], parts.size() == 1, all, natural, order.view().data, linear);
        checked([&] {
          verifications.emplace_back(parts[i].weights(), calibration, *factor, linear,
                                     Config::quantizes, parts[i].zero(),
                                     detail::as_const(parts[i].columns_of(row_loss.view())),
                                     order.view().data);
        });
      });
    if (parts.size() > 1) loop_.weights = {}, loop_.marks = {};  // as large as all results
    if (confirm()) return std::nullopt;
    require_scales(std::move(scales));
    const MatrixView<const double> known_losses = losses.get().view();
    for (std::size_t i = 0; i < parts.size(); ++i)
      parts[i].named([&] {
        Compressed& linear = linears[i];
        linear.damping = factor->damping;
        linear.damping_retries = factor->retries;
        take_losses(linear, parts[i].columns_of(known_losses));
        checked([&] {
          verifications[i].finish();
          if constexpr (custom_grids)
            detail::verify_custom_grids<typename Config::quantizer>(linear);
          if constexpr (custom_pattern)
            detail::verify_pattern<UserPattern, B>(linear.mask.view(), linear.order, options_);
        });
      });
    return linears;
  }

  /// Calls a check of a result, with the policy's name in front of what is thrown.
  template <class Check>
  static void checked(const Check& check) {
    if constexpr (Config::mixed)
      in_context(detail::class_name<typename Config::policy>(), check);
    else
      check();
  }

  /// Begins the factor of prepare().
  /// @param diagonal  that of H, (in)
  detail::StartedFactor<B, T> start_factor(const Calibration<B, T>& calibration,
                                           std::vector<double> diagonal) const;

  bool input_channels() const { return detail::has_input_channels<Config>(options_); }

  /// Inputs that must stay neighbours: m of n:m, what a pattern of one's own asks for, otherwise 1.
  index_t kept_together(index_t in_features) const {
    if constexpr (custom_pattern) {
      const index_t of = detail::together<UserPattern>(options_);
      if (of < 1 || in_features % of != 0)
        throw argument_error("weights (out, in): expected inputs divisible by the " +
                             std::to_string(of) + " that the pattern keeps together, got " +
                             std::to_string(in_features));
      return of;
    } else if constexpr (pattern_kind == PatternKind::n_of_m) {
      if (in_features % *options_.of != 0)
        throw argument_error("weights (out, in): expected inputs divisible by the m of n:m, " +
                             std::to_string(*options_.of) + ", got " + std::to_string(in_features));
      return *options_.of;
    } else {
      return 1;
    }
  }

  /// Throws what solve() throws for inputs of a wrong shape or that cannot be read.
  void require_inputs(const Inputs& inputs, index_t in_features) const {
    const MatrixView<const T> W = inputs.weights;
    if (W.rows < 1 || W.cols < 1)
      throw shape_error("weights (out, in): expected at least one row and column, got shape " +
                        shape_text(W.rows, W.cols));
    require_shape("weights (out, in) against calibration (in)", {W.rows, in_features},
                  {W.rows, W.cols});
    kept_together(W.cols);
    require_view("weights (out, in)", W);
    if constexpr (Config::assigned)
      detail::require_widths(inputs.bits.get(), input_channels() ? W.cols : W.rows);
    const MatrixView<const std::uint8_t> zero = inputs.mask.get();
    detail::require_mask(zero, W);
    if constexpr (custom_pattern)
      if (zero.rows > 0) detail::require_reachable<UserPattern, B>(zero, options_);
  }

  Compressed blank(index_t cols) const {
    Compressed linear;
    linear.axis = options_.axis;
    linear.group_size = resolved_group_size(options_.group_size, cols);
    linear.mixed_widths = Config::mixed;
    const index_t of = kept_together(cols);
    // Neighbours of n:m must not straddle two blocks; for n:m the block size changes no result.
    linear.block_size = std::max(of, options_.block_size - options_.block_size % of);
    linear.pattern = pattern_of(options_);
    if (options_.sparsity == 0.0) linear.pattern = {};  // no mask is to be stored
    linear.custom_pattern = custom_pattern;
    if constexpr (custom_pattern) linear.pattern = {};  // what it prunes is in the mask alone
    return linear;
  }

  /// Puts the weights into the loop, in visit order, and makes room for the masks. In natural order both become
  /// the result, whose memory must not be larger than it.
  /// @param live   (rows, in); may lie in live_, which is given up then
  /// @param order  input visited at each position, (in), in the backend's memory
  void arrange(MatrixView<const T> live, const index_t* order, bool natural) {
    const bool in_live = live.data == detail::as_const(live_.view()).data;
    if (natural) loop_.weights = {}, loop_.marks = {};
    if (natural && in_live) {
      loop_.weights = std::exchange(live_, {});
    } else {
      loop_.weights.resize(live.rows, live.cols);
      if (natural)
        B::copy(live, loop_.weights.view());
      else
        B::for_each_element(live.rows, live.cols,
                            kernels::GatherColumns<T>{live, loop_.weights.view(), order});
      if (in_live) live_ = {};
    }
    loop_.marks.resize(live.rows, live.cols);
  }

  /// Gives a linear its weights, mask and grids.
  /// @param alone  nothing else is solved with it
  /// @param all    has the grids of all linears
  /// @param order  input visited at each position, (in), in the backend's memory
  void take_result(const Part& part, bool alone, Compressed& all, bool natural,
                   const index_t* order, Compressed& linear) {
    if (alone) {
      all.grids.custom_bits = linear.grids.custom_bits;
      linear.grids = std::move(all.grids);
    } else {
      detail::take_grids<Config>(part, all, linear);
    }
    if (alone && natural) {
      linear.weights = std::exchange(loop_.weights, {});
      linear.mask = std::exchange(loop_.marks, {});
      return;
    }
    const auto take = [&]<class U>(const Owner<U>& from, Owner<U>& to) {
      const MatrixView<const U> rows = part.rows_of(from.view());
      to = Owner<U>(rows.rows, rows.cols);
      if (natural)
        B::copy(rows, to.view());
      else
        B::for_each_element(rows.rows, rows.cols,
                            kernels::ScatterColumns<U>{rows, to.view(), order});
    };
    take(loop_.weights, linear.weights);
    take(loop_.marks, linear.mask);
  }

  /// Throws non_finite_error for the first row whose loss overflowed.
  /// @param row_loss  (1, out)
  static void take_losses(Compressed& linear, MatrixView<const double> row_loss) {
    linear.row_loss.assign(row_loss.data, row_loss.data + row_loss.cols);
    linear.loss = 0;
    for (index_t i = 0; i < row_loss.cols; ++i) {
      linear.loss += linear.row_loss[std::size_t(i)];
      // Whatever overflows on the way, a weight or an error, ends in its row's loss.
      if (!std::isfinite(linear.loss))
        throw non_finite_error("weights (out, in): row " + std::to_string(i) +
                                   " times its inputs overflows " +
                                   std::string(scalar_traits<T>::name) +
                                   "; scale the weights or the inputs",
                               i, -1);
    }
  }

  SolverOptions options_;
  detail::BlockLoop<Config, B, T> loop_;  // its memory is kept from solve to solve
  Owner<T> live_;  // (rows of all linears, in), empty unless inputs are dead or linears are stacked
};

// Not in the class, where they would be inline: an extern template spares no file an inline
// function.
template <class Config, class B, class T>
detail::StartedFactor<B, T> SparseGPTSolver<Config, B, T>::start_factor(
    const Calibration<B, T>& calibration, std::vector<double> diagonal) const {
  FactorOptions options{.damping = options_.damping, .order = {}};
  if constexpr (orders_inputs)
    options.order = UserPattern::visit_order(std::as_const(diagonal), options_);
  else if (options_.act_order && !input_channels())
    options.order = visit_order(diagonal, {}, true, kept_together(calibration.in_features()));
  return {calibration, options, std::move(diagonal)};
}

template <class Config, class B, class T>
Factor<B, T> SparseGPTSolver<Config, B, T>::prepare(detail::CalibrationArgument<B, T> given) const {
  return start_factor(given.get(), given.get().hessian_diagonal()).take();
}

template <class Config, class B, class T>
std::vector<CompressedLinear<B, T>> SparseGPTSolver<Config, B, T>::solve_together(
    std::span<const Inputs> linears) {
  if (!solves_together() && linears.size() > 1) return detail::solve_in_turn(*this, linears);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Part> parts = detail::stacked(linears);
  const Part& first = parts.front();  // speaks for all
  const Calibration<B, T>& calibration = linears[0].calibration.get();
  const Factor<B, T>* const given = linears[0].factor.get();
  for (const Part& part : parts)
    part.named([&] { require_inputs(*part.inputs, calibration.in_features()); });

  using Found = decltype(detail::start_find_non_finite<B>(MatrixView<const T>()));
  std::vector<Found> non_finite;  // one for each linear, until they are looked at
  for (const Part& part : parts)
    non_finite.push_back(detail::start_find_non_finite<B>(part.weights()));
  const auto require_weights = [&] {
    for (std::size_t i = 0; i < non_finite.size(); ++i)
      parts[i].named([&] {
        detail::require_none_at(non_finite[i].get(), "weights (out, in)", parts[i].weights());
      });
    non_finite.clear();
  };
  if constexpr (detail::is_known<Found>) require_weights();
  std::optional<detail::StartedFactor<B, T>> started;
  if (given == nullptr) {
    std::vector<double> diagonal = first.named([&] { return calibration.hessian_diagonal(); });
    require_weights();  // they came before
    first.named([&] { started.emplace(start_factor(calibration, std::move(diagonal))); });
  }
  const Factor<B, T>& factor = given != nullptr ? *given : started->so_far();
  const auto confirm = [&] {
    require_weights();
    return started && first.named([&] { return started->finish(); });
  };
  auto result = solve_all(parts, calibration, factor, confirm);
  if (!result) result = solve_all(parts, calibration, factor, confirm);
  std::vector<Compressed> solved = std::move(*result);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t i = 0; i < parts.size(); ++i)
    solved[i].seconds = seconds * double(parts[i].rows()) / double(parts.back().end());
  return solved;
}

}  // namespace pare

#include "pare/solver/searching_solver.hpp"  // last: it is made of the solver above
