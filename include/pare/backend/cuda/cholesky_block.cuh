// The Cholesky factor of one small matrix and its inverse, in one block of threads.
#pragma once

#include <cstdint>

#include "pare/backend/cuda/context.cuh"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace cholesky_detail {

/// Side of the matrix, and of the tiles that a warp works on: a lane has a row.
inline constexpr int side = 128, tile = 32, tiles = side / tile;
inline constexpr int warps = 8, threads = 32 * warps;
inline constexpr int stride = side + 4;  // rows begin at multiples of 16 bytes, in other banks
inline constexpr int bytes = 2 * side * stride * int(sizeof(float));

/// A tile of a matrix in shared memory.
struct Tile {
  float* at;
  __device__ float* row(int i) const { return at + i * stride; }
};
__device__ inline Tile tile_of(float* matrix, int r, int c) {
  return {matrix + (r * stride + c) * tile};
}

/// What a lane has while a tile's columns are factored: its row of the tile on the diagonal and of one
/// below it. Every warp factors the diagonal for itself, so that none waits for another.
struct Rows {
  alignas(16) float diagonal[tile];
  alignas(16) float below[tile];

  __device__ void load(Tile on, Tile under) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < tile; k += 4) {
      *reinterpret_cast<float4*>(diagonal + k) = *reinterpret_cast<const float4*>(on.row(lane) + k);
      *reinterpret_cast<float4*>(below + k) = *reinterpret_cast<const float4*>(under.row(lane) + k);
    }
  }

  /// Whether all pivots were positive. Two columns at a time: the way from pivot to pivot is what takes
  /// time.
  __device__ bool factor() {
    bool good = true;
#pragma unroll
    for (int j = 0; j < tile; j += 2) {
      const float first = __shfl_sync(~0u, diagonal[j], j);
      const float beside = __shfl_sync(~0u, diagonal[j], j + 1);
      const float second = __shfl_sync(~0u, diagonal[j + 1], j + 1);
      const float inverse = inverse_root(first), l = beside * inverse;
      const float pivot = second - l * l, next = inverse_root(pivot);
      good = good && first > 0 && pivot > 0;
      diagonal[j] *= inverse;
      below[j] *= inverse;
      diagonal[j + 1] = (diagonal[j + 1] - diagonal[j] * l) * next;
      below[j + 1] = (below[j + 1] - below[j] * l) * next;
#pragma unroll
      for (int k = j + 2; k < tile; ++k) {
        const float a = __shfl_sync(~0u, diagonal[j], k), b = __shfl_sync(~0u, diagonal[j + 1], k);
        diagonal[k] = diagonal[k] - diagonal[j] * a - diagonal[j + 1] * b;
        below[k] = below[k] - below[j] * a - below[j + 1] * b;
      }
    }
    return good;
  }

  /// 1 / sqrt(x), to about one unit in the last place.
  static __device__ float inverse_root(float x) {
    const float y = rsqrtf(x);
    return y * (1.5f - 0.5f * x * y * y);
  }

  static __device__ void store(Tile to, const float (&from)[tile]) {
#pragma unroll
    for (int k = 0; k < tile; k += 4)
      *reinterpret_cast<float4*>(to.row(int(threadIdx.x) % 32) + k) =
          *reinterpret_cast<const float4*>(from + k);
  }
};

/// Half of a tile, 16 rows by 32 columns: sum += A B, with B given as its transpose where
/// Transposed. A lane has 4 rows and 4 columns.
template <bool Transposed>
__device__ void multiply_add(float (&sum)[4][4], Tile A, Tile B, int half) {
  const int lane = int(threadIdx.x) % 32, r = 16 * half + lane / 8, c = lane % 8;
#pragma unroll
  for (int k = 0; k < tile; k += 4) {
    float a[4][4], b[4][4];  // rows r + 4 i; terms
#pragma unroll
    for (int i = 0; i < 4; ++i)
      *reinterpret_cast<float4*>(a[i]) = *reinterpret_cast<const float4*>(A.row(r + 4 * i) + k);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      *reinterpret_cast<float4*>(b[j]) = *reinterpret_cast<const float4*>(
          Transposed ? B.row(c + 8 * j) + k : B.row(k + j) + 4 * c);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[i][j] += a[i][e] * (Transposed ? b[j][e] : b[e][j]);
  }
}

