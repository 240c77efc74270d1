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
  if (options.symmetric) {
    high = high > -low ? high : -low;
    low = -high;
  }
  if (low == T(0) && high == T(0)) {
    low = T(-1);
    high = T(1);
  }
  const auto candidate = [&](int i) {
    const T p = detail::clip_part<T>(i, Steps);
    return detail::grid_of_range(rounded_product(p, low), rounded_product(p, high), bits, options);
  };
  if (!options.clip_search) return detail::grid_of_range(low, high, bits, options);

  // Every warp sums the errors of its own candidates over the whole row.
  constexpr int clip_candidates = Steps / row_warps;
  static_assert(clip_candidates * row_warps == Steps);
  __shared__ T errors[Steps];
  const T smallest = std::numeric_limits<T>::min(), range = high - low;
  const T unit = T(1) / (range > smallest ? range : smallest);
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
    for (int i = 0; i < clip_candidates; ++i) {
      const T code = round_small(x * inverse[i]);
      const T clamped = min(max(code, bottom[i]), bottom[i] + span);
      sums[i] += clip_power(std::fma(scale[i], clamped, -in_units));
    }
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

/// Fits all grids of all rows in one launch.
template <class T>
void fit_grids(const kernels::GridFit<T>& fit) {
  const index_t rows = fit.weights.rows, grids = fit.grids.scale.rows;
  if (rows == 0 || grids == 0) return;
  const unsigned at_once = unsigned(std::min<index_t>(grids, 65535));
  const auto kernel = fit.clip_steps == detail::clip_steps
                          ? fit_grids_kernel<detail::clip_steps, T>
                          : fit_grids_kernel<detail::group_clip_steps, T>;
  kernel<<<dim3(unsigned(rows), at_once), row_threads, 0, stream()>>>(fit);
  check_launch("fit_grids_kernel");
}

}  // namespace pare::backend::cuda
