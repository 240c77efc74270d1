// Patterns and objectives of one's own: the concepts, and what other types are told.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pare/core/backend.hpp"
#include "pare/importance/signals.hpp"
#include "pare/solver/options.hpp"

namespace pare::inline PARE_TARGET {

/// A block of columns that a pattern marks before the sweep prunes and rounds them.
template <class T>
struct MaskBlock {
  /// Weights so far, errors of earlier columns fed forward, in the backend's memory.
  MatrixView<const T> weights;  // (out, block)
  /// U_jj of each column, in the backend's memory: w^2 / U_jj^2 / 2 is what pruning w costs.
  MatrixView<const T> diagonal;  // (1, block)
  /// The input that each column belongs to, (block).
  std::span<const index_t> inputs;
  /// Inputs of the whole linear.
  index_t in_features = 0;
};

/// A sparsity pattern of one's own: a type derived from PatternOption with static functions.
///
/// - `P::mark<B, T>(block, options, mask)`: sets mask (out, block) to 1 where a weight of the block
///   is to become zero; it holds a caller's marks, or zeros. Both lie in the memory of B.
/// - `P::fault(mask, order, options)`: what is wrong with the finished mask (out, in) in the host's
///   memory, inputs in natural order; `order` is the input visited at each position, (in). Empty when
///   the mask is as the pattern wants it. Post-condition 4 asks it.
///
/// and, where they are needed:
///
/// - `P::together(options)`: how many neighbours in visit order one block must hold, 1 without it.
///   They must divide the inputs.
/// - `P::visit_order(diagonal, options)`: the input visited at each position, (in), from diag(H);
///   without it inputs are visited in natural order, or as act-order has it.
/// - `P::refusal(given, options)`: why the pattern cannot be reached from a caller's mask (out, in)
///   in the host's memory; empty when it can. Without it a caller's mask is refused.
///
/// The solver's options sparsity, zeros and of are the pattern's to read, and to refuse.
template <class P, class B, class T>
concept MaskPattern = std::derived_from<P, PatternOption> &&
    requires(const MaskBlock<T>& block, const SolverOptions& options, MatrixView<std::uint8_t> mask,
             MatrixView<const std::uint8_t> finished, std::span<const index_t> order) {
  P::template mark<B, T>(block, options, mask);
  { P::fault(finished, order, options) } -> std::same_as<std::string>;
};

/// An objective of one's own: a type derived from ObjectiveOption, callable as
/// `std::vector<double> f(const ScoringInput<B, T>&, ChannelAxis) const`: a finite number >= 0 for every
/// channel of the axis. A policy of MixedPrecision sees these numbers.
template <class O, class B, class T>
concept Objective = std::derived_from<O, ObjectiveOption> && std::default_initializable<O> &&
    requires(const O& objective, const ScoringInput<B, T>& input, ChannelAxis axis) {
  { objective(input, axis) } -> std::same_as<std::vector<double>>;
};

namespace detail {

template <class P, class B, class T>
concept Marks = requires(const MaskBlock<T>& block, const SolverOptions& options,
                         MatrixView<std::uint8_t> mask) {
  P::template mark<B, T>(block, options, mask);
};

/// Whether a pattern says in which order inputs are visited.
template <class P>
concept OrdersInputs = is_custom_pattern<P> &&
    requires(const std::vector<double>& diagonal, const SolverOptions& options) {
  { P::visit_order(diagonal, options) } -> std::same_as<std::vector<index_t>>;
};
/// Whether a pattern says which neighbours in visit order stay together.
template <class P>
concept KeepsTogether = requires(const SolverOptions& options) {
  { P::together(options) } -> std::same_as<index_t>;
};
/// Whether a pattern says which masks of a caller it refuses.
template <class P>
concept Refuses = requires(MatrixView<const std::uint8_t> given, const SolverOptions& options) {
  { P::refusal(given, options) } -> std::same_as<std::string>;
};

/// Always true. One message per member that a pattern of one's own lacks, or has with another
/// signature.
template <class P, class B, class T>
constexpr bool check_pattern() {
  if constexpr (is_custom_pattern<P>) {
    static_assert(Marks<P, B, T>,
                  "pare: a pattern without mark: nothing says which weights go; write template "
                  "<class B, class T> static void mark(const MaskBlock<T>& block, const "
                  "SolverOptions& options, MatrixView<std::uint8_t> mask)");
    static_assert(!Marks<P, B, T> || MaskPattern<P, B, T>,
                  "pare: a pattern without fault: post-condition 4 could not be checked; write "
                  "static std::string fault(MatrixView<const std::uint8_t> mask, "
                  "std::span<const index_t> order, const SolverOptions& options), empty when the "
                  "mask is good");
    constexpr bool complete = MaskPattern<P, B, T>;
    static_assert(
        !complete || OrdersInputs<P> || !requires { &P::visit_order; },
        "pare: a pattern whose visit_order is not callable as the solver calls it: inputs "
        "would be visited in natural order; write static std::vector<index_t> "
        "visit_order(const std::vector<double>& diagonal, const SolverOptions& options)");
    static_assert(
        !complete || KeepsTogether<P> || !requires { &P::together; },
        "pare: a pattern whose together is not callable as the solver calls it: blocks "
        "would part what belongs together; write static index_t together(const "
        "SolverOptions& options)");
    static_assert(
        !complete || Refuses<P> || !requires { &P::refusal; },
        "pare: a pattern whose refusal is not callable as the solver calls it: every "
        "caller's mask would be refused; write static std::string "
        "refusal(MatrixView<const std::uint8_t> given, const SolverOptions& options)");
  }
  return true;
}

/// Always true. An objective of one's own is told what it lacks.
template <class O, class B, class T>
constexpr bool check_objective() {
  constexpr bool built_in =
      std::is_void_v<O> || std::is_same_v<O, FiveSignals> || std::is_same_v<O, GridDistortion>;
  if constexpr (!built_in)
    static_assert(
        Objective<O, B, T>,
        "pare: an objective that is not callable with the solver's backend and scalar: a "
        "policy needs a number for every channel; write template <class B, class T> "
        "std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis axis) "
        "const");
  return true;
}

/// Always true. Patterns, quantizers and objectives of one's own are told what they lack.
template <class Config, class B, class T>
constexpr bool check_parts() {
  if constexpr (Config::quantizes)
    if constexpr (!is_uniform<typename Config::quantizer>)
      check_quantizer<typename Config::quantizer, T>();
  return check_pattern<typename Config::pattern, B, T>() &&
         check_objective<typename Config::mixed_precision::objective, B, T>();
}

/// Neighbours in visit order that stay together.
template <class P>
index_t together(const SolverOptions& options) {
  if constexpr (KeepsTogether<P>)
    return P::together(options);
  else
    return 1;
}

/// Condition 4 of a pattern of one's own: throws invariant_error for a mask (out, in), in the memory
/// of B, that is not as the pattern wants it.
template <class P, class B>
void verify_pattern(MatrixView<const std::uint8_t> mask, std::span<const index_t> order,
                    const SolverOptions& options) {
  const Matrix<std::uint8_t> here = B::to_host(mask);
  const std::string fault = P::fault(here.view(), order, options);
  if (!fault.empty()) throw invariant_error(4, fault);
}

/// Throws argument_error when a pattern cannot be reached from a caller's mask (out, in), which lies
/// in the memory of B.
template <class P, class B>
void require_reachable(MatrixView<const std::uint8_t> given, const SolverOptions& options) {
  std::string why = "the pattern does not say that it goes with a caller's mask (refusal)";
  if constexpr (Refuses<P>) why = P::refusal(B::to_host(given).view(), options);
  if (!why.empty()) throw argument_error("mask (out, in): contradicts the pattern: " + why);
}

}  // namespace detail
}  // namespace pare
