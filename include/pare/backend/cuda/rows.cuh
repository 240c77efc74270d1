// The two kernels that run every row reduction: a block of threads per row, or a warp where rows
// are short. With a thread per row neighbouring threads would read addresses a row apart, and a few
// thousand rows do not fill a GPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/context.cuh"
#include "pare/kernels/reduction.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// The partial of the lane whose number differs by `step`.
template <class P>
__device__ P partial_of_lane(const P& mine, int step) {
  constexpr int words = int(sizeof(P) / sizeof(std::uint32_t));
  std::uint32_t word[words];
  memcpy(word, &mine, sizeof(P));
#pragma unroll
  for (int w = 0; w < words; ++w) word[w] = __shfl_xor_sync(~0u, word[w], step);
  P other;
  memcpy(&other, word, sizeof(P));
  return other;
}

/// What the lanes of a warp hold together, in an order that depends on nothing but the lane.
template <class P>
__device__ P merged_warp(P mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine.merge(partial_of_lane(mine, step));
  return mine;
}

/// A row per block: thread t takes columns t, t + row_threads, ...
template <kernels::RowReduction R>
__global__ void __launch_bounds__(row_threads) reduce_rows_kernel(R reduction) {
  using P = typename R::partial;
  __shared__ __align__(alignof(P)) unsigned char memory[row_warps * sizeof(P)];
  P* const of_warp = reinterpret_cast<P*>(memory);
  const index_t row = blockIdx.x, columns = reduction.columns();
  P mine{};
#pragma unroll 4
  for (index_t j = threadIdx.x; j < columns; j += row_threads) reduction.add(row, j, mine);
  mine = merged_warp(mine);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < row_warps; ++w) mine.merge(of_warp[w]);
  reduction.finish(row, mine);
}

/// A row per warp, of at most row_threads columns: each lane does what a lane of every warp of
/// reduce_rows_kernel does, so that the results are the same bytes.
template <kernels::RowReduction R>
__global__ void __launch_bounds__(row_threads) reduce_short_rows_kernel(index_t rows, R reduction) {
  using P = typename R::partial;
  const index_t row = index_t(blockIdx.x) * row_warps + threadIdx.x / 32;
  if (row >= rows) return;
  const index_t columns = reduction.columns();
  P total{};
  for (index_t first = 0; first < columns; first += 32) {
    const index_t j = first + threadIdx.x % 32;
    P mine{};
    if (j < columns) reduction.add(row, j, mine);
    mine = merged_warp(mine);
    if (first == 0)
      total = mine;
    else
      total.merge(mine);
  }
  if (threadIdx.x % 32 == 0) reduction.finish(row, total);
}

/// Runs a reduction over rows 0 .. rows - 1.
template <class R>
void reduce_rows(index_t rows, const R& reduction) {
  static_assert(kernels::check_reduction<R>());
  if constexpr (kernels::RowReduction<R>) {
    if (rows == 0) return;
    if (reduction.columns() > row_threads)
      reduce_rows_kernel<<<unsigned(rows), row_threads, 0, stream()>>>(reduction);
    else
      reduce_short_rows_kernel<<<unsigned((rows + row_warps - 1) / row_warps), row_threads, 0,
                                 stream()>>>(rows, reduction);
    check_launch("reduce_rows");
  }
}

}  // namespace pare::backend::cuda
