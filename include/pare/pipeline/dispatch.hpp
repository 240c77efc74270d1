// Options read at run time become types here, and nowhere else.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {

/// No policy (one width for all), Quantile or Budget.
enum class PolicyKind : std::uint8_t { none, quantile, budget };

/// What a program was asked for, all that becomes types included.
struct CompressionRequest {
  /// Who chooses the widths.
  PolicyKind policy = PolicyKind::none;
  /// What is pruned, whether weights are rounded, and how: an option that is set asks for it.
  SolverOptions solver = {};

  /// What is pruned.
  Pattern pattern() const { return pattern_of(solver); }
  /// Whether weights are rounded to grids.
  bool quantizes() const { return solver.bits.has_value(); }
  /// Whether the same is asked for.
  friend bool operator==(const CompressionRequest&, const CompressionRequest&) = default;
};

namespace detail {

template <class F, class... Configs>
constexpr bool check_dispatch_of() {
  constexpr bool all = (std::invocable<F&, std::type_identity<Configs>> && ...);
  static_assert(all,
                "pare: dispatch(request, f) with an f that does not take every configuration: "
                "which one it gets is known at run time only; write "
                "[]<class Config>(std::type_identity<Config>) { ... }");
  if constexpr (all) {
    using First = std::tuple_element_t<0, std::tuple<Configs...>>;
    using Result = std::invoke_result_t<F&, std::type_identity<First>>;
    static_assert(
        (std::same_as<Result, std::invoke_result_t<F&, std::type_identity<Configs>>> && ...),
        "pare: dispatch(request, f) with an f that returns different types: which configuration "
        "it gets is known at run time only; return one type for all");
  }
  return true;
}

/// Always true. One message per misuse of dispatch's callable.
template <class F>
constexpr bool check_dispatch() {
  using Search = DynamicSearch;
  return check_dispatch_of<
      F, Compression<Dense, Search>, Compression<Unstructured, Search>, Compression<NofM<>, Search>,
      Compression<Dense, BaseQuantizer, Search>, Compression<Unstructured, BaseQuantizer, Search>,
      Compression<NofM<>, BaseQuantizer, Search>,
      Compression<Dense, BaseQuantizer, MixedPrecision<Quantile>, Search>,
      Compression<Unstructured, BaseQuantizer, MixedPrecision<Quantile>, Search>,
      Compression<NofM<>, BaseQuantizer, MixedPrecision<Quantile>, Search>,
      Compression<Dense, BaseQuantizer, MixedPrecision<Budget>, Search>,
      Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>, Search>,
      Compression<NofM<>, BaseQuantizer, MixedPrecision<Budget>, Search>>();
}

template <class Pattern, class F>
auto dispatch_bits(const CompressionRequest& request, F&& f) {
  const auto call = [&]<class Config>(std::type_identity<Config> config) {
    return std::forward<F>(f)(config);
  };
  using std::type_identity;
  switch (request.policy) {
    case PolicyKind::quantile:
      return call(type_identity<
                  Compression<Pattern, BaseQuantizer, MixedPrecision<Quantile>, DynamicSearch>>{});
    case PolicyKind::budget:
      return call(type_identity<
                  Compression<Pattern, BaseQuantizer, MixedPrecision<Budget>, DynamicSearch>>{});
    case PolicyKind::none:
      break;
  }
  if (!request.quantizes()) return call(type_identity<Compression<Pattern, DynamicSearch>>{});
  return call(type_identity<Compression<Pattern, BaseQuantizer, DynamicSearch>>{});
}

}  // namespace detail

/// Calls f(std::type_identity<Compression<...>>{}) for the configuration a request describes. Each
/// has DynamicSearch: how masks are found stays an option.
/// @throws argument_error when no configuration describes it
template <class F>
auto dispatch(const CompressionRequest& request, F&& f) {
  static_assert(detail::check_dispatch<F>());
  if (request.policy != PolicyKind::none && !request.quantizes())
    throw argument_error(
        "policy: mixed precision without a base quantizer would choose bits and round nothing; "
        "set solver.bits");
  const PatternKind pattern = request.pattern().kind;
  if (pattern == PatternKind::dense && !request.quantizes() && !request.solver.refine)
    throw argument_error(
        "pattern: dense without a quantizer leaves nothing to do; ask for a "
        "sparsity or for bits, or refine the weights that a given mask leaves");
  switch (pattern) {
    case PatternKind::unstructured:
      return detail::dispatch_bits<Unstructured>(request, std::forward<F>(f));
    case PatternKind::n_of_m:
      return detail::dispatch_bits<NofM<>>(request, std::forward<F>(f));
    case PatternKind::dense:
      break;
  }
  return detail::dispatch_bits<Dense>(request, std::forward<F>(f));
}

}  // namespace pare
