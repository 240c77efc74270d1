// The grid fit by a block of threads per grid: the tuned form of fit_grid.
#pragma once

#include <algorithm>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/context.cuh"
#include "pare/kernels/fit.hpp"
#include "pare/quantization/fit.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// |d|^2.4 up to 1e-6; 0 for d = 0. Logarithm and exponential are one instruction each.
__device__ inline float clip_power(float d) {
  float l, e;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(l) : "f"(std::abs(d)));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(2.4f * l));
  return e;
}
__device__ inline double clip_power(double d) { return detail::pow_2_4(std::abs(d)); }

/// a * b, rounded: a fused multiply-add would give grids that no host computes.
__device__ inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double rounded_product(double a, double b) { return __dmul_rn(a, b); }

/// The range that is searched, of the smallest and the largest weight.
template <class T>
__device__ void search_range(T& low, T& high, GridOptions options) {
  if (options.symmetric) {
    high = high > -low ? high : -low;
    low = -high;
  }
  if (low == T(0) && high == T(0)) {
    low = T(-1);
    high = T(1);
  }
}

/// The grid of the i-th of Steps ranges.
template <int Steps, class T>
__device__ Grid<T> clip_candidate(int i, T low, T high, int bits, GridOptions options) {
  const T p = detail::clip_part<T>(i, Steps);
  return detail::grid_of_range(rounded_product(p, low), rounded_product(p, high), bits, options);
}

/// The unit in which errors are summed.
template <class T>
__device__ T unit_of_range(T low, T high) {
  const T smallest = std::numeric_limits<T>::min(), range = high - low;
  return T(1) / (range > smallest ? range : smallest);
}

/// What a weight adds to the error of a candidate.
/// @param in_units  x in units
/// @param inverse, scale, bottom  1 / scale of the grid, scale in units, smallest code minus zero
/// @param span      largest code
template <class T>
__device__ T clip_term(T x, T in_units, T inverse, T scale, T bottom, T span) {
  const T code = round_small(x * inverse);
  const T clamped = min(max(code, bottom), bottom + span);
  return clip_power(std::fma(scale, clamped, -in_units));
}

/// fit_grid of n weights by all threads of the block; every thread gets the grid. Candidates of the
/// clip search are computed as fit_grid does; only the errors they are ranked by differ in the last
/// digits.
/// @tparam Steps  ranges that the clip search tries, a share for each warp
template <int Steps, class T>
__device__ Grid<T> block_fit_grid(const T* w, index_t n, int bits, GridOptions options) {
  T low = 0, high = 0;
  for (index_t j = threadIdx.x; j < n; j += row_threads) {
    low = w[j] < low ? w[j] : low;
    high = w[j] > high ? w[j] : high;
  }
  low = block_combine(low, [](T a, T b) { return a < b ? a : b; });
  high = block_combine(high, [](T a, T b) { return a > b ? a : b; });
  search_range(low, high, options);
  const auto candidate = [&](int i) { return clip_candidate<Steps>(i, low, high, bits, options); };
  if (!options.clip_search) return detail::grid_of_range(low, high, bits, options);

  // Every warp sums the errors of its own candidates over the whole row.
  constexpr int clip_candidates = Steps / row_warps;
  static_assert(clip_candidates * row_warps == Steps);
  __shared__ T errors[Steps];
  const T unit = unit_of_range(low, high);
  const int first = int(threadIdx.x) / 32 * clip_candidates;
  T inverse[clip_candidates], scale[clip_candidates], bottom[clip_candidates];
  T sums[clip_candidates] = {};
  T span = 0;
#pragma unroll
  for (int i = 0; i < clip_candidates; ++i) {
    const Grid<T> grid = candidate(first + i);
    inverse[i] = T(1) / grid.scale;
    scale[i] = grid.scale * unit;
    bottom[i] = -grid.zero;
    span = grid.top;
  }
  for (index_t j = threadIdx.x % 32; j < n; j += 32) {
    const T x = w[j], in_units = x * unit;
#pragma unroll
    for (int i = 0; i < clip_candidates; ++i)
      sums[i] += clip_term(x, in_units, inverse[i], scale[i], bottom[i], span);
  }
#pragma unroll
  for (int i = 0; i < clip_candidates; ++i) {
    for (int step = 16; step > 0; step /= 2) sums[i] += __shfl_xor_sync(~0u, sums[i], step);
    if (threadIdx.x % 32 == 0) errors[first + i] = sums[i];
  }
  __syncthreads();
  int best = 0;
  T least = std::numeric_limits<T>::infinity();
  for (int i = 0; i < Steps; ++i)
    if (errors[i] < least) {
      least = errors[i];
      best = i;
    }
  __syncthreads();
  return candidate(best);
}

/// A grid of a row per block, or several where there are more than a launch has blocks.
template <int Steps, class T>
__global__ void __launch_bounds__(row_threads) fit_grids_kernel(kernels::GridFit<T> fit) {
  const index_t i = blockIdx.x;
  for (index_t g = blockIdx.y; g < fit.grids.scale.rows; g += gridDim.y) {
    const index_t first = fit.first_column(g), columns = fit.first_column(g + 1) - first;
    const Grid<T> grid =
        block_fit_grid<Steps>(fit.weights.row(i) + first, columns, fit.width(g, i), fit.options);
    if (threadIdx.x == 0) fit.store(g, i, grid);
  }
}

