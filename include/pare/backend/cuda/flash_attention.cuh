// Attention of 16-bit activations in one kernel: tensor cores, online softmax, no scores in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/storage.cuh"
#include "pare/kernels/attention.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// How flash_attention_kernel cuts its work.
/// @tparam Width     numbers of a head that are computed with, a multiple of 16; those beyond head_dim
///                   are 0
/// @tparam RowTiles  tiles of 16 queries of one warp
/// @tparam Keys      that are in shared memory at a time, a multiple of 16
/// @tparam Blocks    of a multiprocessor at a time
template <int Width, int RowTiles, int Keys, int Blocks>
struct FlashTiles {
  static constexpr int width = Width, row_tiles = RowTiles, keys = Keys, blocks = Blocks;
  static constexpr int queries = 128;  ///< of a block
  static constexpr int threads = 32 * queries / (16 * RowTiles);
  /// Numbers from a row to the next: eight neighbouring rows then lie in different banks.
  static constexpr int stride = Width + 8;
  /// Queries, and keys and values twice: the next ones arrive while the last are read.
  static constexpr int bytes = (queries + 4 * keys) * stride * 2;
};

namespace flash_detail {

/// Of a grid's second and third dimension.
inline constexpr index_t most_blocks = 65535;

// Places in shared memory are bytes from its start in 32 bits, as instructions take them.

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
/// Copies 16 bytes to shared memory, or writes zeros there; ends with a wait_for_copies.
__device__ inline void copy_async(unsigned to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all copies but those of the last `Pending` groups.
template <int Pending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Four matrices of 8 x 8 numbers; lane l names row l % 8 of matrix l / 8.
__device__ inline void load_matrices(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
/// The same, each matrix transposed.
__device__ inline void load_transposed(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}

/// c (16, 8) += a (16, 16) b (16, 8), sums in float.
template <class N>
__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<N, __half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
// Never launched there; see flash_attention.
__device__ inline void copy_async(unsigned, const void*, bool) {}
__device__ inline void end_of_copies() {}
template <int>
__device__ void wait_for_copies() {}
__device__ inline void load_matrices(unsigned (&)[4], unsigned) {}
__device__ inline void load_transposed(unsigned (&)[4], unsigned) {}
template <class N>
__device__ void multiply_add(float (&)[4], const unsigned (&)[4], unsigned, unsigned) {}
#endif

/// Two numbers as one register, the first in its lower half.
template <class N>
__device__ unsigned packed_pair(float a, float b) {
  unsigned bits;
  if constexpr (std::is_same_v<N, __half>) {
    const __half2 pair = __floats2half2_rn(a, b);
    memcpy(&bits, &pair, sizeof(bits));
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    memcpy(&bits, &pair, sizeof(bits));
  }
  return bits;
}

/// 2^x up to 2^-22; 0 for -infinity.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// tanh(x) up to 1e-6 of 1.
__device__ inline float fast_tanh(float x) {
  const float e = power_of_two(-2.885390082f * std::abs(x));  // exp(-2 |x|)
  return copysignf(__fdividef(1 - e, 1 + e), x);
}

/// Starts the copy of rows first .. first + Rows - 1 of one head to shared memory; what lies behind
/// `seqlen` or `width` becomes zero.
template <int Rows, class Tiles, class N>
__device__ void start_copy(unsigned to, const N* from, index_t stride, int first, int seqlen,
                           int width) {
  constexpr int chunks = Tiles::width / 8;
  for (int at = int(threadIdx.x); at < Rows * chunks; at += Tiles::threads) {
    const int r = at / chunks, c = at % chunks * 8;
    const bool there = first + r < seqlen && c < width;
    copy_async(to + 2 * (r * Tiles::stride + c), there ? from + (first + r) * stride + c : from,
               there);
  }
}

}  // namespace flash_detail

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
  constexpr float log2_e = 1.4426950408889634f, infinity = std::numeric_limits<float>::infinity();
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

  const bool adjusted = shape.soft_cap > 0 || slopes.rows > 0;
  const float slope = slopes.rows > 0 ? slopes(0, head) * log2_e : 0;
  const float cap = float(shape.soft_cap), scale = float(shape.scale);
  // Scores times `unit` are powers of two; adjusted ones are already.
  const float unit = adjusted ? 1 : scale * log2_e;
  const float in_caps = cap > 0 ? scale / cap : 0, out_of_caps = cap * log2_e;

  const int mine = warp * 16 * row_tiles;  // first query of the warp, in the block
  const int lane_row = lane / 4, lane_col = lane % 4 * 2;
  float sums[row_tiles][D / 8][4] = {};
  float largest[row_tiles][2], total[row_tiles][2] = {};
#pragma unroll
  for (int r = 0; r < row_tiles; ++r) largest[r][0] = largest[r][1] = -infinity;

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
    for (int r = 0; r < row_tiles; ++r)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int query = from_query + 16 * r + lane_row + 8 * h;
        if (adjusted)
#pragma unroll
          for (int n = 0; n < keys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& score = scores[r][n][2 * h + e];
              score = cap > 0 ? out_of_caps * fast_tanh(score * in_caps) : score * scale * log2_e;
              score += slope * float(key + 8 * n + e - query);
            }
        if (cut) {
          const int oldest = int(shape.oldest(query));
#pragma unroll
          for (int n = 0; n < keys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              const int j = key + 8 * n + e;
              if (j > query || j < oldest) scores[r][n][2 * h + e] = -infinity;
            }
        }
        float most = largest[r][h];
#pragma unroll
        for (int n = 0; n < keys / 8; ++n)
          most = max(most, max(scores[r][n][2 * h], scores[r][n][2 * h + 1]));
        most = max(most, __shfl_xor_sync(~0u, most, 1));
        most = max(most, __shfl_xor_sync(~0u, most, 2));
        // Nothing seen so far: all powers are zero, whatever is taken away.
        const float base = most == -infinity ? 0 : most * unit;
        const float shrink = power_of_two(largest[r][h] * unit - base);
        largest[r][h] = most;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < keys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& score = scores[r][n][2 * h + e];
            score = power_of_two(fmaf(score, unit, -base));
            sum += score;
          }
        total[r][h] = total[r][h] * shrink + sum;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
          sums[r][n][2 * h] *= shrink;
          sums[r][n][2 * h + 1] *= shrink;
        }
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

