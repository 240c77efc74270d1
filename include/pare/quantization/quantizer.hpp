// What a quantizer is: the concept, uniform grids as its first model, and what others are told.
#pragma once

#include <concepts>
#include <type_traits>

#include "pare/core/scalar.hpp"
#include "pare/quantization/fit.hpp"
#include "pare/quantization/grid.hpp"

namespace pare::inline PARE_TARGET {

/// Base of every quantizer: by it Compression<...> knows one.
struct QuantizerOption {};

/// A way to round weights: static functions that run wherever a backend computes.
///
/// - `Q::bits`: the width of a code in bits where the type fixes it, otherwise `dynamic`: the
///   solver's option says it.
/// - `Q::grid<T>`: the values that a run of weights may take, as plain data made of T alone; for
///   instance one scale, or a codebook.
/// - `Q::fit(w, n, bits, options)`: the grid of n >= 1 contiguous finite weights, `const T* w`.
/// - `Q::round(x, grid)`: the value of the grid that stands for x. It must be finite, round(0) must
///   be 0 where weights are pruned as well, and round(round(x)) must be round(x).
/// - `Q::on_grid(x, grid)`: whether x is a value of the grid; post-condition 3 asks it of every
///   weight.
/// - `Q::grid_bits<T>(bits)`: bits that a file needs for one grid; they are counted as stored bits.
///
/// Functions are marked PARE_HOST_DEVICE so that they run on a GPU as well. A quantizer that heeds
/// GridOptions has `static constexpr bool takes_grid_options = true`; with others the solver refuses
/// these options.
template <class Q, class T>
concept Quantizer = std::derived_from<Q, QuantizerOption> &&
    requires(const T* w, index_t n, int bits, GridOptions options, T x) {
  typename Q::template grid<T>;
  { Q::bits } -> std::convertible_to<int>;
  { Q::fit(w, n, bits, options) } -> std::same_as<typename Q::template grid<T>>;
  { Q::round(x, Q::fit(w, n, bits, options)) } -> std::same_as<T>;
  { Q::on_grid(x, Q::fit(w, n, bits, options)) } -> std::same_as<bool>;
  { Q::template grid_bits<T>(bits) } -> std::convertible_to<double>;
} && std::is_trivially_copyable_v<typename Q::template grid<T>> &&
        sizeof(typename Q::template grid<T>) %
        sizeof(T) ==
    0;

/// Rounds every weight to a uniform grid. The width is the solver's option `.bits` unless it is
/// static.
template <int Bits = dynamic>
struct UniformQuantizer : QuantizerOption {
  static_assert(Bits == dynamic || (Bits >= min_bits && Bits <= max_bits),
                "pare: UniformQuantizer<Bits> outside 2..8: no grid has that width; write a width "
                "within 2..8, or BaseQuantizer with the option .bits");
  /// The width, or `dynamic`.
  static constexpr int bits = Bits;
  /// Symmetric grids, clip search and half scales are its options.
  static constexpr bool takes_grid_options = true;
  /// Scale, zero and largest code.
  template <class T>
  using grid = Grid<T>;

  /// fit_grid().
  template <class T>
  PARE_HOST_DEVICE static Grid<T> fit(const T* w, index_t n, int width, GridOptions options) {
    return fit_grid(w, n, width, options);
  }
  /// round_to_grid().
  template <class T>
  PARE_HOST_DEVICE static T round(T x, const Grid<T>& g) {
    return round_to_grid(x, g.scale, g.zero, g.top);
  }
  /// Whether rounding changes nothing.
  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const Grid<T>& g) {
    return round(x, g) == x;
  }
  /// A float16 scale and an 8-bit zero point, as packed files have them.
  template <class T>
  static constexpr double grid_bits(int) {
    return 16 + 8;
  }
};

/// The quantizer whose width is a run-time option.
using BaseQuantizer = UniformQuantizer<>;

namespace detail {

template <class T>
inline constexpr bool is_quantizer = std::is_base_of_v<QuantizerOption, T>;
template <class T>
inline constexpr bool is_uniform = false;
template <int Bits>
inline constexpr bool is_uniform<UniformQuantizer<Bits>> = true;

/// Whether a quantizer heeds GridOptions.
template <class Q>
inline constexpr bool takes_grid_options = false;
template <class Q>
  requires requires { requires Q::takes_grid_options; }
inline constexpr bool takes_grid_options<Q> = true;

template <class Q, class T>
concept HasGrid = requires {
  typename Q::template grid<T>;
}
&&std::is_trivially_copyable_v<typename Q::template grid<T>> &&
    sizeof(typename Q::template grid<T>) % sizeof(T) == 0;
template <class Q>
concept HasBits = requires {
  { Q::bits } -> std::convertible_to<int>;
};
template <class Q, class T>
concept Fits = requires(const T* w, index_t n, int bits, GridOptions options) {
  { Q::fit(w, n, bits, options) } -> std::same_as<typename Q::template grid<T>>;
};
template <class Q, class T>
concept Rounds = requires(const typename Q::template grid<T>& grid, T x) {
  { Q::round(x, grid) } -> std::same_as<T>;
};
template <class Q, class T>
concept KnowsItsValues = requires(const typename Q::template grid<T>& grid, T x) {
  { Q::on_grid(x, grid) } -> std::same_as<bool>;
};
template <class Q, class T>
concept CountsGridBits = requires(int bits) {
  { Q::template grid_bits<T>(bits) } -> std::convertible_to<double>;
};

/// Always true. One message per member that a quantizer lacks.
template <class Q, class T>
constexpr bool check_quantizer() {
  static_assert(HasBits<Q>,
                "pare: a quantizer without bits: the width of its codes is counted and stored; "
                "write static constexpr int bits = dynamic (the option .bits says it) or a width");
  static_assert(!HasBits<Q> || HasGrid<Q, T>,
                "pare: a quantizer without grid<T>: it is what fit returns and round reads; write "
                "template <class T> struct grid with members of type T alone");
  if constexpr (HasBits<Q> && HasGrid<Q, T>) {
    static_assert(Fits<Q, T>,
                  "pare: a quantizer without fit: nothing says which values a run of weights may "
                  "take; write template <class T> PARE_HOST_DEVICE static grid<T> fit(const T* w, "
                  "index_t n, int bits, GridOptions options)");
    static_assert(!Fits<Q, T> || Rounds<Q, T>,
                  "pare: a quantizer without round: nothing says which value stands for a weight; "
                  "write template <class T> PARE_HOST_DEVICE static T round(T x, const grid<T>&)");
    static_assert(!Fits<Q, T> || !Rounds<Q, T> || KnowsItsValues<Q, T>,
                  "pare: a quantizer without on_grid: post-condition 3 could not be checked; write "
                  "template <class T> PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>&)");
    static_assert(!Fits<Q, T> || !Rounds<Q, T> || !KnowsItsValues<Q, T> || CountsGridBits<Q, T>,
                  "pare: a quantizer without grid_bits: stored bits could not be counted; write "
                  "template <class T> static constexpr double grid_bits(int bits)");
  }
  return true;
}

}  // namespace detail

static_assert(Quantizer<BaseQuantizer, float> && Quantizer<BaseQuantizer, double>);

}  // namespace pare
