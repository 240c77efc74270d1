// The Cholesky factor of one small matrix and its inverse, in one block of threads.
#pragma once

#include <cstdint>

#include "pare/backend/cuda/direct_product.cuh"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace cholesky_detail {

/// Side of the matrix, and of the tiles that a warp works on: a lane has a row.
inline constexpr int side = 128, tile = 32, tiles = side / tile;
/// The first warps, one per tile of a column, eliminate columns; the others do what can wait.
inline constexpr int warps = 2 * tiles, threads = 32 * warps;
inline constexpr int stride = side + 4;  // rows begin at multiples of 16 bytes, in other banks

/// Shared memory of the block.
struct Shared {
  /// Tiles (r, c): of A transposed where r >= c, while columns up to c are not eliminated; then, and
  /// where r < c, of what the identity becomes, which is the inverse.
  float matrix[side * stride];
  float2 columns[tiles][2][tile];  ///< of each warp, two columns; these alternate
  float scale[side];               ///< what rows and columns are multiplied with
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // as direct_product.cuh
__device__ inline float* tile_at(float* matrix, int r, int c) {
  return matrix + (r * stride + c) * tile;
}
__device__ inline float4& four_at(float* at) { return *reinterpret_cast<float4*>(at); }
__device__ inline const float4& four_at(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}

/// 1 / sqrt(x), to about one unit in the last place; infinite where x is 0 or subnormal.
__device__ inline float inverse_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The power of two that brings x to 1 .. 4 when multiplied with twice; 1 where x is not positive and
/// finite.
__device__ inline float balance(float x) {
  const unsigned exponent = __float_as_uint(x) >> 23;  // with the sign
  return exponent == 0 || exponent >= 255
             ? 1.0f
             : __uint_as_float((127 - ((int(exponent) - 127) >> 1)) << 23);
}

/// Eliminates the columns of a tile on the diagonal from rows below it: every warp does so for itself with
/// the diagonal, so that none waits for another.
/// @param diagonal  a lane's row of that tile
/// @param below     a lane's row of a tile below; what eliminates it on return
/// @param columns   room of the warp
/// @return whether all pivots are positive and finite
__device__ inline bool eliminate(float (&diagonal)[tile], float (&below)[tile],
                                 float2 (*columns)[tile]) {
  const int lane = int(threadIdx.x) % 32;
  bool good = true;
  // Two columns at a time: the way from pivot to pivot is what takes time. On it are two roots at once
  // and one exchange: all lanes work out the next two pivots. What else a pair changes is computed while
  // the next pair's roots and its exchange are waited for.
  float first = __shfl_sync(~0u, diagonal[0], 0), beside = __shfl_sync(~0u, diagonal[0], 1),
        second = __shfl_sync(~0u, diagonal[1], 1);
  float a = 0, b = 0, c = 0, d = 0;  // of the pair before: diagonal's and below's columns
#pragma unroll
  for (int j = 0; j < tile; j += 2) {
    const float2* const before = columns[(j / 2 + 1) % 2];
    const auto subtract = [&](int k) {  // from columns k and k + 1 what the pair before changes
      const float4 x = *reinterpret_cast<const float4*>(before + k);
      diagonal[k] = fmaf(-b, x.y, fmaf(-a, x.x, diagonal[k]));
      diagonal[k + 1] = fmaf(-b, x.w, fmaf(-a, x.z, diagonal[k + 1]));
      below[k] = fmaf(-d, x.y, fmaf(-c, x.x, below[k]));
      below[k + 1] = fmaf(-d, x.w, fmaf(-c, x.z, below[k + 1]));
    };
    if (j > 0) {
      const float4 x = *reinterpret_cast<const float4*>(before + j);
      first = fmaf(-x.y, x.y, fmaf(-x.x, x.x, first));
      beside = fmaf(-x.w, x.y, fmaf(-x.z, x.x, beside));
      second = fmaf(-x.w, x.w, fmaf(-x.z, x.z, second));
    }
    const float determinant = fmaf(first, second, -(beside * beside));
    good = good && first > 0 && determinant > 0 && isfinite(determinant);
    const float root = inverse_root(first), root_of_both = inverse_root(determinant);
    const float l = beside * root, next = first * root * root_of_both;
    const int half = (j + tile + 4) / 4 * 2;
    if (j > 0) {
#pragma unroll
      for (int k = j; k < half && k < tile; k += 2) subtract(k);
    }
    const float e = diagonal[j] * root, f = (diagonal[j + 1] - e * l) * next;
    const float g = below[j] = below[j] * root;
    const float h = below[j + 1] = (below[j + 1] - g * l) * next;
    if (j + 2 == tile) break;
    columns[j / 2 % 2][lane] = make_float2(e, f);
    if (j > 0) {
#pragma unroll
      for (int k = half; k < tile; k += 2) subtract(k);
    }
    first = __shfl_sync(~0u, diagonal[j + 2], j + 2);
    beside = __shfl_sync(~0u, diagonal[j + 2], j + 3);
    second = __shfl_sync(~0u, diagonal[j + 3], j + 3);
    a = e, b = f, c = g, d = h;
    __syncwarp();
  }
  return good;
}

/// Half of a tile, 16 rows by 32 columns: C -= A B^T, on the tensor cores in parts.
__device__ inline void subtract_product(float* C, const float* A, const float* B, int half) {
  constexpr int pieces = tile / 8;  // of 16 by 8 numbers
  const int lane = int(threadIdx.x) % 32, of_four = lane % 4, of_eight = lane / 4;
  const int row = 16 * half + of_eight;
  float small[pieces][4] = {}, high[pieces][4] = {};
#pragma unroll
  for (int k = 0; k < tile; k += 8) {
    unsigned a_high[4], a_low[4], b_high[pieces][2], b_low[pieces][2];
#pragma unroll
    for (int e = 0; e < 4; ++e)
      direct_detail::part(A[(row + e % 2 * 8) * stride + k + of_four + e / 2 * 4], a_high[e],
                          a_low[e]);
#pragma unroll
    for (int j = 0; j < pieces; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        direct_detail::part(B[(8 * j + of_eight) * stride + k + of_four + e * 4], b_high[j][e],
                            b_low[j][e]);
#pragma unroll
    for (int j = 0; j < pieces; ++j) direct_detail::multiply_add(small[j], a_low, b_high[j]);
#pragma unroll
    for (int j = 0; j < pieces; ++j) direct_detail::multiply_add(high[j], a_high, b_high[j]);
#pragma unroll
    for (int j = 0; j < pieces; ++j) direct_detail::multiply_add(small[j], a_high, b_low[j]);
  }
#pragma unroll
  for (int j = 0; j < pieces; ++j)
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      float2& c = *reinterpret_cast<float2*>(C + (row + 4 * e) * stride + 8 * j + 2 * of_four);
      c = make_float2(c.x - (high[j][e] + small[j][e]), c.y - (high[j][e + 1] + small[j][e + 1]));
    }
}

/// The tile above the diagonal, with it, that `index` counts row by row.
__device__ inline int2 upper_tile(int index) {
  int r = 0;
  for (; index >= tiles - r; ++r) index -= tiles - r;
  return make_int2(r, r + index);
}

/// Reads Many tiles of the upper triangle of A, which ends in the identity, from the First on, scales them
/// and puts them transposed into shared memory; by Warps warps of which this one is `me`.
/// @param whole  whether A has all columns and lies at multiples of 16 bytes
/// @param ready  called between reading and scaling
template <int First, int Many, int Warps, class F>
__device__ void load_tiles(Shared& shared, MatrixView<const float> A, bool whole, int me,
                           const F& ready) {
  const int n = int(A.rows), lane = int(threadIdx.x) % 32;
  // A warp reads 8 rows by 16 columns at a time, so that few of the transposed numbers share a bank.
  constexpr int pieces = tile * tile / 128, each = Many * pieces / Warps;
  static_assert(pieces % Warps == 0);
  const auto place = [&](int q) {
    const int2 of = upper_tile(First + q * Warps / pieces);
    const int piece = q * Warps % pieces + me;
    return make_int2(of.x * tile + piece / 2 * 8 + lane % 8,
                     of.y * tile + piece % 2 * 16 + lane / 8 * 4);
  };
  const auto number = [&](int i, int j) { return i < n && j < n ? A(i, j) : float(i == j); };
  float4 read[each];
  if (whole) {
#pragma unroll
    for (int q = 0; q < each; ++q) read[q] = four_at(&A(place(q).x, place(q).y));
  } else {
#pragma unroll
    for (int q = 0; q < each; ++q) {
      const int2 at = place(q);
      read[q] = make_float4(number(at.x, at.y), number(at.x, at.y + 1), number(at.x, at.y + 2),
                            number(at.x, at.y + 3));
    }
  }
  ready();
#pragma unroll
  for (int q = 0; q < each; ++q) {
    const int2 at = place(q);
    const float row = shared.scale[at.x];
    const float4 column = four_at(shared.scale + at.y);
    float* const to = shared.matrix + at.y * stride + at.x;
    // A tile on the diagonal is read below it as well, but not used there.
    to[0] = read[q].x * row * column.x;
    to[stride] = read[q].y * row * column.y;
    to[2 * stride] = read[q].z * row * column.z;
    to[3 * stride] = read[q].w * row * column.w;
  }
}

/// Writes tiles `c` of the inverse's rows, which are complete, and zeros below; by Many warps of which
/// this one is `me`.
template <int Many>
__device__ void store_column(const Shared& shared, MatrixView<float> A, bool whole, int c, int me) {
  const int n = int(A.rows), lane = int(threadIdx.x) % 32, j = c * tile + lane % 8 * 4;
  const auto number = [&](int i) {
    const float scale = i / tile <= c ? shared.scale[i] : 0.0f;
    const float4 x = four_at(shared.matrix + i * stride + j);
    return i / tile <= c ? make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale)
                         : make_float4(0, 0, 0, 0);
  };
  if (whole) {
#pragma unroll 4
    for (int i = 4 * me + lane / 8; i < side; i += 4 * Many) four_at(&A(i, j)) = number(i);
    return;
  }
  for (int i = 4 * me + lane / 8; i < n; i += 4 * Many) {
    const float4 x = number(i);
    if (j < n) A(i, j) = x.x;
    if (j + 1 < n) A(i, j + 1) = x.y;
    if (j + 2 < n) A(i, j + 2) = x.z;
    if (j + 3 < n) A(i, j + 3) = x.w;
  }
}

