// Compression<...>: what a solver does, described by types and checked at compile time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pare/allocation/policies.hpp"
#include "pare/core/backend.hpp"
#include "pare/quantization/quantizer.hpp"
#include "pare/sparsity/mask_search.hpp"
#include "pare/sparsity/pattern.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

template <class T>
inline constexpr bool is_tiers = false;
template <int... Bits>
inline constexpr bool is_tiers<Tiers<Bits...>> = true;

template <class T>
inline constexpr bool is_target = false;
template <int Numerator, int Denominator>
inline constexpr bool is_target<TargetAverageBits<Numerator, Denominator>> = true;

template <class T>
using IsTiers = std::bool_constant<is_tiers<T>>;
template <class T>
using IsTarget = std::bool_constant<is_target<T>>;

}  // namespace detail

/// Base of every objective: by it MixedPrecision<...> knows one. An objective of one's own is callable
/// as `std::vector<double> f(const ScoringInput<B, T>&, ChannelAxis) const`: it returns a finite number
/// >= 0 for every channel of the axis, and a policy sees these.
struct ObjectiveOption {};

/// Objective of MixedPrecision: a policy sees the five-signal score of every channel.
struct FiveSignals : ObjectiveOption {};

/// Objective of MixedPrecision: a policy sees what rounding loses, by grid and factor
/// (channel_distortion). Budget then spends bits along the channels' own curves, of which a score
/// knows one point; other policies rank channels by their loss at the base width.
struct GridDistortion : ObjectiveOption {};

namespace detail {

template <class T>
inline constexpr bool is_objective = std::is_base_of_v<ObjectiveOption, T>;
template <class T>
using IsObjective = std::bool_constant<is_objective<T>>;

/// The first of a list that satisfies a predicate, or Default.
template <class Default, template <class> class Predicate, class... Options>
struct FirstOf {
  using type = Default;
};
template <class Default, template <class> class Predicate, class Head, class... Tail>
struct FirstOf<Default, Predicate, Head, Tail...> {
  using type = typename std::conditional_t<Predicate<Head>::value, std::type_identity<Head>,
                                           FirstOf<Default, Predicate, Tail...>>::type;
};

/// The static arguments of MixedPrecision; always true. One message per misuse.
template <class... Fixed>
constexpr bool check_fixed() {
  constexpr bool known = ((is_tiers<Fixed> || is_target<Fixed> || is_objective<Fixed>)&&...);
  static_assert(known,
                "pare: MixedPrecision<Policy, ...>: an argument is neither Tiers nor "
                "TargetAverageBits nor an objective; write for instance MixedPrecision<Budget, "
                "GridDistortion, Tiers<2, 3, 4>, TargetAverageBits<5, 2>>");
  if constexpr (known && (0 + ... + sizeof(Fixed)) > 0) {  // sizeof: every argument checks itself
    constexpr int tiers = (int(is_tiers<Fixed>) + ...), targets = (int(is_target<Fixed>) + ...);
    constexpr bool once = tiers <= 1 && targets <= 1 && (int(is_objective<Fixed>) + ...) <= 1;
    static_assert(once,
                  "pare: MixedPrecision<Policy, ...> with two Tiers, two TargetAverageBits or two "
                  "objectives: only one can be in force; write one of each");
    if constexpr (once && targets == 1) {
      using Target = typename FirstOf<void, IsTarget, Fixed...>::type;
      using Widths = typename FirstOf<DefaultTiers, IsTiers, Fixed...>::type;
      static_assert(Target::value >= Widths::values.front(),
                    "pare: MixedPrecision<...> with a target below the lowest tier: no choice of "
                    "widths has so few bits; write a higher target or a lower tier");
      static_assert(Target::value <= Widths::values.back(),
                    "pare: MixedPrecision<...> with a target above the highest tier: no choice of "
                    "widths has so many bits; write a lower target or a higher tier");
    }
  }
  return true;
}

}  // namespace detail

/// In a policy's place: nothing is chosen, the widths are given to the solver's solve().
struct Assigned {};

namespace detail {

/// The policy of MixedPrecision and what stands beside it; always true.
template <class Policy, class... Fixed>
constexpr bool check_mixed() {
  if constexpr (std::is_same_v<Policy, Assigned>) {
    static_assert(sizeof...(Fixed) == 0,
                  "pare: MixedPrecision<Assigned, ...> with Tiers, TargetAverageBits or an "
                  "objective: the widths are given to solve(), nothing is left to choose; write "
                  "MixedPrecision<Assigned>");
    return true;
  } else {
    return check_policy<Policy>() && check_fixed<Fixed...>();
  }
}

}  // namespace detail

