// Arithmetic that several kernels share.
#pragma once

#include <cmath>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Nearest integer, ties to even, |x| < 2^22. Two additions take a third of rintf's time.
__device__ inline float round_small(float x) {
  constexpr float shift = 0x1.8p23f;
  return __fsub_rn(__fadd_rn(x, shift), shift);
}
__device__ inline double round_small(double x) { return rint(x); }

/// a / b with r = 1 / b given: one Newton correction, which rounds as the division does but for
/// the last place in rare cases.
template <class T>
__device__ T quotient(T a, T b, T r) {
  const T q = a * r;
  return std::fma(std::fma(-q, b, a), r, q);
}

/// Threads of a block that works on one row.
inline constexpr int row_threads = 256, row_warps = row_threads / 32;

/// Combines one value per thread by `op`, in an order that depends on nothing but the thread; every
/// thread of the block gets the result. All threads must call it.
template <class V, class Op>
__device__ V block_combine(V value, const Op& op) {
  __shared__ V shared[row_warps];
  for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(~0u, value, step));
  __syncthreads();  // the last call's values have been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[0];
  for (int w = 1; w < row_warps; ++w) value = op(value, shared[w]);
  return value;
}

template <class V>
__device__ V block_sum(V value) {
  return block_combine(value, [](V a, V b) { return a + b; });
}

}  // namespace pare::backend::cuda
