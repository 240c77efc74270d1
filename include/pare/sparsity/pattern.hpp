// The sparsity patterns a linear can be given.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "pare/core/config.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"

namespace pare::inline PARE_TARGET {

/// What Dense, Unstructured and NofM are called at run time.
enum class PatternKind : std::uint8_t { dense, unstructured, n_of_m };

/// What is pruned of one linear, as data.
struct Pattern {
  /// Which pattern.
  PatternKind kind = PatternKind::dense;
  double sparsity = 0;  ///< unstructured: share of weights zeroed, [0, 1); 0 where it is not known
  int zeros = 0, of = 0;  ///< n:m: `zeros` of every `of` consecutive inputs; 0 where not known

  /// Whether weights are pruned.
  constexpr bool prunes() const { return kind != PatternKind::dense; }
  /// Whether two linears lose the same.
  friend constexpr bool operator==(const Pattern&, const Pattern&) = default;
};

/// The pattern that zeroes a share of all weights.
/// @param sparsity  the share, [0, 1)
constexpr Pattern unstructured(double sparsity) {
  return {PatternKind::unstructured, sparsity, 0, 0};
}
/// The pattern that zeroes `zeros` of every `of` consecutive inputs.
constexpr Pattern n_of_m(int zeros, int of) { return {PatternKind::n_of_m, 0, zeros, of}; }

/// "dense", "50%" or "2:4".
inline std::string to_string(const Pattern& pattern) {
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

/// No pruning: every weight may stay.
struct Dense {
  /// The same as data.
  constexpr operator Pattern() const { return {}; }
};

/// A share of all weights is zeroed, wherever the saliency is smallest. The share is the solver's
/// option `.sparsity`.
struct Unstructured {
  /// The same as data, its share not known.
  constexpr operator Pattern() const { return unstructured(0); }
};

/// `Zeros` of every `Of` consecutive input weights are zeroed (2:4 is NofM<2, 4>).
/// Both numbers are options of the solver when they are `dynamic`.
template <int Zeros = dynamic, int Of = dynamic>
struct NofM {
  static_assert((Zeros == dynamic) == (Of == dynamic),
                "pare: NofM with one static number: the pattern needs both; write NofM<2, 4> or "
                "NofM<> with the options .zeros and .of");
  static_assert(Zeros == dynamic || Of == dynamic || (Zeros > 0 && Zeros < Of),
                "pare: NofM<n, m> outside 0 < n < m: every m must lose some weights and keep some; "
                "write for instance NofM<2, 4>");
  /// Weights zeroed of every `of`, or `dynamic`.
  static constexpr int zeros = Zeros;
  /// Consecutive inputs that lose `zeros`, or `dynamic`.
  static constexpr int of = Of;
  /// The same as data; numbers that are `dynamic` are not known.
  constexpr operator Pattern() const { return Zeros == dynamic ? n_of_m(0, 0) : n_of_m(Zeros, Of); }
};

/// Whether T is an NofM pattern.
template <class T>
inline constexpr bool is_n_of_m = false;
/// True for every NofM.
template <int Zeros, int Of>
inline constexpr bool is_n_of_m<NofM<Zeros, Of>> = true;

/// Whether T is Unstructured.
template <class T>
inline constexpr bool is_unstructured = false;
/// True for Unstructured alone.
template <>
inline constexpr bool is_unstructured<Unstructured> = true;

/// Base of every pattern of one's own: by it Compression<...> knows one; see MaskPattern.
struct PatternOption {};

/// Whether T is a sparsity pattern of one's own.
template <class T>
inline constexpr bool is_custom_pattern = std::is_base_of_v<PatternOption, T>;

/// Whether T is a sparsity pattern.
template <class T>
inline constexpr bool is_pattern = is_unstructured<T> || is_n_of_m<T> || is_custom_pattern<T>;
/// Dense is one too.
template <>
inline constexpr bool is_pattern<Dense> = true;

}  // namespace pare
