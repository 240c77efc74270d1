// Scalar traits and the conversions of the 16-bit storage types.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "pare/core/config.hpp"

namespace pare {

/// What the algorithms need to know of a scalar type they compute in.
template <class T>
struct scalar_traits;

template <>
struct scalar_traits<float> {
  static constexpr std::string_view name = "float32";
  /// Relative difference allowed between two backends, or between a result and its oracle.
  static constexpr double tolerance = 1e-3;
};

template <>
struct scalar_traits<double> {
  static constexpr std::string_view name = "float64";
  static constexpr double tolerance = 1e-8;
};

/// The narrowest and the widest quantization grid, bits per weight.
inline constexpr int min_bits = 2, max_bits = 8;

/// Number types tensors are stored in.
enum class DType : std::uint8_t { f16, bf16, f32, f64 };

/// Bytes of one element.
constexpr int dtype_bytes(DType t) { return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2; }

/// float16 bits to float, exact.
inline float half_to_float(std::uint16_t h) {
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
inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = std::uint16_t((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u)  // subnormal or zero: units of 2^-24, rounded by the FPU
    return std::uint16_t(sign | std::uint16_t(std::lrint(std::bit_cast<float>(magnitude) * 0x1p24f)));
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

/// bfloat16 bits to float, exact.
inline float bfloat_to_float(std::uint16_t b) {
  return std::bit_cast<float>(std::uint32_t(b) << 16);
}

/// float to bfloat16 bits, round to nearest even.
inline std::uint16_t float_to_bfloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return std::uint16_t((bits >> 16) | 0x40u);  // NaN
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// `value` as it reads back after being stored in type `t`.
inline float round_to(DType t, float value) {
  switch (t) {
    case DType::f16: return half_to_float(float_to_half(value));
    case DType::bf16: return bfloat_to_float(float_to_bfloat(value));
    default: return value;
  }
}

}  // namespace pare