/// C = sign * sum, or C += sign * sum with Add.
template <bool Transposed, bool Add>
__device__ void store(const float (&sum)[4][4], Tile C, int half, float sign) {
  const int lane = int(threadIdx.x) % 32, r = 16 * half + lane / 8, c = lane % 8;
  float before[4][4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if constexpr (Add) before[i][j] = C.row(r + 4 * i)[Transposed ? c + 8 * j : 4 * c + j];
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      C.row(r + 4 * i)[Transposed ? c + 8 * j : 4 * c + j] = before[i][j] + sign * sum[i][j];
}

/// inverse = the inverse of the lower triangular tile: a lane has a column.
__device__ inline void invert_tile(Tile L, Tile inverse) {
  const int lane = int(threadIdx.x) % 32;
  const float inverse_diagonal = 1 / L.row(lane)[lane];
  float y[tile];
#pragma unroll
  for (int i = 0; i < tile; ++i) {
    float sum[4] = {i == lane ? 1.0f : 0.0f, 0, 0, 0};  // four chains instead of one
#pragma unroll
    for (int k = 0; k < i; k += 4) {
      alignas(16) float l[4];
      *reinterpret_cast<float4*>(l) = *reinterpret_cast<const float4*>(L.row(i) + k);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (k + e < i) sum[e] -= l[e] * y[k + e];
    }
    y[i] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * __shfl_sync(~0u, inverse_diagonal, i);
  }
#pragma unroll
  for (int i = 0; i < tile; ++i) inverse.row(i)[lane] = y[i];
}

/// A = R^T R for the block of `side` columns on the diagonal: on return it holds inverse(R), and zeros
/// below. One block of threads.
/// @param A     up to (side, side); what lies below the diagonal is not read
/// @param info  becomes 1 where a pivot is not positive
template <class T>
__global__ void __launch_bounds__(threads) cholesky_block_kernel(MatrixView<T> A, int* info) {
  extern __shared__ __align__(16) float memory[];
  float* const L = memory;                  // lower triangular, R^T
  float* const Y = memory + side * stride;  // its inverse
  const int n = int(A.rows), warp = int(threadIdx.x) / 32;
  constexpr int together = 16;  // reads that wait for memory at the same time
  for (int first = int(threadIdx.x); first < side * side; first += together * threads) {
    float a[together];
#pragma unroll
    for (int c = 0; c < together; ++c) {
      const int i = (first + c * threads) / side, j = (first + c * threads) % side;
      // Beyond the matrix lies the identity.
      a[c] = i <= j && j < n ? A(i, j) : float(i == j);
    }
#pragma unroll
    for (int c = 0; c < together; ++c) {
      const int i = (first + c * threads) / side, j = (first + c * threads) % side;
      L[j * stride + i] = a[c];
      Y[i * stride + j] = 0;
    }
  }
  __syncthreads();

  bool good = true;
  for (int t = 0; t < tiles; ++t) {
    const bool busy = warp >= t && warp < tiles;
    Rows rows;
    if (busy) {
      rows.load(tile_of(L, t, t), tile_of(L, warp, t));
      good = rows.factor() && good;
    }
    __syncthreads();  // all have read the diagonal
    if (busy && warp == t) Rows::store(tile_of(L, warp, t), rows.diagonal);
    if (busy && warp != t) Rows::store(tile_of(L, warp, t), rows.below);
    __syncthreads();
    int job = 0;
    for (int c = t + 1; c < tiles; ++c)
      for (int r = c; r < tiles; ++r)
        for (int half = 0; half < 2; ++half, ++job)
          if (job % warps == warp) {
            float sum[4][4] = {};
            multiply_add<true>(sum, tile_of(L, r, t), tile_of(L, c, t), half);
            store<true, true>(sum, tile_of(L, r, c), half, -1);
          }
    __syncthreads();
  }
  if (!good && threadIdx.x % 32 == 0) *info = 1;

  if (warp < tiles) invert_tile(tile_of(L, warp, warp), tile_of(Y, warp, warp));
  __syncthreads();
  for (int r = 1; r < tiles; ++r) {
    // Row r left of the diagonal: -inverse(L_rr) times what is left of it in L times what is above in Y.
    for (int job = warp; job < 2 * r; job += warps) {
      float sum[4][4] = {};
      for (int k = job / 2; k < r; ++k)
        multiply_add<false>(sum, tile_of(L, r, k), tile_of(Y, k, job / 2), job % 2);
      // What lies above the diagonal of L is free.
      store<false, false>(sum, tile_of(L, job / 2, r), job % 2, 1);
    }
    __syncthreads();
    for (int job = warp; job < 2 * r; job += warps) {
      float sum[4][4] = {};
      multiply_add<false>(sum, tile_of(Y, r, r), tile_of(L, job / 2, r), job % 2);
      store<false, false>(sum, tile_of(Y, r, job / 2), job % 2, -1);
    }
    __syncthreads();
  }
  for (int at = int(threadIdx.x); at < side * side; at += threads) {
    const int i = at / side, j = at % side;
    if (i < n && j < n) A(i, j) = Y[j * stride + i];
  }
}

}  // namespace cholesky_detail

/// Side of the matrices that cholesky_block() takes.
inline constexpr index_t cholesky_side = cholesky_detail::side;
/// Bytes of shared memory that it needs.
inline constexpr int cholesky_bytes = cholesky_detail::bytes;

/// Overwrites the symmetric A = R^T R, of which only the upper triangle is read, with inverse(R), zeros
/// below.
/// @param A     up to (cholesky_side, cholesky_side)
/// @param info  one number in device memory, becomes 1 where A is not positive definite
/// @throws device_error
inline void cholesky_block(MatrixView<float> A, int* info) {
  using namespace cholesky_detail;
  allow_shared(cholesky_block_kernel<float>, bytes);
  cholesky_block_kernel<float><<<1, threads, bytes, stream()>>>(A, info);
  check_launch("cholesky_block_kernel");
}

}  // namespace pare::backend::cuda
