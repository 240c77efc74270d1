// Compression<...>: what a solver does, described by types and checked at compile time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pare/allocation/policies.hpp"
#include "pare/core/backend.hpp"
#include "pare/quantization/grid.hpp"
#include "pare/sparsity/pattern.hpp"

namespace pare {

/// Rounds every weight to a grid. The width is the solver's option `.bits` unless it is static.
template <int Bits = dynamic>
struct UniformQuantizer {
  static_assert(Bits == dynamic || (Bits >= min_bits && Bits <= max_bits),
                "pare: UniformQuantizer<Bits> outside 2..8: no grid has that width; write a width "
                "within 2..8, or BaseQuantizer with the option .bits");
  static constexpr int bits = Bits;
};

/// The quantizer whose width is a run-time option.
using BaseQuantizer = UniformQuantizer<>;

/// One bit width per channel, chosen by a policy from the channels' scores.
template <class Policy>
struct MixedPrecision {
  static_assert(AllocationPolicy<Policy>,
                "pare: MixedPrecision<Policy>: Policy does not model AllocationPolicy; write a "
                "type callable as (scores, tiers, target) -> std::vector<std::uint8_t>");
  using policy = Policy;
};

namespace detail {

template <class T>
inline constexpr bool is_quantizer = false;
template <int Bits>
inline constexpr bool is_quantizer<UniformQuantizer<Bits>> = true;

template <class T>
inline constexpr bool is_mixed = false;
template <class P>
inline constexpr bool is_mixed<MixedPrecision<P>> = true;

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
template <class T>
using IsPattern = std::bool_constant<is_pattern<T>>;
template <class T>
using IsQuantizer = std::bool_constant<is_quantizer<T>>;
template <class T>
using IsMixed = std::bool_constant<is_mixed<T>>;

/// The policy of MixedPrecision<P>; void for none.
template <class T>
struct PolicyOf {
  using type = void;
};
template <class P>
struct PolicyOf<MixedPrecision<P>> {
  using type = P;
};

/// Later checks stand behind earlier ones, so that one misuse gives one message.
template <class... Options>
constexpr bool check_compression() {
  constexpr bool known =
      ((is_pattern<Options> || is_quantizer<Options> || is_mixed<Options>) && ...);
  static_assert(known,
                "pare: Compression<...>: an option is neither a pattern, nor a quantizer, nor "
                "MixedPrecision; write for instance Compression<Unstructured, BaseQuantizer, "
                "MixedPrecision<Budget>>");
  if constexpr (known && (sizeof(Options) + ...) > 0) {  // sizeof: every option checks itself
    constexpr int patterns = (int(is_pattern<Options>) + ... + 0);
    constexpr int quantizers = (int(is_quantizer<Options>) + ... + 0);
    constexpr int mixed = (int(is_mixed<Options>) + ... + 0);
    static_assert(patterns == 1,
                  "pare: Compression<...> needs exactly one pattern: it says which weights may "
                  "go; write one of Dense, Unstructured, NofM<>");
    static_assert(patterns != 1 || quantizers <= 1,
                  "pare: Compression<...> with two quantizers: a weight is rounded once; write "
                  "one BaseQuantizer");
    static_assert(patterns != 1 || quantizers > 1 || mixed <= 1,
                  "pare: Compression<...> with two MixedPrecision: a channel has one width; "
                  "write one MixedPrecision<Policy>");
    static_assert(patterns != 1 || mixed != 1 || quantizers >= 1,
                  "pare: MixedPrecision<...> without a BaseQuantizer: bits would be chosen and "
                  "nothing rounded; write Compression<Pattern, BaseQuantizer, "
                  "MixedPrecision<Policy>>");
    static_assert(patterns != 1 || quantizers > 0 || mixed > 0 ||
                      !(std::is_same_v<Options, Dense> || ...),
                  "pare: Compression<Dense> without a quantizer: there is nothing to do; write "
                  "Compression<Dense, BaseQuantizer> or a sparsity pattern");
  }
  return true;
}

}  // namespace detail

/// Compression<Pattern, Quantizer, MixedPrecision<Policy>>; the last two may be left out.
template <class... Options>
struct Compression {
  static_assert(detail::check_compression<Options...>());
  using pattern = typename detail::FirstOf<Dense, detail::IsPattern, Options...>::type;
  using quantizer = typename detail::FirstOf<void, detail::IsQuantizer, Options...>::type;
  using policy = typename detail::PolicyOf<
      typename detail::FirstOf<void, detail::IsMixed, Options...>::type>::type;

  static constexpr bool prunes = !std::is_same_v<pattern, Dense>;
  static constexpr bool quantizes = !std::is_void_v<quantizer>;
  static constexpr bool mixed = !std::is_void_v<policy>;
};

}  // namespace pare
