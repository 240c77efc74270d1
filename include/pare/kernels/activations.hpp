// Functions of one element in a model's forward pass: activations, soft caps, rotary positions.
//
// Every one has a row form for hosts, which vectorises; HasRowForm says what that is.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <optional>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/vector_math.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// What is done to a linear's output.
enum class Activation : std::uint8_t {
  relu,        ///< max(x, 0)
  gelu,        ///< x Phi(x) with the normal distribution's Phi (Hendrycks and Gimpel, 2016)
  gelu_tanh,   ///< x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), their approximation
  quick_gelu,  ///< x / (1 + exp(-1.702 x)), their other one
  silu,        ///< x / (1 + exp(-x))
};

/// What is done to the sums of a linear before they are written, in this order.
template <class T>
struct Epilogue {
  /// (tokens, out), added; or no rows.
  MatrixView<const T> addend = {};
  /// Applied to the sums; or none.
  std::optional<Activation> activation = {};
};

/// Functions of the C++ library, on hosts and devices.
struct LibraryMath {
  /// exp(x).
  template <class A>
  PARE_HOST_DEVICE static A exp(A x) {
    return std::exp(x);
  }
  /// tanh(x).
  template <class A>
  PARE_HOST_DEVICE static A tanh(A x) {
    return std::tanh(x);
  }
  /// y Phi(-y) for y >= 0.
  template <class A>
  PARE_HOST_DEVICE static A normal_tail(A y) {
    const A tail = std::erfc(y * A(0.70710678118654752440)) / 2;
    return tail == A(0) ? tail : y * tail;  // an infinite y makes no NaN
  }
};

/// The functions of Activation, with exp and others of Math.
template <class Math>
struct ActivationFunctions {
  /// A NaN stays one.
  template <class A>
  PARE_HOST_DEVICE PARE_INLINE static A relu(A x) {
    return x < A(0) ? A(0) : x;
  }
  /// max(x, 0) - |x| Phi(-|x|): 1 + erf would have no digits where x is far below 0.
  template <class A>
  PARE_HOST_DEVICE PARE_INLINE static A gelu(A x) {
    const A size = std::abs(x);
    return A(0.5) * x + A(0.5) * size - Math::normal_tail(size);
  }
  /// (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), which keeps its digits.
  template <class A>
  PARE_HOST_DEVICE PARE_INLINE static A gelu_tanh(A x) {
    constexpr A linear = A(2 * 0.79788456080286535588), cubic = A(linear * 0.044715);
    return x / (A(1) + Math::exp(-x * (linear + cubic * x * x)));
  }
  /// See Activation.
  template <class A>
  PARE_HOST_DEVICE PARE_INLINE static A quick_gelu(A x) {
    return x / (A(1) + Math::exp(A(-1.702) * x));
  }
  /// See Activation.
  template <class A>
  PARE_HOST_DEVICE PARE_INLINE static A silu(A x) {
    return x / (A(1) + Math::exp(-x));
  }
};

/// Calls use(f) with the function f of an activation: the choice is made once, not per element.
template <class Math, class Use>
PARE_HOST_DEVICE void with_activation(Activation kind, const Use& use) {
  using F = ActivationFunctions<Math>;
  switch (kind) {
    case Activation::relu:
      return use([](auto x) { return F::relu(x); });
    case Activation::gelu:
      return use([](auto x) { return F::gelu(x); });
    case Activation::gelu_tanh:
      return use([](auto x) { return F::gelu_tanh(x); });
    case Activation::quick_gelu:
      return use([](auto x) { return F::quick_gelu(x); });
    case Activation::silu:
      return use([](auto x) { return F::silu(x); });
  }
}

/// X = activation(X).
template <class T>
struct Activate {
  MatrixView<T> X;  // (tokens, n)
  /// Which one.
  Activation kind;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const auto x = compute_scalar<T>(X(r, c));
    with_activation<LibraryMath>(kind, [&](auto f) { X(r, c) = T(f(x)); });
  }
  /// Writes a row.
  void row(index_t r, index_t cols) const requires std::floating_point<T> {
    T* const x = X.row(r);
    with_activation<VectorMath>(kind, [&](auto f) { map_row(cols, x, f, x); });
  }
};

