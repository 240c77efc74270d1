// What sweep_kernel keeps in shared memory: U of its columns, and how it is read and written.
#pragma once

#include <cuda_pipeline.h>

#include <cstdint>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Moves N neighbouring elements, 16 bytes at a time; the address must be a multiple of 16.
template <class T, int N>
__device__ void load(T (&to)[N], const T* from) {
  using Vector = std::conditional_t<sizeof(T) == 4, float4, double2>;
  constexpr int width = int(sizeof(Vector) / sizeof(T));
  static_assert(N % width == 0);
#pragma unroll
  for (int i = 0; i < N; i += width)
    *reinterpret_cast<Vector*>(to + i) = *reinterpret_cast<const Vector*>(from + i);
}

template <class T, int N>
__device__ void store(T* to, const T (&from)[N]) {
  using Vector = std::conditional_t<sizeof(T) == 4, float4, double2>;
  constexpr int width = int(sizeof(Vector) / sizeof(T));
  static_assert(N % width == 0);
#pragma unroll
  for (int i = 0; i < N; i += width)
    *reinterpret_cast<Vector*>(to + i) = *reinterpret_cast<const Vector*>(from + i);
}

/// Reads N neighbouring numbers of shared memory, 16 bytes at a time: with addresses of 32 bits, which
/// the compiler does not work out anew at every use.
/// @param from  a multiple of 16, or of what N numbers take
template <int N>
__device__ void load_shared(float (&to)[N], unsigned from) {
  if constexpr (N == 2) {
    asm("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(to[0]), "=f"(to[1]) : "r"(from));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      asm("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
          : "=f"(to[i]), "=f"(to[i + 1]), "=f"(to[i + 2]), "=f"(to[i + 3])
          : "r"(from + 4 * i));
  }
}
template <int N>
__device__ void load_shared(double (&to)[N], unsigned from) {
#pragma unroll
  for (int i = 0; i < N; i += 2)
    asm("ld.shared.v2.f64 {%0, %1}, [%2];" : "=d"(to[i]), "=d"(to[i + 1]) : "r"(from + 8 * i));
}

/// The shared memory of sweep_kernel.
template <class T, int Columns, int Chain>
struct SweepShared {
  T upper[Columns][Columns];   ///< U behind the column's chain, zero elsewhere
  T within[Columns][Chain];    ///< U in the column's chain
  T diagonal[Columns][2];      ///< U_jj and 1 / U_jj
  std::int32_t grid[Columns];  ///< grid of each column
};

/// Fills all of shared but the grids. All threads of the block must call it.
/// @param factor   U of the columns, (count, count)
/// @param aligned  whether 16 bytes of it lie side by side at every multiple of 16 bytes
template <class T, int Columns, int Chain>
__device__ void stage_upper(SweepShared<T, Columns, Chain>& shared, MatrixView<const T> factor,
                            bool aligned) {
  constexpr int width = int(16 / sizeof(T)), chunks = Columns / width;
  static_assert(Chain % width == 0);
  const int count = int(factor.cols);
  if (aligned) {
#pragma unroll 4
    for (int at = threadIdx.x; at < Columns * chunks; at += blockDim.x) {
      const int j = at / chunks, k = at % chunks * width;
      T* const to = &shared.upper[j][k];
      if (k + width > j && j < count && k < count)
        __pipeline_memcpy_async(to, &factor(j, k), 16);
      else
        *reinterpret_cast<uint4*>(to) = uint4{};
    }
  } else {
#pragma unroll 1
    for (int at = threadIdx.x; at < Columns * Columns; at += blockDim.x) {
      const int j = at / Columns, k = at % Columns;
      shared.upper[j][k] = j <= k && k < count ? factor(j, k) : T(0);
    }
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  for (int j = threadIdx.x; j < Columns; j += blockDim.x) {
    const T diagonal = j < count ? shared.upper[j][j] : T(1);
    shared.diagonal[j][0] = diagonal;
    shared.diagonal[j][1] = T(1) / diagonal;
    T* const chain = &shared.upper[j][j - j % Chain];
    for (int c = 0; c < Chain; ++c) {
      shared.within[j][c] = chain[c];
      chain[c] = 0;
    }
  }
}

}  // namespace pare::backend::cuda
