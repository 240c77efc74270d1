// Exponentials and their kin without branches or calls, and a loop over them that compilers
// vectorise. For float and double, on hosts.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// c[0] + c[1] x + c[2] x^2 + ...
template <std::size_t first = 0, class T, std::size_t n>
PARE_INLINE T polynomial(const T (&c)[n], T x) {
  if constexpr (first + 1 < n)
    return c[first] + x * polynomial<first + 1>(c, x);
  else
    return c[first];
}

/// @cond
/// Constants of a format of IEEE 754.
template <class T>
struct VectorConstants;
// tail: exp(y^2 / 2) Phi(-y) (1 + 0.8 y) as a polynomial in u = (y - m) / (y + m), m = tail_middle,
// interpolated at the Chebyshev nodes of 0 <= y <= largest_tail with 60 digits. The mapping is of
// Shepherd and Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x (1981).
template <>
struct VectorConstants<float> {
  using bits = std::uint32_t;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float shift = 0x1.8p23f;  ///< its sum with a small number is an integer
  static constexpr float ln2_high = 0x1.62ep-1f, ln2_low = 0x1.0bfbe8p-15f;
  static constexpr float largest_exponent = 104;
  static constexpr float largest_tanh = 10;
  /// 1 / k! from k = 2 on.
  static constexpr float factorials[] = {1.0f / 2,   1.0f / 6,   1.0f / 24,
                                         1.0f / 120, 1.0f / 720, 1.0f / 5040};
  static constexpr float tail_middle = 3.5f, largest_tail = 14.5f;
  static constexpr float tail[] = {0x1.9dcf6ep-2f,   -0x1.d97d5p-4f,   0x1.a6b862p-6f,
                                   0x1.28bacp-6f,    -0x1.4e2954p-6f,  0x1.05b0aap-7f,
                                   -0x1.8d465ep-15f, -0x1.10884cp-10f, 0x1.c82dccp-14f,
                                   0x1.f22474p-14f};
};
template <>
struct VectorConstants<double> {
  using bits = std::uint64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double shift = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fefa2p-1, ln2_low = 0x1.9ef35793c7673p-41;
  static constexpr double largest_exponent = 746;
  static constexpr double largest_tanh = 20;
  static constexpr double factorials[] = {1.0 / 2,        1.0 / 6,         1.0 / 24,
                                          1.0 / 120,      1.0 / 720,       1.0 / 5040,
                                          1.0 / 40320,    1.0 / 362880,    1.0 / 3628800,
                                          1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  static constexpr double tail_middle = 5, largest_tail = 39;
  static constexpr double tail[] = {
      0x1.89d3abe1f95adp-2,   -0x1.a184d9ab9c04dp-4, 0x1.89871b891fe53p-5,   -0x1.0bdffa363da01p-7,
      -0x1.7a7671267ad4cp-7,  0x1.e9c6c43335688p-7,  -0x1.52c1eaeb9061fp-7,  0x1.36c2bb81b5582p-8,
      -0x1.53fcb3fd38fadp-10, 0x1.1592a5ccd65a9p-15, 0x1.18904d6bcbdb3p-13,  -0x1.66290ff4e8d62p-15,
      -0x1.ba79139915f7ap-18, 0x1.d5a6e7164e76ep-18, -0x1.7eaf5d639bc50p-23, -0x1.0cc6dea719e2dp-20,
      0x1.a6424cfd5a63bp-24,  0x1.3d6e8bb141926p-23, -0x1.e7829e8f76d9cp-28, -0x1.3651bd934c983p-26,
      -0x1.76773f41a070bp-29};
};
/// @endcond

/// The functions of LibraryMath. Relative errors are below 3e-7 for float and 1e-14 for double.
struct VectorMath {
  /// exp(x).
  template <std::floating_point T>
  PARE_INLINE static T exp(T x) {
    using C = VectorConstants<T>;
    const Reduced<T> r(clamped(x, C::largest_exponent));
    // Two factors: 2^power itself may lie beyond the type where the result does not.
    const std::int32_t half = r.power >> 1;
    return (T(1) + r.fraction) * power_of_two<T>(half) * power_of_two<T>(r.power - half);
  }