/// One bit width per channel, chosen by a policy from what an objective says of the channels.
/// @tparam Policy  models AllocationPolicy, or Assigned: the widths are given to solve()
/// @tparam Fixed   an objective, FiveSignals unless it is named; Tiers<...> and
///                 TargetAverageBits<...> where they are known at compile time, otherwise they are
///                 options of the solver
template <class Policy, class... Fixed>
struct MixedPrecision {
  static_assert(detail::check_mixed<Policy, Fixed...>());
  /// Who chooses.
  using policy = Policy;
  /// Tiers<...>, or void when they are an option.
  using tiers = typename detail::FirstOf<void, detail::IsTiers, Fixed...>::type;
  /// TargetAverageBits<...>, or void when it is an option.
  using target = typename detail::FirstOf<void, detail::IsTarget, Fixed...>::type;
  /// FiveSignals, GridDistortion, or one's own.
  using objective = typename detail::FirstOf<FiveSignals, detail::IsObjective, Fixed...>::type;
};

namespace detail {

template <class T>
inline constexpr bool is_mixed = false;
template <class P, class... Fixed>
inline constexpr bool is_mixed<MixedPrecision<P, Fixed...>> = true;

template <class T>
using IsPattern = std::bool_constant<is_pattern<T>>;
template <class T>
using IsQuantizer = std::bool_constant<is_quantizer<T>>;
template <class T>
using IsMixed = std::bool_constant<is_mixed<T>>;

template <class T>
inline constexpr bool is_search = std::is_same_v<T, Alternating> || std::is_same_v<T, Refined> ||
                                  std::is_same_v<T, DynamicSearch>;
template <class T>
using IsSearch = std::bool_constant<is_search<T>>;

template <class T>
inline constexpr bool is_assigned = false;
template <class... Fixed>
inline constexpr bool is_assigned<MixedPrecision<Assigned, Fixed...>> = true;
template <class T>
inline constexpr bool has_static_width = false;
template <class T>
  requires is_quantizer<T> && HasBits<T>
inline constexpr bool has_static_width<T> = T::bits != dynamic;
/// Rounds to one width and no other.
template <class T>
inline constexpr bool has_one_width = has_static_width<T> && !is_uniform<T>;
template <class T>
inline constexpr bool is_by_distortion = false;
template <class P, class... Fixed>
inline constexpr bool is_by_distortion<MixedPrecision<P, Fixed...>> =
    std::is_same_v<typename MixedPrecision<P, Fixed...>::objective, GridDistortion>;

/// Always true; a quantizer of one's own is told what it lacks.
template <class Option>
constexpr bool check_if_quantizer() {
  if constexpr (is_quantizer<Option> && !is_uniform<Option>)
    return check_quantizer<Option, float>();
  return true;
}

/// Stands for MixedPrecision where there is none.
struct NoMixedPrecision {
  using policy = void;
  using tiers = void;
  using target = void;
  using objective = void;
};

/// Whether every type of a list differs from the others.
template <class... Options>
inline constexpr bool all_different = true;
template <class Head, class... Tail>
inline constexpr bool all_different<Head, Tail...> =
    !(std::is_same_v<Head, Tail> || ...) && all_different<Tail...>;

/// Always true. Later checks need the earlier ones, so that one misuse gives one message.
template <class... Options>
constexpr bool check_compression() {
  constexpr bool known = ((is_pattern<Options> || is_quantizer<Options> || is_mixed<Options> ||
                           is_search<Options>)&&...);
  static_assert(known,
                "pare: Compression<...>: an option is neither a pattern, nor a quantizer, nor "
                "MixedPrecision, nor a search for masks; write for instance "
                "Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>, Alternating>");
  // sizeof: every option checks itself first
  if constexpr (known && (0 + ... + sizeof(Options)) + 1 > 0) {
    constexpr int patterns = (0 + ... + int(is_pattern<Options>));
    constexpr int quantizers = (0 + ... + int(is_quantizer<Options>));
    constexpr int mixed = (0 + ... + int(is_mixed<Options>));
    constexpr int searches = (0 + ... + int(is_search<Options>));
    constexpr bool dense = (std::is_same_v<Options, Dense> || ...);
    static_assert(all_different<Options...>,
                  "pare: Compression<...> with the same option twice: the second says nothing "
                  "new; write every option once");
    if constexpr (all_different<Options...>) {
      static_assert(patterns >= 1,
                    "pare: Compression<...> without a pattern: it says which weights may go; "
                    "write one of Dense, Unstructured, NofM<>");
      static_assert(patterns <= 1,
                    "pare: Compression<...> with two patterns: a linear has one; write one of "
                    "Dense, Unstructured, NofM<>");
    }
    if constexpr (all_different<Options...> && patterns == 1) {
      static_assert(quantizers <= 1,
                    "pare: Compression<...> with two quantizers: a weight is rounded once; write "
                    "one BaseQuantizer");
      static_assert(quantizers > 1 || mixed <= 1,
                    "pare: Compression<...> with two MixedPrecision: a channel has one width; "
                    "write one MixedPrecision<Policy>");
      static_assert(mixed != 1 || quantizers >= 1,
                    "pare: MixedPrecision<...> without a BaseQuantizer: bits would be chosen and "
                    "nothing rounded; write Compression<Pattern, BaseQuantizer, "
                    "MixedPrecision<Policy>>");
      static_assert(quantizers != 1 || mixed != 1 || !(has_static_width<Options> || ...) ||
                        !(is_assigned<Options> || ...),
                    "pare: MixedPrecision<Assigned> with a static width: the widths are given to "
                    "solve(), the quantizer's would be ignored; write BaseQuantizer");
      static_assert(quantizers != 1 || mixed != 1 || (is_assigned<Options> || ...) ||
                        !(has_one_width<Options> || ...),
                    "pare: MixedPrecision<...> with a quantizer of one width: no channel could get "
                    "another; write a quantizer with static constexpr int bits = dynamic");
      static_assert(
          quantizers != 1 || !(is_by_distortion<Options> || ...) || (is_uniform<Options> || ...),
          "pare: GridDistortion with a quantizer of one's own: it knows what uniform grids "
          "lose; write FiveSignals or an objective of your own");
      static_assert((check_if_quantizer<Options>() && ...));
      static_assert(searches <= 1,
                    "pare: Compression<...> with two of Alternating, Refined and DynamicSearch: "
                    "Alternating solves the weights that stay exactly, as Refined does; write one");
      static_assert(!dense || searches != 1 || !(std::is_same_v<Options, Alternating> || ...),
                    "pare: Compression<Dense, Alternating>: without a pattern there is no mask to "
                    "search for; write Unstructured or NofM<>, or Refined for a mask that is "
                    "given to solve()");
      static_assert(
          !(std::is_same_v<Options, Alternating> || ...) || !(is_custom_pattern<Options> || ...),
          "pare: Alternating with a pattern of one's own: the search has to project on the "
          "pattern, which it knows of Unstructured and NofM<> alone; write Refined");
      static_assert(quantizers > 0 || mixed > 0 || !dense || searches > 0,
                    "pare: Compression<Dense> without a quantizer: there is nothing to do; write "
                    "Compression<Dense, BaseQuantizer> or a sparsity pattern");
    }
  }
  return true;
}

}  // namespace detail

