// Attention in one kernel, that of 16-bit activations, and the choice between this and float32's:
// tensor cores, online softmax, no scores in memory.
#pragma once

#include "pare/backend/cuda/flash_float.cuh"
#include "pare/backend/cuda/flash_hopper.cuh"
#include "pare/backend/cuda/flash_parts.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// softmax(scores) v of 128 queries of one head of one window by a block of threads.
///
/// A warp owns 16 or 32 queries and keeps their sums in registers; keys and values pass by 64 at a
/// time. Source: Dao 2023 (FlashAttention-2), Algorithm 1.
/// @param slopes  (1, heads) in float, or no rows
/// @cond  Doxygen stumbles over the pragmas.
template <class N, class Tiles>
__global__ void __launch_bounds__(Tiles::threads, Tiles::blocks)
    flash_attention_kernel(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                           MatrixView<const N> v, MatrixView<const float> slopes,
                           kernels::AttentionShape shape) {
  using namespace flash_detail;
  constexpr int D = Tiles::width;
  constexpr int row_tiles = Tiles::row_tiles, keys = Tiles::keys, stride = Tiles::stride;
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr unsigned tile_bytes = 2 * keys * stride;
  const unsigned queries = unsigned(__cvta_generic_to_shared(memory));  // (queries, D)
  const unsigned key_tiles = queries + 2 * Tiles::queries * stride;     // 2 of (keys, D)
  const unsigned value_tiles = key_tiles + 2 * tile_bytes;              // 2 of (keys, D)

  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const index_t head = blockIdx.x, kv_head = shape.kv_head(head);
  const int seqlen = int(shape.seqlen), width = int(shape.head_dim);
  const index_t window = index_t(blockIdx.z) * seqlen;  // its first token
  // The longest first: short ones fill what is left at the end.
  const int first = int(gridDim.y - 1 - blockIdx.y) * Tiles::queries;
  const int last = min(first + Tiles::queries, seqlen) - 1;
  const N* const keys_from = k.row(window) + kv_head * shape.kv_step;
  const N* const values_from = v.row(window) + kv_head * shape.kv_step;

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

    float scores[row_tiles][keys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      unsigned a[row_tiles][4];
#pragma unroll
      for (int r = 0; r < row_tiles; ++r)
        load_matrices(a[r], queries + 2 * ((mine + 16 * r + lane % 16) * stride + 16 * step +
                                           lane / 16 * 8));
#pragma unroll
      for (int n = 0; n < keys / 16; ++n) {
        unsigned b[4];
        load_matrices(b, key_tile + 2 * ((16 * n + lane % 8 + lane / 16 * 8) * stride + 16 * step +
                                         lane / 8 % 2 * 8));
#pragma unroll
        for (int r = 0; r < row_tiles; ++r) {
          multiply_add<N>(scores[r][2 * n], a[r], b[0], b[1]);
          multiply_add<N>(scores[r][2 * n + 1], a[r], b[2], b[3]);
        }
      }
    }

    // Entry e of tile n of a lane: query lane_row + 8 (e / 2), key 8 n + lane_col + e % 2.
    const int from_query = first + mine, key = tile * keys + lane_col;
    const bool cut = tile * keys + keys - 1 > from_query ||
                     int(shape.oldest(from_query + 16 * row_tiles - 1)) > tile * keys;
#pragma unroll
    for (int r = 0; r < row_tiles; ++r) {
      const int query = from_query + 16 * r + lane_row;
      online_softmax<0, false>(scores[r], sums[r], base[r][0], total[r][0], rule, key, query,
                               int(shape.oldest(query)), cut);
      online_softmax<1, false>(scores[r], sums[r], base[r][1], total[r][1], rule, key, query + 8,
                               int(shape.oldest(query + 8)), cut);
    }

#pragma unroll
    for (int step = 0; step < keys / 16; ++step) {
      unsigned weights[row_tiles][4];
#pragma unroll
      for (int r = 0; r < row_tiles; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &scores[r][2 * step + i / 2][i % 2 * 2];
          weights[r][i] = packed_pair<N>(pair[0], pair[1]);
        }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        unsigned b[4];
        load_transposed(b, value_tile +
                               2 * ((16 * step + lane % 16) * stride + 16 * n + lane / 16 * 8));
#pragma unroll
        for (int r = 0; r < row_tiles; ++r) {
          multiply_add<N>(sums[r][2 * n], weights[r], b[0], b[1]);
          multiply_add<N>(sums[r][2 * n + 1], weights[r], b[2], b[3]);
        }
      }
    }
    __syncthreads();  // the next copy writes what was read here
  }

  // Through shared memory, so that 16 bytes are written at a time; every warp has its own rows.
#pragma unroll
  for (int r = 0; r < row_tiles; ++r)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[r][h];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const float factor = 1 / sum;
      N* const row =
          reinterpret_cast<N*>(memory) + (mine + 16 * r + lane_row + 8 * h) * stride + lane_col;
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
        *reinterpret_cast<unsigned*>(row + 8 * n) =
            packed_pair<N>(sums[r][n][2 * h] * factor, sums[r][n][2 * h + 1] * factor);
    }
  __syncwarp();
  constexpr int chunks = D / 8;
  for (int at = lane; at < 16 * row_tiles * chunks; at += 32) {
    const int r = mine + at / chunks, c = at % chunks * 8;
    if (first + r <= last && c < width)
      *reinterpret_cast<uint4*>(out.row(window + first + r) + head * width + c) =
          *reinterpret_cast<const uint4*>(memory + 2 * (r * stride + c));
  }
}

/// @endcond

/// The attention of a ModelBackend in one kernel; false, and nothing done, for heads of more than
/// 256 numbers or that do not lie at multiples of 16 bytes, and for devices before sm_80 or with
/// too little shared memory.
/// @tparam Tuning  a policy of tuning.cuh
template <class Tuning, class N>
bool flash_attention(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                     MatrixView<const N> v, MatrixView<const float> slopes,
                     const kernels::AttentionShape& shape) {
  if (!flash_detail::fits_one_kernel(out, q, k, v, shape)) return false;
  if constexpr (!std::is_same_v<N, float>)
    if (flash_detail::hopper_compiled<N>()) {
      using flash_detail::HopperTiles, flash_detail::launch;
      if (shape.head_dim == 64)
        return launch<HopperTiles<64>>(flash_hopper_kernel<N, HopperTiles<64>>, out, q, k, v,
                                       slopes, shape);
      if (shape.head_dim == 128)
        return launch<HopperTiles<128>>(flash_hopper_kernel<N, HopperTiles<128>>, out, q, k, v,
                                        slopes, shape);
    }
  return flash_detail::with_width(shape.head_dim, [&]<int Width>() {
    if constexpr (std::is_same_v<N, float>) {
      using Tiles = typename Tuning::template flash_float<Width>;
      return flash_detail::launch<Tiles>(flash_float_kernel<Tiles>, out, q, k, v, slopes, shape);
    } else {
      using Tiles = typename Tuning::template flash<Width>;
      return flash_detail::launch<Tiles>(flash_attention_kernel<N, Tiles>, out, q, k, v, slopes,
                                         shape);
    }
  });
}

}  // namespace pare::backend::cuda
