// Products of tiles within a cooperative launch, on the tensor cores in parts.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/cholesky_block.cuh"
#include "pare/backend/cuda/direct_product.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace tiles_detail {

using cholesky_detail::threads;
/// Columns that are eliminated in a step, all terms of its products; and the side of the tiles that a
/// block of threads computes.
inline constexpr int depth = cholesky_detail::side, tile = 64, halves = depth / tile;
/// Terms that arrive in shared memory together.
inline constexpr int stage = 32, stages = depth / stage;
/// Rows in shared memory are longer than what they hold, against bank conflicts.
inline constexpr int line_stride = stage + 4, term_stride = tile + 8;
inline constexpr int numbers = tile * line_stride;  // of an operand's stage, either way it lies
static_assert(stage * term_stride <= numbers);
/// Shared memory: operands of two products, or the block on the diagonal.
inline constexpr int operand_bytes = 2 * stages * numbers * int(sizeof(float));
inline constexpr int bytes = std::max(2 * operand_bytes, int(sizeof(cholesky_detail::Shared)));

/// What the kernel works on.
struct Problem {
  float* A;       ///< (n, n)
  int n, stride;  ///< of A
  float* R;       ///< (depth, padded n): of the step's rows of R what is right of the diagonal
  float* turned;  ///< (padded n, depth): its transpose
  int padded;     ///< n, rounded up to tiles
  bool aligned;   ///< A lies at multiples of 16 bytes
  int* info;
};

/// A tile of a product: C = sign * left right, to which `add` adds what C was.
struct Item {
  const float *left, *right;
  float* C;
  int left_stride, right_stride;
  int rows, cols, terms;      ///< that there are
  int left_rows, right_cols;  ///< that the operands have
  bool by_terms;              ///< left lies as (terms, rows) instead of (rows, terms)
  bool left_aligned, right_aligned;
  bool add;
  float sign;
  float *copy, *turned;  ///< where C is written instead, where not null: as it is and transposed
  float* zero;           ///< tile of A that becomes zero, may be null
  int zero_rows;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

/// Starts the copy of (Rows, Cols) numbers to shared memory; what lies outside is zero.
template <int Rows, int Cols, int Stride>
__device__ void start_tile(float* to, const float* from, int stride, int rows, int cols,
                           bool aligned) {
  constexpr int runs = Cols / 4, apart = threads / runs;
  const int row = int(threadIdx.x) / runs, c = int(threadIdx.x) % runs * 4;
  to += row * Stride + c;
  from += index_t(row) * stride + c;
  if (aligned && rows >= Rows && cols >= Cols) {
    const auto address = unsigned(__cvta_generic_to_shared(to));
#pragma unroll
    for (int r = 0; r < Rows; r += apart)
      copy_to_shared(address + r * Stride * 4, from + index_t(r) * stride);
    return;
  }
#pragma unroll 1
  for (int r = 0; r < Rows; r += apart)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      to[r * Stride + e] = row + r < rows && c + e < cols ? from[index_t(r) * stride + e] : 0.0f;
}

/// Starts the copies of an item's operands, one group of copies per stage.
__device__ inline void start_item(float* memory, const Item& item) {
#pragma unroll 1
  for (int s = 0; s < stages; ++s) {
    float *const left = memory + 2 * s * numbers, *const right = left + numbers;
    const int k = s * stage;
    if (k < item.terms) {
      if (item.by_terms)
        start_tile<stage, tile, term_stride>(left, item.left + index_t(k) * item.left_stride,
                                             item.left_stride, item.terms - k, item.left_rows,
                                             item.left_aligned);
      else
        start_tile<tile, stage, line_stride>(left, item.left + k, item.left_stride, item.left_rows,
                                             item.terms - k, item.left_aligned);
      start_tile<stage, tile, term_stride>(right, item.right + index_t(k) * item.right_stride,
                                           item.right_stride, item.terms - k, item.right_cols,
                                           item.right_aligned);
    }
    end_of_copies();
  }
}

/// What a thread has of 32 by 32 numbers: 2 x 4 pieces of 16 by 8, four of each. Four warps have a tile, and
/// four more the same one for the other half of the terms.
using Sums = float[2][4][4];

template <bool ByTerms>
__device__ void multiply_stage(const float* left, const float* right, Sums& sums, Sums& small) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int of_four = lane % 4, of_eight = lane / 4;
  const int m0 = warp % 4 / 2 * 32 + of_eight, n0 = warp % 2 * 32 + of_eight;
  Sums high = {};
#pragma unroll
  for (int step = 0; step < stage / 2; step += 8) {
    const int k = warp / 4 * (stage / 2) + step;
    unsigned a_high[2][4], a_low[2][4], b_high[4][2], b_low[4][2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int m = m0 + 16 * i + e % 2 * 8, t = k + of_four + e / 2 * 4;
        direct_detail::part(left[ByTerms ? t * term_stride + m : m * line_stride + t], a_high[i][e],
                            a_low[i][e]);
      }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        direct_detail::part(right[(k + of_four + 4 * e) * term_stride + n0 + 8 * j], b_high[j][e],
                            b_low[j][e]);
    // One of the three products after the other: neighbours in time do not wait for each other.
    const auto add = [](Sums& sum, const unsigned(&a)[2][4], const unsigned(&b)[4][2]) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) direct_detail::multiply_add(sum[i][j], a[i], b[j]);
    };
    add(small, a_low, b_high);
    add(high, a_high, b_high);
    add(small, a_high, b_low);
  }
  // The tensor cores cut off what they add to a large sum; here it is rounded.
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] += high[i][j][e];
}