/// Overwrites the symmetric A = R^T R, of which only the upper triangle is read, with inverse(R), zeros
/// below. One block of `threads` threads.
///
/// Columns are eliminated from A and, below it, from the identity. What that becomes is the inverse, row
/// for row what A's rows have been: every column has as many tiles below as there are warps for it.
/// @param A     up to (side, side)
/// @param info  becomes 1 where a pivot is not positive and finite
__device__ inline void cholesky_block(Shared& shared, MatrixView<float> A, int* info) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const bool whole =
      A.rows == side && A.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(A.data) % 16 == 0;
  constexpr int others = warps - tiles;
  float* const matrix = shared.matrix;
  if (warp < tiles) {  // the first column
    load_tiles<0, tiles, tiles>(shared, A, whole, warp, [&] {
      static_assert(side == 32 * tiles);
      const int i = int(threadIdx.x);
      shared.scale[i] = balance(i < int(A.rows) ? A(i, i) : 1.0f);
      __syncthreads();  // the scales are there
    });
  } else {  // the others; the inverse begins with zeros
    load_tiles<tiles, tiles*(tiles - 1) / 2, others>(shared, A, whole, warp - tiles, [&] {
#pragma unroll 4
      for (int i = (warp - tiles) * 32 + lane; i < side * side / 4; i += others * 32)
        if (const int r = i / (side / 4), c = i % (side / 4) * 4; r / tile < c / tile)
          four_at(matrix + r * stride + c) = make_float4(0, 0, 0, 0);
      __syncthreads();  // the scales are there
    });
  }
  __syncthreads();
  for (int t = 0; t < tiles; ++t) {
    if (warp >= tiles) __syncthreads();  // with the first, who read the diagonal
    if (warp < tiles) {
      alignas(16) float diagonal[tile], below[tile];
      float* const mine = tile_at(matrix, warp, t) + lane * stride;
      const float* const pivots = tile_at(matrix, t, t) + lane * stride;
#pragma unroll
      for (int k = 0; k < tile; k += 4) {
        four_at(diagonal + k) = four_at(pivots + k);
        four_at(below + k) = four_at(mine + k);
      }
      if (warp == t)
#pragma unroll
        for (int k = 0; k < tile; ++k) below[k] = float(k == lane);
      __syncthreads();  // all have read the diagonal
      if (!eliminate(diagonal, below, shared.columns[warp]) && lane == 0) *info = 1;
#pragma unroll
      for (int k = 0; k < tile; k += 4) four_at(mine + k) = four_at(below + k);
    } else if (const int me = warp - tiles; t + 1 == tiles) {
      for (int c = 0; c + 1 < tiles; ++c) store_column<others>(shared, A, whole, c, me);
    } else if (t > 0) {
      // What a tile eliminated before changes beyond this one, two half tiles per warp and t.
      static_assert(tiles == 4 && others == 4);
      for (int turn = 0; turn < 2; ++turn) {
        const bool one = me / 2 > 0;
        const int r = t == 1 ? (one ? 3 : 2 * turn) : (one ? 1 + 2 * turn : 0);
        const int c = t == 1 ? 2 + (one && turn > 0) : 3, from = t == 1 ? 0 : one ? 1 : turn;
        subtract_product(tile_at(matrix, r, c), tile_at(matrix, r, from), tile_at(matrix, c, from),
                         me % 2);
      }
    }
    __syncthreads();
    if (t + 1 == tiles) break;
    // What the next tile needs.
    subtract_product(tile_at(matrix, warp % tiles, t + 1), tile_at(matrix, warp % tiles, t),
                     tile_at(matrix, t + 1, t), warp / tiles);
    __syncthreads();
  }
  store_column<warps>(shared, A, whole, tiles - 1, warp);
  __syncthreads();
}
#endif

}  // namespace cholesky_detail

}  // namespace pare::backend::cuda