/// Launches flash_attention_kernel for heads of up to Tiles::width numbers; false where a block
/// cannot have so much shared memory.
template <class Tiles, class N>
bool launch_flash_attention(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                            MatrixView<const N> v, MatrixView<const float> slopes,
                            const kernels::AttentionShape& shape) {
  if (Tiles::bytes > Context::get().shared_bytes) return false;
  const auto kernel = flash_attention_kernel<N, Tiles>;
  allow_shared(kernel, Tiles::bytes);
  const index_t tiles = (shape.seqlen + Tiles::queries - 1) / Tiles::queries;
  const index_t windows = out.rows / shape.seqlen;
  for (index_t done = 0; done < windows; done += flash_detail::most_blocks) {
    const index_t count = std::min(flash_detail::most_blocks, windows - done);
    const index_t first = done * shape.seqlen, rows = count * shape.seqlen;
    const dim3 grid{unsigned(shape.heads), unsigned(tiles), unsigned(count)};
    kernel<<<grid, Tiles::threads, Tiles::bytes, stream()>>>(out.block(first, 0, rows, out.cols),
                                                             q.block(first, 0, rows, q.cols),
                                                             k.block(first, 0, rows, k.cols),
                                                             v.block(first, 0, rows, v.cols),
                                                             slopes, shape);
    check_launch("flash_attention_kernel");
  }
  return true;
}

/// The attention of a ModelBackend in one kernel; false, and nothing done, for heads of more than
/// 256 numbers or that do not lie at multiples of 16 bytes, and for devices before sm_80 or with
/// too little shared memory.
template <class N>
bool flash_attention(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                     MatrixView<const N> v, MatrixView<const float> slopes,
                     const kernels::AttentionShape& shape) {
  const auto whole_vectors = [](MatrixView<const N> heads, index_t step) {
    return reinterpret_cast<std::uintptr_t>(heads.data) % 16 == 0 && heads.stride % 8 == 0 &&
           step % 8 == 0;
  };
  const index_t width = shape.head_dim;
  if (width > 256 || shape.seqlen > flash_detail::most_blocks || width % 8 != 0 ||
      Context::get().compute_capability < 80 || !whole_vectors(out, width) ||
      !whole_vectors(q, shape.q_step) || !whole_vectors(k, shape.kv_step) ||
      !whole_vectors(v, shape.kv_step))
    return false;
  // Measured on an H100. Fewer keys where a block has less shared memory than there.
  const auto launch = [&]<class... Tiles>() {
    return (launch_flash_attention<Tiles>(out, q, k, v, slopes, shape) || ...);
  };
  if (width <= 64) return launch.template operator()<FlashTiles<64, 2, 64, 2>>();
  if (width <= 80) return launch.template operator()<FlashTiles<80, 2, 64, 2>>();
  if (width <= 96) return launch.template operator()<FlashTiles<96, 2, 64, 2>>();
  if (width <= 128)
    return launch.template operator()<FlashTiles<128, 2, 64, 2>, FlashTiles<128, 2, 32, 1>>();
  return launch.template operator()<FlashTiles<256, 1, 64, 1>, FlashTiles<256, 1, 32, 1>>();
}

}  // namespace pare::backend::cuda
