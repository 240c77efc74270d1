// Small products of float32 matrices on the tensor cores, parted into two TF32 numbers on the way.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/sm80.cuh"
#include "pare/backend/cuda/split_product.cuh"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace direct_detail {

/// A block of threads computes a tile of this side; a warp a quarter of it.
inline constexpr int tile = 64, depth = 32, threads = 128;
/// Rows in shared memory are longer than what they hold, against bank conflicts.
inline constexpr int line_stride = depth + 4, term_stride = tile + 8;
inline constexpr int numbers = tile * line_stride;  // of an operand's tile, either way it lies
static_assert(depth * term_stride <= numbers);

/// What the kernel computes, for `count` products whose matrices lie apart by the steps.
struct Job {
  MatrixView<const float> A, B;
  MatrixView<float> C;
  index_t step_a, step_b, step_c;
  float alpha, beta;
  bool aligned_a, aligned_b;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
/// x = high + low up to 2^-22 |x|; the tensor cores read the upper 19 bits of each. Where x is not finite,
/// or above 2^114, high is NaN.
/// Source: Veltkamp's splitting, Dekker 1971, A floating-point technique for extending the available
/// precision.
__device__ inline void part(float x, unsigned& high, unsigned& low) {
  // Not the conversion instruction, which is slower; and each step rounded, not contracted.
  const float c = __fmul_rn(8193, x);  // 2^13 + 1: leaves 11 of 24 bits
  const float h = __fsub_rn(c, __fsub_rn(c, x));
  high = __float_as_uint(h);
  low = __float_as_uint(__fsub_rn(x, h)) + 0x1000;  // half a unit of what is read: rounds
}

__device__ inline void multiply_add(float (&sum)[4], const unsigned (&a)[4],
                                    const unsigned (&b)[2]) {
  multiply_add_tf32(sum, a, b[0], b[1]);
}

/// Calls f(i, j, e) for the sums that a thread has: e of tile (i, j).
template <class F>
__device__ void for_each_sum(const F& f) {
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) f(i, j, e);
}

/// Starts the copy of (Rows, Cols) numbers to shared memory; what lies outside is zero.
template <int Rows, int Cols, int Stride>
__device__ void start_tile(float* to, MatrixView<const float> from, index_t row, index_t col,
                           bool aligned) {
  constexpr int runs = Cols / 4;
#pragma unroll
  for (int i = 0; i < Rows * runs / threads; ++i) {
    const int at = int(threadIdx.x) + i * threads, r = at / runs, c = at % runs * 4;
    float* const there = to + r * Stride + c;
    const index_t y = row + r, x = col + c;
    if (aligned && y < from.rows && x + 4 <= from.cols) {
      const auto address = unsigned(__cvta_generic_to_shared(there));
      copy_to_shared(address, from.row(y) + x);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        there[e] = y < from.rows && x + e < from.cols ? from(y, x + e) : 0.0f;
    }
  }
}

#endif

