// The sparsity patterns a linear can be given.
#pragma once

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// A number that is given at run time.
inline constexpr int dynamic = -1;

/// No pruning: every weight may stay.
struct Dense {};

/// A share of all weights is zeroed, wherever the saliency is smallest.
struct Unstructured {};

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

/// Whether T is a sparsity pattern.
template <class T>
inline constexpr bool is_pattern = is_unstructured<T> || is_n_of_m<T>;
/// Dense is one too.
template <>
inline constexpr bool is_pattern<Dense> = true;

}  // namespace pare