  /// tanh(x).
  template <std::floating_point T>
  PARE_INLINE static T tanh(T x) {
    const Reduced<T> r(T(2) * clamped(x, VectorConstants<T>::largest_tanh));
    const T scale = power_of_two<T>(r.power);
    const T expm1 = scale * r.fraction + (scale - T(1));  // of 2x
    return expm1 / (expm1 + T(2));
  }

  /// y Phi(-y) for y >= 0 with the normal distribution's Phi.
  template <std::floating_point T>
  PARE_INLINE static T normal_tail(T y) {
    using C = VectorConstants<T>;
    y = clamped(y, C::largest_tail);
    const T u = (y - C::tail_middle) / (y + C::tail_middle);
    return y * exp(y * y * T(-0.5)) * polynomial(C::tail, u) / (T(1) + T(0.8) * y);
  }

 private:
  /// exp(x) = (1 + fraction) 2^power. |x| stays below 2^10; a NaN is a NaN in `fraction`.
  template <class T>
  struct Reduced {
    T fraction;
    std::int32_t power;
    PARE_INLINE explicit Reduced(T x) {
      using C = VectorConstants<T>;
      using Bits = typename C::bits;
      // The nearest integer stands in the last bits of a sum; no compiler may reorder what it
      // does not see.
      const T sum = x * T(1.44269504088896340736) + C::shift;
      power = std::int32_t(std::bit_cast<Bits>(sum) - std::bit_cast<Bits>(C::shift));
      const T rest = (x - T(power) * C::ln2_high) - T(power) * C::ln2_low;
      fraction = rest + rest * rest * polynomial(C::factorials, rest);
    }
  };

  template <class T>
  PARE_INLINE static T power_of_two(std::int32_t power) {
    using C = VectorConstants<T>;
    using Bits = typename C::bits;
    return std::bit_cast<T>((Bits(power) + Bits(C::bias)) << C::mantissa);
  }

  /// x with |x| at most `most`; a NaN stays one. In integers: comparisons of floats may raise flags of
  /// the processor, and GCC keeps branches around them.
  template <class T>
  PARE_INLINE static T clamped(T x, T most) {
    using Bits = typename VectorConstants<T>::bits;
    using Signed = std::make_signed_t<Bits>;
    const Bits bits = std::bit_cast<Bits>(x);
    const auto size = Signed(bits & ~Bits(0) >> 1);
    const auto limit = std::bit_cast<Signed>(most);
    const auto infinity = std::bit_cast<Signed>(std::numeric_limits<T>::infinity());
    const Signed finite = size > limit ? limit : size;
    return std::bit_cast<T>((size > infinity ? Bits(size) : Bits(finite)) |
                            (bits & ~(~Bits(0) >> 1)));
  }
};

/// Neighbours in a row that are done together.
template <class T>
struct RowBlock {
  static constexpr index_t width = 128 / index_t(sizeof(T));  ///< how many
  T values[width] = {};                                       ///< theirs

  RowBlock() = default;
  /// The first `count` from a row, zeros behind them.
  RowBlock(const T* from, index_t count) { std::copy_n(from, count, values); }
};

/// out[j] = f(in[j]...) for j < n; `out` may be one of the inputs. Blocks are of a size that the
/// compiler knows, and the rest of a row runs in a block too: where an element stands changes none
/// of its digits.
template <class T, class F, class... In>
void map_row(index_t n, T* out, const F& f, const In*... in) {
  constexpr index_t width = RowBlock<T>::width;
  RowBlock<T> results;
  const auto run = [&](const auto*... from) {
    for (index_t l = 0; l < width; ++l) results.values[l] = f(from[l]...);
  };
  index_t j = 0;
  for (; j + width <= n; j += width) {
    run((in + j)...);
    std::copy_n(results.values, width, out + j);
  }
  if (j == n) return;
  run(RowBlock<T>(in + j, n - j).values...);
  std::copy_n(results.values, n - j, out + j);
}

}  // namespace pare::kernels