/// Compression<Pattern, Quantizer, MixedPrecision<Policy>, Search>; the last three may be left out.
template <class... Options>
struct Compression {
  static_assert(detail::check_compression<Options...>());
  /// Dense, Unstructured, NofM, or one's own.
  using pattern = typename detail::FirstOf<Dense, detail::IsPattern, Options...>::type;
  /// UniformQuantizer, one's own, or void when nothing is rounded.
  using quantizer = typename detail::FirstOf<void, detail::IsQuantizer, Options...>::type;
  /// MixedPrecision, or a stand-in of voids.
  using mixed_precision =
      typename detail::FirstOf<detail::NoMixedPrecision, detail::IsMixed, Options...>::type;
  /// Who chooses widths, or void when there is one for all.
  using policy = typename mixed_precision::policy;

  /// Alternating, Refined or DynamicSearch, or void: the greedy mask, and weights as the sweep
  /// leaves them.
  using search = typename detail::FirstOf<void, detail::IsSearch, Options...>::type;

  /// Whether more than the greedy sweep is asked for, or may be when it runs.
  static constexpr bool searches = !std::is_void_v<search>;
  /// Whether weights are pruned.
  static constexpr bool prunes = !std::is_same_v<pattern, Dense>;
  /// Whether weights are rounded to grids.
  static constexpr bool quantizes = !std::is_void_v<quantizer>;
  /// Whether every channel has its own width.
  static constexpr bool mixed = !std::is_void_v<policy>;
  /// Whether the widths are given to solve().
  static constexpr bool assigned = std::is_same_v<policy, Assigned>;
};

namespace detail {

template <class T>
inline constexpr bool is_compression = false;
template <class... Options>
inline constexpr bool is_compression<Compression<Options...>> = true;

/// Compression<...> of those that are not void.
template <class Found, class... Left>
struct CompressionOf;
template <class... Found>
struct CompressionOf<Compression<Found...>*> {
  using type = Compression<Found...>;
};
template <class... Found, class Head, class... Tail>
struct CompressionOf<Compression<Found...>*, Head, Tail...> {
  using type = typename std::conditional_t<
      std::is_void_v<Head>, std::type_identity<CompressionOf<Compression<Found...>*, Tail...>>,
      std::type_identity<CompressionOf<Compression<Found..., Head>*, Tail...>>>::type::type;
};
/// MixedPrecision<...>, or void for its stand-in.
template <class Config>
using MixedOrVoid = std::conditional_t<Config::mixed, typename Config::mixed_precision, void>;
/// The configuration that a search is held against: the same without it. Where there is a mask
/// that is given and nothing else, a pattern that prunes no more.
template <class Config>
using WithoutSearch =
    typename CompressionOf<Compression<std::conditional_t<Config::prunes || Config::quantizes,
                                                          typename Config::pattern, Unstructured>>*,
                           typename Config::quantizer, MixedOrVoid<Config>>::type;
/// The configuration that rounds weights whose mask is known.
template <class Config>
using RoundingOnly = typename CompressionOf<Compression<Dense>*, typename Config::quantizer,
                                            MixedOrVoid<Config>>::type;

}  // namespace detail

}  // namespace pare