/// @tparam ByTerms  whether A lies as (k, m) instead of (m, k)
template <bool ByTerms>
__global__ void __launch_bounds__(threads, 3) direct_kernel(Job job) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  __shared__ __align__(16) float of_a[2][numbers], of_b[2][numbers];
  MatrixView<const float> A = job.A, B = job.B;
  A.data += blockIdx.z * job.step_a;
  B.data += blockIdx.z * job.step_b;
  const index_t row = index_t(blockIdx.y) * tile, col = index_t(blockIdx.x) * tile;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int warp_m = warp / 2 * 32, warp_n = warp % 2 * 32, of_four = lane % 4, of_eight = lane / 4;
  const index_t terms = ByTerms ? A.rows : A.cols;
  const auto steps = int((terms + depth - 1) / depth);
  const auto start = [&](int step) {
    const index_t k = index_t(step) * depth;
    if (step < steps) {
      if constexpr (ByTerms)
        start_tile<depth, tile, term_stride>(of_a[step % 2], A, k, row, job.aligned_a);
      else
        start_tile<tile, depth, line_stride>(of_a[step % 2], A, row, k, job.aligned_a);
      start_tile<depth, tile, term_stride>(of_b[step % 2], B, k, col, job.aligned_b);
    }
    end_of_copies();
  };

  float sums[2][4][4] = {}, small[2][4][4] = {};
  start(0);
  for (int step = 0; step < steps; ++step) {
    start(step + 1);
    wait_for_copies<1>();
    __syncthreads();
    const float *a_tile = of_a[step % 2], *b_tile = of_b[step % 2];
    float high[2][4][4] = {};
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
      unsigned a_high[2][4], a_low[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int m = warp_m + 16 * i + of_eight + e % 2 * 8, t = k + of_four + e / 2 * 4;
          part(a_tile[ByTerms ? t * term_stride + m : m * line_stride + t], a_high[i][e],
               a_low[i][e]);
        }
      unsigned b_high[4][2], b_low[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          part(b_tile[(k + of_four + 4 * e) * term_stride + warp_n + 8 * j + of_eight],
               b_high[j][e], b_low[j][e]);
      // One of the three products after the other: neighbours in time do not wait for each other.
      const auto add = [](float(&sum)[2][4][4], const unsigned(&a)[2][4],
                          const unsigned(&b)[4][2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) multiply_add(sum[i][j], a[i], b[j]);
      };
      add(small, a_low, b_high);
      add(small, a_high, b_low);
      add(high, a_high, b_high);
    }
    // The tensor cores cut off what they add to a large sum; here it is rounded.
    for_each_sum([&](int i, int j, int e) { sums[i][j][e] += high[i][j][e]; });
    __syncthreads();
  }

  float* const C = job.C.data + blockIdx.z * job.step_c;
  const auto row_of = [&](int i, int e) { return row + warp_m + 16 * i + of_eight + e / 2 * 8; };
  const auto col_of = [&](int j, int e) { return col + warp_n + 8 * j + 2 * of_four + e % 2; };
  // All that is read first: a read after a write waits for it.
  float before[2][4][4] = {};
  if (job.beta != 0)
    for_each_sum([&](int i, int j, int e) {
      const index_t r = row_of(i, e), c = col_of(j, e);
      if (r < job.C.rows && c < job.C.cols) before[i][j][e] = job.beta * C[r * job.C.stride + c];
    });
  for_each_sum([&](int i, int j, int e) {
    const index_t r = row_of(i, e), c = col_of(j, e);
    if (r < job.C.rows && c < job.C.cols)
      C[r * job.C.stride + c] = job.alpha * (sums[i][j][e] + small[i][j][e]) + before[i][j][e];
  });
#else
  __trap();  // directs() keeps such devices away
#endif
}

inline bool aligned(MatrixView<const float> X, index_t step) {
  return X.stride % 4 == 0 && step % 4 == 0 && reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0;
}

}  // namespace direct_detail

/// Whether small float32 products and the factorisation run in parts of TF32: Precision::split is in force
/// and the current GPU has TF32, as those from sm_80 on have.
inline bool directs() {
  return precision() == Precision::split && Context::get().compute_capability >= 80;
}

/// C = alpha A B + beta C for products too small to be split before: every number is parted into two
/// of TF32, and of their four products the one of the low parts is left out. Numbers need no scale, as
/// TF32 has nearly the range of float32.
///
/// The parts of a number x hold it up to 2^-22 |x| where |x| is within 2^-100 .. 2^114; what a number that
/// is larger or not finite reaches is NaN. At most split_depth terms are summed by the tensor cores, sums
/// of these are in float32.
/// @param A      (m, k), or (k, m) with Lines::columns; k >= 1
/// @param B      (k, n)
/// @param C      (m, n), no operand
/// @param count  products; their matrices lie step_a, step_b and step_c elements apart
/// @param zeros  which triangle is zero; diagonal blocks of split_depth are read whole, so their zeros
///               must be stored
/// @throws device_error
inline void direct_product(float alpha, Operand A, index_t step_a, MatrixView<const float> B,
                           index_t step_b, float beta, MatrixView<float> C, index_t step_c,
                           index_t count, Zeros zeros = Zeros::none) {
  using namespace direct_detail;
  if (C.size() == 0 || count == 0) return;
  const auto kernel = A.lines == Lines::columns ? direct_kernel<true> : direct_kernel<false>;
  for_parts(A.depth(), C, zeros, [&](index_t k, index_t many, MatrixView<float> part, bool first) {
    const Operand left = A.terms(k, many);
    const MatrixView<const float> b = B.block(k, B.cols - part.cols, many, part.cols);
    const MatrixView<const float> a = left.lines == Lines::rows
                                          ? left.of.block(0, 0, part.rows, many)
                                          : left.of.columns(0, part.rows);
    const dim3 grid(unsigned((part.cols + tile - 1) / tile),
                    unsigned((part.rows + tile - 1) / tile), unsigned(count));
    kernel<<<grid, threads, 0, stream()>>>(Job{a, b, part, step_a, step_b, step_c, alpha,
                                               first ? beta : 1, aligned(a, step_a),
                                               aligned(b, step_b)});
    check_launch("direct_kernel");
  });
}

/// One such product.
inline void direct_product(float alpha, Operand A, MatrixView<const float> B, float beta,
                           MatrixView<float> C) {
  direct_product(alpha, A, 0, B, 0, beta, C, 0, 1);
}

}  // namespace pare::backend::cuda
