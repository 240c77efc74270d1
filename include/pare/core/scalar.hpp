// Scalar traits and the conversions of the 16-bit storage types.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// A number of a type that is given at run time instead.
inline constexpr int dynamic = -1;

/// The narrowest and the widest quantization grid, bits per weight.
inline constexpr int min_bits = 2, max_bits = 8;

/// Number types tensors are stored in.
enum class DType : std::uint8_t { f16, bf16, f32, f64 };

/// Bytes of one element.
constexpr int dtype_bytes(DType t) { return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2; }

/// float16 bits to float, exact.
PARE_HOST_DEVICE inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 0x1fu;
  const std::uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = float(mantissa) * 0x1p-24f;  // zero and subnormals
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

/// float to float16 bits, round to nearest even; overflow gives infinity.
PARE_HOST_DEVICE inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = std::uint16_t((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u)  // subnormal or zero: units of 2^-24, rounded by the FPU
    return std::uint16_t(sign | std::uint16_t(rintf(std::bit_cast<float>(magnitude) * 0x1p24f)));
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

/// bfloat16 bits to float, exact.
PARE_HOST_DEVICE inline float bfloat_to_float(std::uint16_t b) {
  return std::bit_cast<float>(std::uint32_t(b) << 16);
}

/// float to bfloat16 bits, round to nearest even.
PARE_HOST_DEVICE inline std::uint16_t float_to_bfloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return std::uint16_t((bits >> 16) | 0x40u);  // NaN
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// `value` as it reads back after being stored in type `t`.
PARE_HOST_DEVICE inline float round_to(DType t, float value) {
  switch (t) {
    case DType::f16:
      return half_to_float(float_to_half(value));
    case DType::bf16:
      return bfloat_to_float(float_to_bfloat(value));
    default:
      return value;
  }
}

/// A number stored as float16, computed with as float; CUDA's __half has the same bytes.
struct float16 {
  /// Sign, 5 bits of exponent, 10 of mantissa.
  std::uint16_t bits;

  float16() = default;
  /// Rounds to nearest even; overflow gives infinity.
  PARE_HOST_DEVICE explicit float16(float value) : bits(float_to_half(value)) {}
  /// The same number in a type that is computed with; exact.
  template <std::floating_point T>
  PARE_HOST_DEVICE explicit operator T() const {
    return T(half_to_float(bits));
  }
};

/// A number stored as bfloat16, computed with as float; CUDA's __nv_bfloat16 has the same bytes.
struct bfloat16 {
  /// Sign, 8 bits of exponent, 7 of mantissa.
  std::uint16_t bits;

  bfloat16() = default;
  /// Rounds to nearest even.
  PARE_HOST_DEVICE explicit bfloat16(float value) : bits(float_to_bfloat(value)) {}
  /// The same number in a type that is computed with; exact.
  template <std::floating_point T>
  PARE_HOST_DEVICE explicit operator T() const {
    return T(bfloat_to_float(bits));
  }
};

/// Whether S is a type that numbers are stored in but not computed with.
template <class S>
inline constexpr bool is_storage_only = std::is_same_v<S, float16> || std::is_same_v<S, bfloat16>;

/// The scalar that numbers stored as S are computed with: float for 16 bits, otherwise S.
template <class S>
using compute_scalar = std::conditional_t<is_storage_only<S>, float, S>;

/// What the algorithms need to know of a scalar type.
template <class T>
struct scalar_traits;

/// What is computed in on GPUs and mostly on CPUs.
template <>
struct scalar_traits<float> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "float32";
  /// How it is stored.
  static constexpr DType dtype = DType::f32;
  /// Relative difference allowed between two backends, or between a result and its oracle.
  static constexpr double tolerance = 1e-3;
};

/// Twice the digits.
template <>
struct scalar_traits<double> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "float64";
  /// How it is stored.
  static constexpr DType dtype = DType::f64;
  /// As for float.
  static constexpr double tolerance = 1e-8;
};

/// A storage type.
template <>
struct scalar_traits<float16> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "float16";
  /// How it is stored.
  static constexpr DType dtype = DType::f16;
};

/// A storage type.
template <>
struct scalar_traits<bfloat16> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "bfloat16";
  /// How it is stored.
  static constexpr DType dtype = DType::bf16;
};

}  // namespace pare
