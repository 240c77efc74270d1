// Attention of float32 activations in one kernel: products on the tensor cores in two parts of 11
// bits, online softmax, no scores in memory.
#pragma once

#include "pare/backend/cuda/flash_parts.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace flash_detail {

/// x = high + low up to 2^-23 |x|, both with the 11 bits that the tensor cores take.
__device__ inline void split_tf32(float x, unsigned& high, unsigned& low) {
  high = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;  // to nearest
  low = __float_as_uint(x - __uint_as_float(high));
}

}  // namespace flash_detail

/// softmax(scores) v of the queries of a block, as flash_attention_kernel does it, in float32.
///
/// A product of two numbers is that of their higher parts and the two mixed ones; what is left out is
/// below 2^-22 of it. Tensor cores round sums towards zero, so no sum stays there for longer than a
/// head is wide, or for the keys of one step.
/// Source: Ootomo & Yokota 2022, sections 3 and 4.
/// @param slopes  (1, heads), or no rows
/// @cond  Doxygen stumbles over the pragmas.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::threads, Tiles::blocks)
    flash_float_kernel(MatrixView<float> out, MatrixView<const float> q, MatrixView<const float> k,
                       MatrixView<const float> v, MatrixView<const float> slopes,
                       kernels::AttentionShape shape) {
  using namespace flash_detail;
  constexpr int D = Tiles::width;
  constexpr int row_tiles = Tiles::row_tiles, keys = Tiles::keys, stride = Tiles::stride;
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr unsigned tile_bytes = 4 * keys * stride;
  const unsigned queries = unsigned(__cvta_generic_to_shared(memory));  // (queries, D)
  const unsigned key_tiles = queries + 4 * Tiles::queries * stride;     // 2 of (keys, D)
  const unsigned value_tiles = key_tiles + 2 * tile_bytes;              // 2 of (keys, D)

  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const index_t head = blockIdx.x, kv_head = shape.kv_head(head);
  const int seqlen = int(shape.seqlen), width = int(shape.head_dim);
  const index_t window = index_t(blockIdx.z) * seqlen;  // its first token
  // The longest first: short ones fill what is left at the end.
  const int first = int(gridDim.y - 1 - blockIdx.y) * Tiles::queries;
  const int last = min(first + Tiles::queries, seqlen) - 1;
  const float* const keys_from = k.row(window) + kv_head * shape.kv_step;
  const float* const values_from = v.row(window) + kv_head * shape.kv_step;
  const ScoreRule rule(slopes, shape, head);

  const int mine = warp * 16 * row_tiles;  // first query of the warp, in the block
  const int lane_row = lane / 4, lane_col = lane % 4 * 2;
  float sums[row_tiles][D / 8][4] = {};
  float base[row_tiles][2], total[row_tiles][2] = {};
#pragma unroll
  for (int r = 0; r < row_tiles; ++r)
    base[r][0] = base[r][1] = -std::numeric_limits<float>::infinity();

  const int begin = int(shape.oldest(first)) / keys, end = last / keys + 1;
  start_copy<Tiles::queries, Tiles>(queries, q.row(window) + head * shape.q_step, q.stride, first,
                                    seqlen, width);
  start_copy<keys, Tiles>(key_tiles, keys_from, k.stride, begin * keys, seqlen, width);
  start_copy<keys, Tiles>(value_tiles, values_from, v.stride, begin * keys, seqlen, width);
  end_of_copies();

  for (int tile = begin; tile < end; ++tile) {
    const unsigned half = unsigned(tile - begin) % 2 * tile_bytes;
    if (tile + 1 < end) {
      const unsigned next = tile_bytes - half;
      start_copy<keys, Tiles>(key_tiles + next, keys_from, k.stride, (tile + 1) * keys, seqlen,
                              width);
      start_copy<keys, Tiles>(value_tiles + next, values_from, v.stride, (tile + 1) * keys, seqlen,
                              width);
    }
    end_of_copies();
    wait_for_copies<1>();
    __syncthreads();
    const unsigned key_tile = key_tiles + half, value_tile = value_tiles + half;

    // Mixed parts apart: each addition there costs a thousandth of what it costs here.
    float scores[row_tiles][keys / 8][4] = {}, mixed[row_tiles][keys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < D / 8; ++step) {
      unsigned high[row_tiles][4], low[row_tiles][4];
#pragma unroll
      for (int r = 0; r < row_tiles; ++r) {
        unsigned a[4];
        load_matrices(a, queries +
                             4 * ((mine + 16 * r + lane % 16) * stride + 8 * step + lane / 16 * 4));
#pragma unroll
        for (int i = 0; i < 4; ++i) split_tf32(__uint_as_float(a[i]), high[r][i], low[r][i]);
      }
#pragma unroll
      for (int n = 0; n < keys / 16; ++n) {
        unsigned b[4], b_high[4], b_low[4];
        load_matrices(b, key_tile + 4 * ((16 * n + lane % 8 + lane / 16 * 8) * stride + 8 * step +
                                         lane / 8 % 2 * 4));
#pragma unroll
        for (int i = 0; i < 4; ++i) split_tf32(__uint_as_float(b[i]), b_high[i], b_low[i]);
#pragma unroll
        for (int r = 0; r < row_tiles; ++r)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            multiply_add_tf32(mixed[r][2 * n + i], low[r], b_high[2 * i], b_high[2 * i + 1]);
            multiply_add_tf32(mixed[r][2 * n + i], high[r], b_low[2 * i], b_low[2 * i + 1]);
            multiply_add_tf32(scores[r][2 * n + i], high[r], b_high[2 * i], b_high[2 * i + 1]);
          }
      }
    }
#pragma unroll
    for (int r = 0; r < row_tiles; ++r)
#pragma unroll
      for (int n = 0; n < keys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[r][n][e] += mixed[r][n][e];

    // Entry e of tile n of a lane: query lane_row + 8 (e / 2), key 8 n + lane_col + e % 2.
    const int from_query = first + mine, key = tile * keys + lane_col;
    const bool cut = tile * keys + keys - 1 > from_query ||
                     int(shape.oldest(from_query + 16 * row_tiles - 1)) > tile * keys;
#pragma unroll
    for (int r = 0; r < row_tiles; ++r) {
      const int query = from_query + 16 * r + lane_row;
      online_softmax<0, true>(scores[r], sums[r], base[r][0], total[r][0], rule, key, query,
                              int(shape.oldest(query)), cut);
      online_softmax<1, true>(scores[r], sums[r], base[r][1], total[r][1], rule, key, query + 8,
                              int(shape.oldest(query + 8)), cut);
    }

    // A lane has the weights of keys 2 t and 2 t + 1, t = lane % 4, where the product expects t and
    // t + 4: the order of keys is free, so values are read in that order.
    unsigned high[row_tiles][keys / 8][4], low[row_tiles][keys / 8][4];
#pragma unroll
    for (int r = 0; r < row_tiles; ++r)
#pragma unroll
      for (int n = 0; n < keys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          split_tf32(scores[r][n][i % 2 * 2 + i / 2], high[r][n][i], low[r][n][i]);
    const float* const values = reinterpret_cast<const float*>(memory + (value_tile - queries));
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      float product[row_tiles][4] = {}, rest[row_tiles][4] = {};
#pragma unroll
      for (int step = 0; step < keys / 8; ++step) {
        const float* const from = values + (8 * step + lane_col) * stride + 8 * n + lane_row;
        unsigned b_high[2], b_low[2];
        split_tf32(from[0], b_high[0], b_low[0]);
        split_tf32(from[stride], b_high[1], b_low[1]);
#pragma unroll
        for (int r = 0; r < row_tiles; ++r) {
          multiply_add_tf32(rest[r], low[r][step], b_high[0], b_high[1]);
          multiply_add_tf32(rest[r], high[r][step], b_low[0], b_low[1]);
          multiply_add_tf32(product[r], high[r][step], b_high[0], b_high[1]);
        }
      }
#pragma unroll
      for (int r = 0; r < row_tiles; ++r)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[r][n][e] += product[r][e] + rest[r][e];
    }
    __syncthreads();  // the next copy writes what was read here
  }

#pragma unroll
  for (int r = 0; r < row_tiles; ++r)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[r][h];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const int query = first + mine + 16 * r + lane_row + 8 * h;
      if (query > last) continue;
      float* const row = out.row(window + query) + head * width;
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
        if (8 * n + lane_col < width)
          *reinterpret_cast<float2*>(row + 8 * n + lane_col) =
              make_float2(sums[r][n][2 * h] / sum, sums[r][n][2 * h + 1] / sum);
    }
}

/// @endcond

}  // namespace pare::backend::cuda
