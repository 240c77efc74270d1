// SparseGPTSolver: prunes and quantizes one linear together, with error feedback.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/kernels/custom_grids.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/masks.hpp"
#include "pare/kernels/sweep.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/solver/choose_bits.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/solver/custom_parts.hpp"
#include "pare/solver/inputs.hpp"
#include "pare/solver/options.hpp"
#include "pare/solver/order.hpp"
#include "pare/solver/updates.hpp"
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
  /// @param inputs  {.weights, .calibration, .factor, .bits, .mask}; see SolveInputs
  /// @throws shape_error, non_finite_error (also when W times the inputs overflows T),
  ///         argument_error (inputs not divisible by m, a channel's width that is none),
  ///         factorization_error, invariant_error
  Compressed solve(const SolveInputs<B, T, Config::assigned>& inputs);

  /// Compresses one linear: solve({.weights = W, .calibration = calibration}).
  Compressed solve(MatrixArgument<T> W, detail::CalibrationArgument<B, T> calibration) {
    return solve({.weights = W, .calibration = calibration});
  }

  /// The options given, static values filled in.
  const SolverOptions& options() const { return options_; }

 private:
  template <class U>
  using Owner = typename B::template matrix<U>;

  using UserPattern = typename Config::pattern;
  using UserQuantizer = typename Config::quantizer;
  /// Whether pattern and grids are the caller's own.
  static constexpr bool custom_pattern = is_custom_pattern<UserPattern>;
  static constexpr bool orders_inputs = detail::OrdersInputs<UserPattern>;
  static constexpr bool custom_grids = Config::quantizes && !detail::is_uniform<UserQuantizer>;

  using OwnGrids =
      kernels::CustomGrids<std::conditional_t<custom_grids, UserQuantizer, BaseQuantizer>, T>;

  static constexpr PatternKind pattern_kind = [] {
    if constexpr (custom_pattern)
      return PatternKind::dense;
    else
      return Pattern(UserPattern{}).kind;
  }();
  static constexpr kernels::MaskSource mask_source =
      pattern_kind == PatternKind::n_of_m                           ? kernels::MaskSource::n_of_m
      : pattern_kind == PatternKind::unstructured || custom_pattern ? kernels::MaskSource::given
                                                                    : kernels::MaskSource::none;

  /// Solves what require_inputs() has let through.
  /// @param prepared  the factor, of which U and the damping are there when finish() has returned
  /// @param finish    called as finish() before U or the damping is read
  /// @param bits      the widths with MixedPrecision<Assigned>, otherwise empty
  /// @param zero      (out, in), 1 where a weight must be zero; may be empty
  template <class Finish>
  Compressed solve_all(MatrixView<const T> W, const Calibration<B, T>& calibration,
                       const Factor<B, T>& prepared, const Finish& finish,
                       std::span<const std::uint8_t> bits, MatrixView<const std::uint8_t> zero) {
    require_shape("factor (in, in)", {W.cols, W.cols},
                  {prepared.upper.rows(), prepared.upper.cols()});
    if constexpr (Config::assigned)
      detail::require_widths(bits, input_channels() ? W.cols : W.rows);
    detail::require_mask(zero, W);
    if constexpr (custom_pattern)
      if (zero.rows > 0) detail::require_reachable<UserPattern, B>(zero, options_);
    Compressed linear = blank(W);
    linear.given_mask = zero.rows > 0;
    linear.custom_pattern = custom_pattern;
    // What is solved; W as given is what the result is held against.
    const MatrixView<const T> live = detail::live_weights<B, T>(W, prepared, live_);
    if constexpr (Config::mixed && !Config::assigned) finish();
    if constexpr (Config::assigned)
      linear.bits.assign(bits.begin(), bits.end());
    else if constexpr (Config::quantizes)
      detail::choose_bits<Config>(options_, {live, calibration, prepared}, zero, linear);

    Factor<B, T> reordered;
    const Factor<B, T>* factor = &prepared;
    if (input_channels()) {
      reordered =
          factorize(calibration, {.damping = options_.damping,
                                  .order = visit_order(calibration.hessian_diagonal(), linear.bits,
                                                       options_.act_order, kept_together(W.cols))});
      factor = &reordered;
    }
    linear.order = factor->order;
    const auto order = detail::to_backend<B>(factor->order);
    const bool natural = std::is_sorted(factor->order.begin(), factor->order.end());
    if constexpr (Config::quantizes) fit_grids(linear, live);
    if (natural) current_ = {}, mask_ = {};  // become the result, whose memory must not be larger
    current_.resize(W.rows, W.cols);
    mask_.resize(W.rows, W.cols);
    if (natural)
      B::copy(live, current_.view());
    else
      B::for_each_element(W.rows, W.cols,
                          kernels::GatherColumns<T>{live, current_.view(), order.view().data});
    const auto row_loss = run_blocks(linear, *factor, finish, zero, order.view().data);
    linear.damping = factor->damping;
    linear.damping_retries = factor->retries;
    auto losses = detail::start_to_host<B>(row_loss.view());

    if (natural) {
      linear.weights = std::exchange(current_, {});
      linear.mask = std::exchange(mask_, {});
    } else {
      linear.weights = Owner<T>(W.rows, W.cols);
      linear.mask = Owner<std::uint8_t>(W.rows, W.cols);
      B::for_each_element(W.rows, W.cols,
                          kernels::ScatterColumns<T>{current_.view(), linear.weights.view(),
                                                     order.view().data});
      B::for_each_element(W.rows, W.cols,
                          kernels::ScatterColumns<std::uint8_t>{mask_.view(), linear.mask.view(),
                                                                order.view().data});
    }
    const auto checked = [](const auto& check) {
      if constexpr (Config::mixed)
        in_context(detail::class_name<typename Config::policy>(), check);
      else
        check();
    };
    std::optional<detail::Verification<B, T>> verification;
    checked([&] {
      verification.emplace(W, calibration, *factor, linear, Config::quantizes, zero,
                           row_loss.view());
    });
    take_losses(linear, losses.get());
    checked([&] {
      verification->finish();
      if constexpr (custom_grids) detail::verify_custom_grids<UserQuantizer>(linear);
      if constexpr (custom_pattern)
        detail::verify_pattern<UserPattern, B>(linear.mask.view(), linear.order, options_);
    });
    return linear;
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

  /// Throws what solve() throws for weights of a wrong shape or that cannot be read.
  void require_inputs(MatrixView<const T> W, index_t in_features) const {
    if (W.rows < 1 || W.cols < 1)
      throw shape_error("weights (out, in): expected at least one row and column, got shape " +
                        shape_text(W.rows, W.cols));
    require_shape("weights (out, in) against calibration (in)", {W.rows, in_features},
                  {W.rows, W.cols});
    kept_together(W.cols);
    require_view("weights (out, in)", W);
  }

  Compressed blank(MatrixView<const T> W) const {
    Compressed linear;
    linear.axis = options_.axis;
    linear.group_size = resolved_group_size(options_.group_size, W.cols);
    linear.mixed_widths = Config::mixed;
    const index_t of = kept_together(W.cols);
    // Neighbours of n:m must not straddle two blocks; for n:m the block size changes no result.
    linear.block_size = std::max(of, options_.block_size - options_.block_size % of);
    linear.pattern = pattern_of(options_);
    if (options_.sparsity == 0.0) linear.pattern = {};  // no mask is to be stored
    if constexpr (custom_pattern) linear.pattern = {};  // what it prunes is in the mask alone
    return linear;
  }

  /// Makes room for the grids and, unless the sweep does it, fits them to the dense weights, those
  /// of dead inputs zero.
  void fit_grids(Compressed& linear, MatrixView<const T> W) {
    const GridMap map = grid_map(linear.axis, linear.bits, W.cols, linear.group_size);
    if constexpr (custom_grids) {
      linear.grids.custom = Owner<T>(map.grids() * OwnGrids::numbers, W.rows);
      linear.grids.custom_bits = own_grid_bits(map, linear.bits, W.rows);
    } else {
      for (auto* m : {&linear.grids.scale, &linear.grids.zero, &linear.grids.top})
        *m = Owner<T>(map.grids(), W.rows);
    }
    linear.grids.of_column = map.of_column;
    if (options_.group_fit == GroupFit::compensated) return;
    MatrixView<const T> by_grid = W;
    if (!map.natural_order()) {
      const auto gather = detail::to_backend<B>(map.columns);
      current_.resize(W.rows, W.cols);
      B::for_each_element(W.rows, W.cols,
                          kernels::GatherColumns<T>{W, current_.view(), gather.view().data});
      by_grid = current_.view();
    }
    const auto begin = detail::to_backend<B>(map.begin);
    const auto widths = detail::to_backend<B>(map.by_row() ? linear.bits : map.width);
    fit_part(linear, by_grid, begin.view().data, widths.view().data, map.by_row(), 0, map.grids());
  }

  /// Fits grid g of every row to some columns of current_, its group as compensated so far.
  /// @param widths  of every row, (out), in the backend's memory
  void fit_group(Compressed& linear, index_t g, index_t begin, index_t count,
                 const std::uint8_t* widths) const {
    fit_part(linear, current_.view().columns(begin, count), nullptr, widths, true, g, 1);
  }

  /// Fits some of the grids by the quantizer's own rule, or by the backend's for uniform ones.
  /// @param begin   where the columns of each grid begin in weights, (count + 1), in the backend's
  ///                memory; null: one grid, all columns
  /// @param widths  of every row, (out), or of every grid, (count), in the backend's memory
  /// @param first   of the linear's grids
  void fit_part(Compressed& linear, MatrixView<const T> weights, const index_t* begin,
                const std::uint8_t* widths, bool by_row, index_t first, index_t count) const {
    if constexpr (custom_grids) {
      B::for_each_element(weights.rows, count,
                          kernels::CustomFit<UserQuantizer, T>{
                              weights, begin, widths, by_row ? 0 : 1, by_row ? 1 : 0, options_.grid,
                              linear.grids.custom.view().block(first * OwnGrids::numbers, 0,
                                                               count * OwnGrids::numbers,
                                                               weights.rows)});
    } else {
      const auto part = [&](Owner<T>& m) { return m.view().block(first, 0, count, m.cols()); };
      B::fit_grids(kernels::GridFit<T>{.weights = weights,
                                       .begin = begin,
                                       .bits = widths,
                                       .per_grid = by_row ? 0 : 1,
                                       .per_row = by_row ? 1 : 0,
                                       .options = options_.grid,
                                       .clip_steps = detail::clip_steps_for(linear.group_size),
                                       .grids = {part(linear.grids.scale), part(linear.grids.zero),
                                                 part(linear.grids.top)}});
      require_half_scales(linear, first, count);
    }
  }

  /// What a file needs for all grids of a quantizer of one's own, in bits.
  static double own_grid_bits(const GridMap& map, const std::vector<std::uint8_t>& bits,
                              index_t rows) requires(custom_grids) {
    double sum = 0;
    for (const std::uint8_t width : map.by_row() ? bits : map.width)
      sum += double(map.by_row() ? map.grids() : rows) *
             double(UserQuantizer::template grid_bits<T>(int(width)));
    return sum;
  }

  /// Throws argument_error naming the first row with a scale that float16 cannot hold, in some grids.
  void require_half_scales(const Compressed& linear, index_t first, index_t count) const {
    if (!options_.grid.half_scale) return;
    const MatrixView<const T> scale = linear.grids.scale.view();
    const index_t at = B::find_non_finite(scale.block(first, 0, count, scale.cols));
    if (at < 0) return;
    throw argument_error("grid.half_scale: row " + std::to_string(at % scale.cols) +
                         " of the weights needs a scale beyond 65504, the largest float16; scale "
                         "the weights down, or leave it unset");
  }

  /// Adds the k smallest of a block to its mask, in which the first are marked.
  void select_beside(MatrixView<const T> block, MatrixView<const T> divisor, index_t k,
                     MatrixView<std::uint8_t> mask) const {
    Owner<T> hidden(block.rows, block.cols);
    Owner<std::uint8_t> chosen(block.rows, block.cols);
    B::for_each_element(block.rows, block.cols,
                        kernels::HideMarked<T>{block, detail::as_const(mask), hidden.view()});
    B::select_smallest(detail::as_const(hidden.view()), divisor, k, chosen.view());
    B::for_each_element(block.rows, block.cols,
                        kernels::AddMarks{detail::as_const(chosen.view()), mask});
  }

  /// The block loop over current_, which holds W in visit order and ends as Q. Returns the losses of
  /// the rows, (1, out).
  /// @param finish  called as finish() before U is read
  /// @param zero    (out, in), not 0 where a weight must be zero; may be empty
  /// @param order   input visited at each position, (in), in the backend's memory
  template <class Finish>
  Owner<double> run_blocks(Compressed& linear, const Factor<B, T>& factor, const Finish& finish,
                           MatrixView<const std::uint8_t> zero, const index_t* order) {
    const bool given = zero.rows > 0;
    std::vector<index_t> forced;  // weights of every block that must be zero
    const index_t rows = current_.rows(), cols = current_.cols();
    const index_t width = std::min(linear.block_size, cols);
    if (given) {
      forced = detail::marked_in_blocks(detail::start_marked<B, T>(zero, order, width).get(), rows);
      B::for_each_element(rows, cols, kernels::GatherMarks{zero, mask_.view(), order});
    } else if constexpr (custom_pattern || mask_source == kernels::MaskSource::none) {
      B::for_each_element(rows, cols, kernels::SetZero<std::uint8_t>{mask_.view()});
    }
    auto row_loss = detail::zeros<B, double>(1, rows);
    std::vector<std::int32_t> visited_grid(linear.grids.of_column.size());
    for (std::size_t p = 0; p < visited_grid.size(); ++p)
      visited_grid[p] = linear.grids.of_column[std::size_t(factor.order[p])];
    const auto column_grid = detail::to_backend<B>(visited_grid);
    const bool fits_groups = Config::quantizes && options_.group_fit == GroupFit::compensated;
    const auto widths =
        detail::to_backend<B>(fits_groups ? linear.bits : std::vector<std::uint8_t>{});
    // A group that is fitted when the sweep reaches it needs all its columns up to date.
    updates_.start(rows, cols, width, !fits_groups);
    finish();
    std::vector<T> diagonal(factor.upper_diagonal.begin(), factor.upper_diagonal.end());
    const auto u = detail::to_backend<B>(diagonal);

    for (index_t begin = 0; begin < cols; begin += width) {
      const index_t count = std::min(width, cols - begin);
      const MatrixView<T> block = current_.view().columns(begin, count);
      const MatrixView<std::uint8_t> block_mask = mask_.view().columns(begin, count);
      if constexpr (custom_pattern) {
        UserPattern::template mark<B, T>(
            {detail::as_const(block), detail::as_const(u.view()).columns(begin, count),
             std::span(factor.order).subspan(std::size_t(begin), std::size_t(count)), cols},
            options_, block_mask);
      } else if constexpr (mask_source == kernels::MaskSource::given) {
        const auto divisor = detail::as_const(u.view()).columns(begin, count);
        const index_t k = pruned_count(linear.pattern.sparsity, rows * count);
        if (!given)
          B::select_smallest(detail::as_const(block), divisor, k, block_mask);
        else if (const index_t more = k - forced[std::size_t(begin / width)]; more > 0)
          select_beside(detail::as_const(block), divisor, more, block_mask);
      }
      // In one piece, or, where a group is fitted to what the columns before it leave, up to there.
      for (index_t at = begin; at < begin + count;) {
        index_t size = begin + count - at;
        if (fits_groups) {
          const index_t group = linear.group_size, in_group = at % group;
          if (in_group == 0)
            fit_group(linear, at / group, at, std::min(group, cols - at), widths.view().data);
          size = std::min(size, group - in_group);
        }
        sweep_columns(linear, factor, at, size, column_grid.view().data, row_loss.view().data);
        at += size;
      }
    }
    return row_loss;
  }

  /// Throws non_finite_error for the first row whose loss overflowed.
  /// @param row_loss  (1, out)
  static void take_losses(Compressed& linear, const Matrix<double>& row_loss) {
    linear.row_loss.assign(row_loss.data(), row_loss.data() + row_loss.size());
    linear.loss = 0;
    for (index_t i = 0; i < row_loss.size(); ++i) {
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

  /// Sweeps neighbouring columns of current_ and feeds their errors to all columns after them.
  /// @param grid  of each column of current_, (in), in the backend's memory
  void sweep_columns(const Compressed& linear, const Factor<B, T>& factor, index_t begin,
                     index_t count, const std::int32_t* grid, double* row_loss) {
    const MatrixView<T> errors = updates_.errors(begin, count);
    const MatrixView<const T> upper = factor.upper.view();
    const auto sweep = [&]<kernels::MaskSource Mask>() {
      const auto with = [&]<class Grids>(const Grids& grids) {
        return kernels::RowSweep<T, Mask, Config::quantizes, Grids>{
            current_.view().columns(begin, count),
            errors,
            mask_.view().columns(begin, count),
            upper.block(begin, begin, count, count),
            grids,
            Config::quantizes ? grid + begin : nullptr,
            row_loss,
            linear.pattern.zeros,
            linear.pattern.of};
      };
      if constexpr (custom_grids)
        B::for_each_row(current_.rows(), with(OwnGrids{linear.grids.custom.view()}));
      else
        B::row_sweep(with(GridView<const T>{linear.grids.scale.view(), linear.grids.zero.view(),
                                            linear.grids.top.view()}));
    };
    if (!linear.given_mask)
      sweep.template operator()<mask_source>();
    else if constexpr (mask_source == kernels::MaskSource::n_of_m)
      sweep.template operator()<kernels::MaskSource::n_of_m_beside>();
    else
      sweep.template operator()<kernels::MaskSource::given>();
    updates_.feed(current_.view(), upper, begin, count);
  }

  SolverOptions options_;
  Owner<T> current_;  // (out, in); kept from solve to solve
  detail::Updates<B, T> updates_;
  Owner<T> live_;             // (out, in), empty unless inputs are dead
  Owner<std::uint8_t> mask_;  // (out, in), in visit order
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
CompressedLinear<B, T> SparseGPTSolver<Config, B, T>::solve(
    const SolveInputs<B, T, Config::assigned>& inputs) {
  const auto start = std::chrono::steady_clock::now();
  const MatrixView<const T> W = inputs.weights;
  const Calibration<B, T>& calibration = inputs.calibration.get();
  require_inputs(W, calibration.in_features());
  auto non_finite = detail::start_find_non_finite<B>(W);
  const auto require_weights = [&] {
    detail::require_none_at(non_finite.get(), "weights (out, in)", W);
  };
  const auto solved = [&](const Factor<B, T>& factor, const auto& finish) {
    return solve_all(W, calibration, factor, finish, inputs.bits.get(), inputs.mask.get());
  };
  Compressed linear;
  if (const Factor<B, T>* factor = inputs.factor.get()) {
    require_weights();
    linear = solved(*factor, [] {});
  } else {
    std::vector<double> diagonal = calibration.hessian_diagonal();  // comes after the check of W
    require_weights();
    auto started = start_factor(calibration, std::move(diagonal));
    linear = solved(started.so_far(), [&] { started.finish(); });
  }
  linear.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return linear;
}

}  // namespace pare

#include "pare/solver/searching_solver.hpp"  // last: it is made of the solver above