/// out = activation(gate) * up; `out` may be `gate` or `up`.
template <class T>
struct GatedProduct {
  MatrixView<const T> gate;  // (tokens, n)
  MatrixView<const T> up;    // (tokens, n)
  MatrixView<T> out;         // (tokens, n)
  /// Which one.
  Activation kind;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const auto g = compute_scalar<T>(gate(r, c)), u = compute_scalar<T>(up(r, c));
    with_activation<LibraryMath>(kind, [&](auto f) { out(r, c) = T(f(g) * u); });
  }
  /// Writes a row.
  void row(index_t r, index_t cols) const requires std::floating_point<T> {
    with_activation<VectorMath>(kind, [&](auto f) {
      map_row(
          cols, out.row(r), [f](T g, T u) { return f(g) * u; }, gate.row(r), up.row(r));
    });
  }
};

/// A *= factor.
template <class T>
struct ScaleElement {
  MatrixView<T> A;  // (n, m)
  /// Rounded to what A is computed with.
  double factor;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    A(r, c) = T(compute_scalar<T>(A(r, c)) * compute_scalar<T>(factor));
  }
};

/// A = cap * tanh(A / cap).
template <class T>
struct SoftCap {
  MatrixView<T> A;  // (n, m)
  /// Above 0.
  double cap;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const auto limit = compute_scalar<T>(cap);
    A(r, c) = T(limit * LibraryMath::tanh(compute_scalar<T>(A(r, c)) / limit));
  }
  /// Writes a row.
  void row(index_t r, index_t cols) const requires std::floating_point<T> {
    const T limit = T(cap);
    T* const a = A.row(r);
    map_row(
        cols, a, [limit](T x) { return limit * VectorMath::tanh(x / limit); }, a);
  }
};

/// Rotary positions: of each head the pairs (x_i, x_{i + half}), i < half, are turned by an angle to
/// (x_i cos - x_{i + half} sin, x_{i + half} cos + x_i sin). What a head has beyond 2 half columns
/// stays. Runs over (tokens, heads * half). Su et al., RoFormer (2021), with the halves as LLaMA has
/// them.
template <class T>
struct RotatePairs {
  MatrixView<T> X;                              // (tokens, (heads - 1) head_step + head_dim)
  MatrixView<const compute_scalar<T>> cosines;  // (seqlen, half)
  MatrixView<const compute_scalar<T>> sines;    // (seqlen, half)
  /// Columns from a head to the next.
  index_t head_step;
  /// Pairs of a head.
  index_t half;
  /// Tokens of a window: row t of X has the angles of row t % seqlen.
  index_t seqlen;

  /// Turns one pair.
  PARE_HOST_DEVICE void operator()(index_t t, index_t pair) const {
    // 32 bits: a division of 64 takes a device longer than all the rest.
    const auto head = std::uint32_t(pair) / std::uint32_t(half);
    const auto i = index_t(std::uint32_t(pair) % std::uint32_t(half));
    const auto position = index_t(std::uint32_t(t) % std::uint32_t(seqlen));
    T& low = X(t, index_t(head) * head_step + i);
    T& high = X(t, index_t(head) * head_step + half + i);
    const auto a = compute_scalar<T>(low), b = compute_scalar<T>(high);
    const auto cosine = cosines(position, i), sine = sines(position, i);
    low = T(a * cosine - b * sine);
    high = T(b * cosine + a * sine);
  }
  /// Turns the pairs of a row.
  void row(index_t t, index_t pairs) const requires std::floating_point<T> {
    const T* PARE_RESTRICT cosine = cosines.row(t % seqlen);
    const T* PARE_RESTRICT sine = sines.row(t % seqlen);
    for (index_t head = 0; head * half < pairs; ++head) {
      T* PARE_RESTRICT low = X.row(t) + head * head_step;
      T* PARE_RESTRICT high = low + half;
      for (index_t i = 0; i < half; ++i) {
        const T a = low[i], b = high[i];
        low[i] = a * cosine[i] - b * sine[i];
        high[i] = b * cosine[i] + a * sine[i];
      }
    }
  }
};

}  // namespace pare::kernels
