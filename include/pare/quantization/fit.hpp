// Fits a grid to a run of weights: min-max, symmetric, clip search.
#pragma once

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

#include "pare/core/scalar.hpp"
#include "pare/quantization/grid.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Independent partial sums per reduction, so that compilers vectorise it without reassociating.
inline constexpr int fit_lanes = 16;

/// Ranges that the clip search tries for a whole row.
inline constexpr int clip_steps = 80;
/// And for a group, which is few weights: over the same span, half the time, and no more loss.
inline constexpr int group_clip_steps = 40;
/// How many are tried for grids of so many columns; 0: whole rows.
constexpr int clip_steps_for(index_t group_size) {
  return group_size == 0 ? clip_steps : group_clip_steps;
}

/// The i-th part of a range that the clip search tries, of `steps` from 1 down to almost a fifth.
template <class T>
PARE_HOST_DEVICE PARE_INLINE T clip_part(int i, int steps) {
  return T(1) - T(i) / T(steps * 5 / 4);
}

/// One Newton step towards t^(-1/5).
template <class T>
PARE_HOST_DEVICE PARE_INLINE T fifth_root_step(T t, T r) {
  const T r2 = r * r;
  return r * (T(1.2) - T(0.2) * t * r2 * r2 * r);
}

/// t^2.4 for t in [0, 1], relative error below 1e-6 (float) and 1e-13 (double).
///
/// t^2.4 = (t r)^3 with r = t^(-1/5), which Newton's iteration finds from a guess taken from the
/// exponent bits. Branch-free and without loops, so that callers vectorise: the clip search calls
/// it 80 times per weight.
PARE_HOST_DEVICE PARE_INLINE float pow_2_4(float t) {
  t += 1e-30f;  // keeps r^5 finite at zero; a select would be a branch to GCC
  const float exponent = float(std::bit_cast<std::int32_t>(t));
  const float guess = std::bit_cast<float>(std::int32_t(1.2780005e9f - 0.2f * exponent));
  const float s = t * fifth_root_step(t, fifth_root_step(t, fifth_root_step(t, guess)));
  return s * s * s;
}
PARE_HOST_DEVICE PARE_INLINE double pow_2_4(double t) {
  t += 1e-60;
  const double exponent = double(std::bit_cast<std::int64_t>(t));
  const double guess = std::bit_cast<double>(std::int64_t(5.5284e18 - 0.2 * exponent));
  const double near = fifth_root_step(t, fifth_root_step(t, guess));
  const double s = t * fifth_root_step(t, fifth_root_step(t, near));
  return s * s * s;
}

/// sum |round(w) - w|^2.4 over n contiguous weights, in units of (1 / unit)^2.4.
template <class T>
PARE_HOST_DEVICE T clip_error(const T* PARE_RESTRICT w, index_t n, Grid<T> grid, T unit) {
  T sums[fit_lanes] = {};
  index_t j = 0;
  for (; j + fit_lanes <= n; j += fit_lanes)
    for (int l = 0; l < fit_lanes; ++l) {
      const T q = round_to_grid(w[j + l], grid.scale, grid.zero, grid.top);
      sums[l] += pow_2_4(std::abs(q - w[j + l]) * unit);
    }
  for (; j < n; ++j) {
    const T q = round_to_grid(w[j], grid.scale, grid.zero, grid.top);
    sums[0] += pow_2_4(std::abs(q - w[j]) * unit);
  }
  T sum = 0;
  for (int l = 0; l < fit_lanes; ++l) sum += sums[l];
  return sum;
}

/// The smallest float of at most `digits` significant bits that is at least x >= 0.
PARE_HOST_DEVICE PARE_INLINE float round_up_digits(float x, int digits) {
  const int dropped = 24 - digits;
  const std::uint32_t above = std::bit_cast<std::uint32_t>(x) + ((1u << dropped) - 1);
  return std::bit_cast<float>(above >> dropped << dropped);
}

/// The grid of the range [low, high], low <= 0 <= high. With half_scale the scale is infinite where
/// float16 has none so large.
template <class T>
PARE_HOST_DEVICE Grid<T> grid_of_range(T low, T high, int bits, GridOptions options) {
  const T top = T((1 << bits) - 1);
  // A range of denormals would make the scale zero and the codes NaN.
  const T smallest = std::numeric_limits<T>::min();
  T scale = (high - low) / top;
  scale = scale > smallest ? scale : smallest;
  if (options.half_scale) {
    // Of few digits it is rounded up: rounded down, it would clip the largest weights.
    const bool fewer = options.scale_digits < half_scale_digits;
    const float digits = fewer ? round_up_digits(float(scale), options.scale_digits) : float(scale);
    const float rounded = half_to_float(float_to_half(digits));
    scale = T(rounded > 0x1p-24f ? rounded : 0x1p-24f);
  }
  const T zero = options.symmetric ? T(1 << (bits - 1)) : round_even(-low / scale);
  // A scale of few digits may be so much smaller that zero would lie beyond the grid.
  return {scale, zero > top ? top : zero, top};
}

}  // namespace detail

/// Fits one grid to n contiguous weights.
///
/// Min-max: scale = (max(w,0) - min(w,0)) / (2^b - 1), zero = round(-min/scale); all-zero weights
/// get the range [-1, 1]. Clip search: ranges shrunk by p = 1 - i/100, i = 0..79 (with 40 steps
/// 1 - i/50, i = 0..39), error |.|^2.4, the first best wins. Zero is always on the grid.
/// @param w       n weights, finite
/// @param n       how many
/// @param bits    width in bits, 2..8
/// @param options symmetric, clip search, half scales
/// @param steps   ranges that the clip search tries, a multiple of 4
/// @return        the grid. Source: Frantar & Alistarh 2023 (SparseGPT), published quantizer.
template <class T>
PARE_HOST_DEVICE Grid<T> fit_grid(const T* PARE_RESTRICT w, index_t n, int bits,
                                  GridOptions options, int steps = detail::clip_steps) {
  T lows[detail::fit_lanes] = {}, highs[detail::fit_lanes] = {};
  for (index_t j = 0; j < n; j += detail::fit_lanes) {
    const int count = n - j < detail::fit_lanes ? int(n - j) : detail::fit_lanes;
    for (int l = 0; l < count; ++l) {
      lows[l] = w[j + l] < lows[l] ? w[j + l] : lows[l];
      highs[l] = w[j + l] > highs[l] ? w[j + l] : highs[l];
    }
  }
  T low = 0, high = 0;
  for (int l = 0; l < detail::fit_lanes; ++l) {
    low = lows[l] < low ? lows[l] : low;
    high = highs[l] > high ? highs[l] : high;
  }
  if (options.symmetric) {
    high = high > -low ? high : -low;
    low = -high;
  }
  if (low == T(0) && high == T(0)) {
    low = T(-1);
    high = T(1);
  }
  Grid<T> best = detail::grid_of_range(low, high, bits, options);
  if (!options.clip_search) return best;

  const T smallest = std::numeric_limits<T>::min();
  const T range = high - low;
  const T unit = T(1) / (range > smallest ? range : smallest);
  T least = std::numeric_limits<T>::infinity();
  for (int i = 0; i < steps; ++i) {
    const T p = detail::clip_part<T>(i, steps);
    const Grid<T> grid = detail::grid_of_range(p * low, p * high, bits, options);
    const T error = detail::clip_error(w, n, grid, unit);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

}  // namespace pare
