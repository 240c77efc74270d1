// What the kernels of attention are made of: copies to shared memory, products on the tensor cores,
// the online softmax.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "pare/backend/cuda/sm80.cuh"
#include "pare/backend/cuda/storage.cuh"
#include "pare/backend/cuda/tuning.cuh"
#include "pare/kernels/attention.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace flash_detail {

/// Of a grid's second and third dimension.
inline constexpr index_t most_blocks = 65535;

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
  constexpr int each = 16 / int(sizeof(N)), chunks = Tiles::width / each;
  for (int at = int(threadIdx.x); at < Rows * chunks; at += Tiles::threads) {
    const int r = at / chunks, c = at % chunks * each;
    const bool there = first + r < seqlen && c < width;
    copy_to_shared(to + unsigned(sizeof(N)) * (r * Tiles::stride + c),
                   there ? from + (first + r) * stride + c : from, there);
  }
}

/// What turns products of queries and keys into the logarithms, to base 2, of weights.
struct ScoreRule {
  bool adjusted;               ///< by a cap or a slope
  float slope, cap, scale;     ///< the slope for base 2
  float unit;                  ///< scores times this are powers of two; 1 where adjusted
  float in_caps, out_of_caps;  ///< scale / cap, and the cap for base 2

  __device__ ScoreRule(MatrixView<const float> slopes, const kernels::AttentionShape& shape,
                       index_t head) {
    constexpr float log2_e = 1.4426950408889634f;
    adjusted = shape.soft_cap > 0 || slopes.rows > 0;
    slope = slopes.rows > 0 ? slopes(0, head) * log2_e : 0;
    cap = float(shape.soft_cap);
    scale = float(shape.scale) * (cap > 0 ? 1 : log2_e);
    unit = adjusted ? 1 : scale;
    in_caps = cap > 0 ? scale / cap : 0;
    out_of_caps = cap * log2_e;
  }
};

/// Makes row H of a lane's scores its weights, and what was summed so far what it would have been
/// under the new largest score. Entry e of tile n is key `key` + 8 n + e.
/// @tparam Precise  tanh to float's last places
/// @param base   the largest score so far, a power of two
/// @param total  of the weights so far
/// @param cut    whether some keys are not seen
template <int H, bool Precise, int ScoreTiles, int SumTiles>
__device__ __forceinline__ void online_softmax(float (&scores)[ScoreTiles][4],
                                               float (&sums)[SumTiles][4], float& base,
                                               float& total, const ScoreRule& rule, int key,
                                               int query, int oldest, bool cut) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  if (rule.adjusted)
#pragma unroll
    for (int n = 0; n < ScoreTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& score = scores[n][2 * H + e];
        if (rule.cap > 0) {
          const float in_caps = score * rule.in_caps;
          score = rule.out_of_caps * (Precise ? tanhf(in_caps) : fast_tanh(in_caps));
        } else {
          score *= rule.scale;
        }
        score += rule.slope * float(key + 8 * n + e - query);
      }
  if (cut)
#pragma unroll
    for (int n = 0; n < ScoreTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int j = key + 8 * n + e;
        if (j > query || j < oldest) scores[n][2 * H + e] = -infinity;
      }
  float most = -infinity;
#pragma unroll
  for (int n = 0; n < ScoreTiles; ++n)
    most = max(most, max(scores[n][2 * H], scores[n][2 * H + 1]));
  most = max(most, __shfl_xor_sync(~0u, most, 1));
  most = max(most, __shfl_xor_sync(~0u, most, 2));
  most = max(base, most * rule.unit);
  // Nothing seen so far: all powers are zero, whatever is taken away.
  const float away = most == -infinity ? 0 : most;
  const float shrink = power_of_two(base - away);
  base = most;
  float sum = 0;
#pragma unroll
  for (int n = 0; n < ScoreTiles; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& score = scores[n][2 * H + e];
      score = power_of_two(fmaf(score, rule.unit, -away));
      sum += score;
    }
  total = total * shrink + sum;
#pragma unroll
  for (int n = 0; n < SumTiles; ++n) {
    sums[n][2 * H] *= shrink;
    sums[n][2 * H + 1] *= shrink;
  }
}

/// Launches a kernel of attention that is cut as Tiles says; false where a block cannot have so much
/// shared memory.
template <class Tiles, class N>
bool launch(void (*kernel)(MatrixView<N>, MatrixView<const N>, MatrixView<const N>,
                           MatrixView<const N>, MatrixView<const float>, kernels::AttentionShape),
            MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k, MatrixView<const N> v,
            MatrixView<const float> slopes, const kernels::AttentionShape& shape) {
  if (Tiles::bytes > Context::get().shared_bytes) return false;
  allow_shared(kernel, Tiles::bytes);
  const index_t tiles = (shape.seqlen + Tiles::queries - 1) / Tiles::queries;
  const index_t windows = out.rows / shape.seqlen;
  for (index_t done = 0; done < windows; done += most_blocks) {
    const index_t count = std::min(most_blocks, windows - done);
    const index_t first = done * shape.seqlen, rows = count * shape.seqlen;
    const dim3 grid{unsigned(shape.heads), unsigned(tiles), unsigned(count)};
    kernel<<<grid, Tiles::threads, Tiles::bytes, stream()>>>(out.block(first, 0, rows, out.cols),
                                                             q.block(first, 0, rows, q.cols),
                                                             k.block(first, 0, rows, k.cols),
                                                             v.block(first, 0, rows, v.cols),
                                                             slopes, shape);
    check_launch("flash_attention");
  }
  return true;
}

/// f<Width>() with the narrowest width of tuning.cuh that heads fit.
template <class F>
bool with_width(index_t head_dim, const F& f) {
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 80) return f.template operator()<80>();
  if (head_dim <= 96) return f.template operator()<96>();
  if (head_dim <= 128) return f.template operator()<128>();
  return f.template operator()<256>();
}

/// Whether one kernel can do an attention: heads of at most 256 numbers at multiples of 16 bytes, a
/// device from sm_80 on.
template <class N>
bool fits_one_kernel(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                     MatrixView<const N> v, const kernels::AttentionShape& shape) {
  constexpr index_t each = 16 / index_t(sizeof(N));
  const auto whole_vectors = [](MatrixView<const N> heads, index_t step) {
    return reinterpret_cast<std::uintptr_t>(heads.data) % 16 == 0 && heads.stride % each == 0 &&
           step % each == 0;
  };
  const index_t width = shape.head_dim;
  return width <= 256 && shape.seqlen <= most_blocks && width % each == 0 &&
         Context::get().compute_capability >= 80 && whole_vectors(out, width) &&
         whole_vectors(q, shape.q_step) && whole_vectors(k, shape.kv_step) &&
         whole_vectors(v, shape.kv_step);
}

}  // namespace flash_detail

}  // namespace pare::backend::cuda