/// Columns of a grid up to which a warp fits it alone.
inline constexpr index_t warp_fit_columns = 256;

/// What fit_grids_kernel does, a warp for each grid of a row: few columns do not fill a block. The same
/// operations in the same order, so the same grids.
template <int Steps, class T>
__global__ void __launch_bounds__(row_threads) fit_short_grids_kernel(kernels::GridFit<T> fit) {
  constexpr int at_once = 8, parts = (Steps + 31) / 32;
  static_assert(Steps % at_once == 0);
  __shared__ T shared[row_warps][Steps][3];  // 1 / scale, scale in units, bottom
  const index_t grids = fit.grids.scale.rows;
  const index_t number = index_t(blockIdx.x) * row_warps + threadIdx.x / 32;
  if (number >= fit.weights.rows * grids) return;
  const index_t row = number / grids, g = number % grids, first = fit.first_column(g);
  const T* const w = fit.weights.row(row) + first;
  const int n = int(fit.first_column(g + 1) - first), lane = threadIdx.x % 32;
  const int bits = fit.width(g, row);
  const GridOptions options = fit.options;

  T low = 0, high = 0;
  for (int j = lane; j < n; j += 32) {
    low = w[j] < low ? w[j] : low;
    high = w[j] > high ? w[j] : high;
  }
  for (int step = 16; step > 0; step /= 2) {
    const T other_low = __shfl_xor_sync(~0u, low, step);
    const T other_high = __shfl_xor_sync(~0u, high, step);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  search_range(low, high, options);
  if (!options.clip_search) {
    if (lane == 0) fit.store(g, row, detail::grid_of_range(low, high, bits, options));
    return;
  }

  const T unit = unit_of_range(low, high);
  T(*const candidates)[3] = shared[threadIdx.x / 32];
  T span = 0;
  for (int part = 0; part < parts; ++part) {
    const int i = lane + 32 * part;
    if (i >= Steps) break;
    const Grid<T> grid = clip_candidate<Steps>(i, low, high, bits, options);
    candidates[i][0] = T(1) / grid.scale;
    candidates[i][1] = grid.scale * unit;
    candidates[i][2] = -grid.zero;
    span = grid.top;
  }
  __syncwarp();
  int best = 0;
  T least = std::numeric_limits<T>::infinity();
  for (int group = 0; group < Steps; group += at_once) {
    T inverse[at_once], scale[at_once], bottom[at_once], sums[at_once] = {};
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      inverse[i] = candidates[group + i][0];
      scale[i] = candidates[group + i][1];
      bottom[i] = candidates[group + i][2];
    }
    for (int j = lane; j < n; j += 32) {
      const T x = w[j], in_units = x * unit;
#pragma unroll
      for (int i = 0; i < at_once; ++i)
        sums[i] += clip_term(x, in_units, inverse[i], scale[i], bottom[i], span);
    }
    // Lane l ends with the sum of candidate l / 4 of the group.
#pragma unroll
    for (int step = 16, held = at_once / 2; held > 0; step /= 2, held /= 2)
#pragma unroll
      for (int i = 0; i < held; ++i) {
        const bool upper = (lane & step) != 0;
        const T sent = upper ? sums[i] : sums[i + held];
        sums[i] = (upper ? sums[i + held] : sums[i]) + __shfl_xor_sync(~0u, sent, step);
      }
    for (int step = 2; step > 0; step /= 2) sums[0] += __shfl_xor_sync(~0u, sums[0], step);
    if (sums[0] < least) {
      least = sums[0];
      best = group + lane / 4;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(~0u, least, step);
    const int other_best = __shfl_xor_sync(~0u, best, step);
    if (other < least || (other == least && other_best < best)) {
      least = other;
      best = other_best;
    }
  }
  if (lane == 0) fit.store(g, row, clip_candidate<Steps>(best, low, high, bits, options));
}

/// Fits all grids of all rows in one launch.
template <class T>
void fit_grids(const kernels::GridFit<T>& fit) {
  const index_t rows = fit.weights.rows, grids = fit.grids.scale.rows;
  if (rows == 0 || grids == 0) return;
  if (fit.weights.cols <= grids * warp_fit_columns) {
    const auto kernel = fit.clip_steps == detail::clip_steps
                            ? fit_short_grids_kernel<detail::clip_steps, T>
                            : fit_short_grids_kernel<detail::group_clip_steps, T>;
    kernel<<<unsigned((rows * grids + row_warps - 1) / row_warps), row_threads, 0, stream()>>>(fit);
    return check_launch("fit_short_grids_kernel");
  }
  const unsigned at_once = unsigned(std::min<index_t>(grids, 65535));
  const auto kernel = fit.clip_steps == detail::clip_steps
                          ? fit_grids_kernel<detail::clip_steps, T>
                          : fit_grids_kernel<detail::group_clip_steps, T>;
  kernel<<<dim3(unsigned(rows), at_once), row_threads, 0, stream()>>>(fit);
  check_launch("fit_grids_kernel");
}

}  // namespace pare::backend::cuda