/// Adds what the two warps of the same numbers have: each keeps 16 of the 32 rows.
/// @param room  shared memory for numbers of all threads, which nobody reads any more
__device__ inline void add_halves(const Sums& sums, const Sums& small, float4* room,
                                  float (&mine)[4][4]) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const bool upper = warp < 4;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float other[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float first = sums[0][j][e] + small[0][j][e], last = sums[1][j][e] + small[1][j][e];
      mine[j][e] = upper ? first : last;
      other[e] = upper ? last : first;
    }
    room[(j * 8 + (warp + 4) % 8) * 32 + lane] =
        make_float4(other[0], other[1], other[2], other[3]);
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float4 x = room[(j * 8 + warp) * 32 + lane];
    mine[j][0] += x.x, mine[j][1] += x.y, mine[j][2] += x.z, mine[j][3] += x.w;
  }
}

/// Waits until at most `behind` of the last groups of copies are on their way.
__device__ inline void wait_for_groups(int behind) {
  static_assert(2 * stages == 8);
  switch (behind) {
    case 0:
      wait_for_copies<0>();
      break;
    case 1:
      wait_for_copies<1>();
      break;
    case 2:
      wait_for_copies<2>();
      break;
    case 3:
      wait_for_copies<3>();
      break;
    case 4:
      wait_for_copies<4>();
      break;
    case 5:
      wait_for_copies<5>();
      break;
    case 6:
      wait_for_copies<6>();
      break;
    default:
      wait_for_copies<7>();
  }
}

/// Computes the items first, first + step ... below `count` that decode(i) describes. An item's operands
/// arrive while the one before is computed.
template <class Decode>
__device__ void compute_items(const Problem& p, float* memory, int first, int step, int count,
                              const Decode& decode) {
  if (first >= count) return;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  Item item = decode(first);
  start_item(memory, item);
  for (int at = first, turn = 0; at < count; at += step, turn ^= 1) {
    const bool more = at + step < count;
    Item next{};
    if (more) {
      next = decode(at + step);
      start_item(memory + (turn ^ 1) * 2 * stages * numbers, next);
    }
    const auto for_pairs = [&](const auto& f) {  // of neighbours that the thread has in the end
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; e += 2)
          f(j, e, warp % 4 / 2 * 32 + warp / 4 * 16 + lane / 4 + 4 * e,
            warp % 2 * 32 + 8 * j + 2 * (lane % 4));
    };
    float before[4][4] = {}, result[4][4];
    Sums sums = {}, small = {};
    const bool whole = p.aligned && item.rows >= tile && item.cols >= tile;
    if (item.add && whole)
      for_pairs([&](int j, int e, int r, int c) {
        const float2 x = *reinterpret_cast<const float2*>(item.C + index_t(r) * p.stride + c);
        before[j][e] = x.x;
        before[j][e + 1] = x.y;
      });
    else if (item.add)
      for_pairs([&](int j, int e, int r, int c) {
        if (r >= item.rows) return;
        const float* const from = item.C + index_t(r) * p.stride + c;
        if (c < item.cols) before[j][e] = from[0];
        if (c + 1 < item.cols) before[j][e + 1] = from[1];
      });
    float* const here = memory + turn * 2 * stages * numbers;
#pragma unroll 1
    for (int s = 0; s < stages && s * stage < item.terms; ++s) {
      // Of the groups, those behind this stage may be on their way, and all of the next item.
      const int behind = stages - 1 - s + (more ? stages : 0);
      wait_for_groups(behind);
      __syncthreads();
      const float *const left = here + 2 * s * numbers, *const right = left + numbers;
      if (item.by_terms)
        multiply_stage<true>(left, right, sums, small);
      else
        multiply_stage<false>(left, right, sums, small);
    }
    __syncthreads();  // the operands have been read
    add_halves(sums, small, reinterpret_cast<float4*>(here), result);
    for_pairs([&](int j, int e, int r, int c) {
      if (r >= item.rows) return;
      const float2 x = make_float2(before[j][e] + item.sign * result[j][e],
                                   before[j][e + 1] + item.sign * result[j][e + 1]);
      if (item.copy != nullptr) {  // the rooms are padded
        *reinterpret_cast<float2*>(item.copy + index_t(r) * p.padded + c) = x;
        item.turned[index_t(c) * depth + r] = x.x;
        item.turned[index_t(c + 1) * depth + r] = x.y;
        return;
      }
      float* const to = item.C + index_t(r) * p.stride + c;
      if (whole) {
        *reinterpret_cast<float2*>(to) = x;
      } else {
        if (c < item.cols) to[0] = x.x;
        if (c + 1 < item.cols) to[1] = x.y;
      }
    });
    if (item.zero != nullptr)
      for (int z = int(threadIdx.x); z < item.zero_rows * tile; z += threads)
        item.zero[index_t(z / tile) * p.stride + z % tile] = 0;
    __syncthreads();  // what was added has been read
    item = next;
  }
}
#endif

}  // namespace tiles_detail

}  // namespace pare::backend::cuda
