// Random and constant numbers, the same on every backend.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// A(r, c) = scale z, where z is a nearly normal number that depends on nothing but key, row and
/// column: the sum of eight uniform integers, so that every backend makes the same bytes.
template <class S>
struct FillNormal {
  MatrixView<S> A;  // (n, m)
  /// Other keys, other numbers.
  std::uint64_t key;
  /// Their deviation.
  float scale;

  /// splitmix64's mixing of a counter.
  PARE_HOST_DEVICE static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15ull;
    const std::uint64_t at = mix(key + golden * std::uint64_t(r + 1)) + 2 * std::uint64_t(c);
    std::int32_t sum = -8 * 32767 - 4;  // less the mean, 8 * 32767.5
    for (std::uint64_t bits : {mix(golden * at), mix(golden * (at + 1))})
      for (int i = 0; i < 4; ++i, bits >>= 16) sum += std::int32_t(bits & 0xffffu);
    // One uniform integer below 2^16 has the variance 2^32 / 12.
    constexpr float deviation = 53509.9f;  // sqrt(8 / 12) 2^16
    A(r, c) = S(compute_scalar<S>(scale * (float(sum) / deviation)));
  }
};

/// A = value, rounded to S.
template <class S>
struct FillConstant {
  MatrixView<S> A;  // (n, m)
  /// What every element becomes.
  float value;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    A(r, c) = S(compute_scalar<S>(value));
  }
};

}  // namespace pare::kernels
