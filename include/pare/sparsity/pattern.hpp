// The sparsity patterns a linear can be given.
#pragma once

namespace pare {

/// A number that is given at run time.
inline constexpr int dynamic = -1;

/// No pruning: every weight may stay.
struct Dense {};

/// A share of all weights is zeroed, wherever the saliency is smallest.
struct Unstructured {};

/// `Zeros` of every `Group` consecutive input weights are zeroed (2:4 is NofM<2, 4>).
/// Both numbers are options of the solver when they are `dynamic`.
template <int Zeros = dynamic, int Group = dynamic>
struct NofM {
  static_assert((Zeros == dynamic) == (Group == dynamic),
                "pare: NofM with one static number: the pattern needs both; write NofM<2, 4> or "
                "NofM<> with the options .zeros and .group");
  static_assert(Zeros == dynamic || Group == dynamic || (Zeros > 0 && Zeros < Group),
                "pare: NofM<n, m> outside 0 < n < m: a group must lose some weights and keep some; "
                "write for instance NofM<2, 4>");
  /// Weights zeroed per group, or `dynamic`.
  static constexpr int zeros = Zeros;
  /// Inputs per group, or `dynamic`.
  static constexpr int group = Group;
};

/// Whether T is an NofM pattern.
template <class T>
inline constexpr bool is_n_of_m = false;
/// True for every NofM.
template <int Zeros, int Group>
inline constexpr bool is_n_of_m<NofM<Zeros, Group>> = true;

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
