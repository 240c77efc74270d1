// Attention of 16-bit activations in Hopper's own instructions, sm_90a, for heads of 64 or 128 numbers.
#pragma once

#include "pare/backend/cuda/flash_parts.cuh"
#include "pare/backend/cuda/wgmma.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace flash_detail {

/// How flash_hopper_kernel cuts its work: two groups of four warps have 64 queries each. The shapes are
/// those of the instructions; no other GPU has these, so that this is no policy of tuning.cuh.
/// @tparam Width  numbers of a head, 64 or 128
template <int Width>
struct HopperTiles {
  static constexpr int width = Width, queries = 128, keys = 128, threads = 256;
  /// Bytes of 128 rows: for every 64 columns a panel of rows of 128 bytes, whose 16-byte pieces are
  /// where the tensor cores' swizzling has them.
  static constexpr int panel_bytes = 128 * 128, tile_bytes = Width / 64 * panel_bytes;
  /// Queries, and keys and values twice; the first lies at a multiple of 1024.
  static constexpr int bytes = 5 * tile_bytes + 1024;
};

#if defined(PARE_SM90A)

/// Where the 16 bytes of column 8 `piece` of row r of a tile lie.
__device__ inline unsigned swizzled(int r, int piece) {
  return unsigned(piece / 8 * HopperTiles<64>::panel_bytes + r * 128 + ((piece ^ r) % 8) * 16);
}

/// Starts the copy of rows first .. first + 127 of one head; what lies beyond `seqlen` becomes zero.
template <class Tiles, class N>
__device__ void start_tile(unsigned to, const N* from, index_t stride, int first, int seqlen) {
  constexpr int pieces = Tiles::width / 8, rows = Tiles::threads / pieces;  // rows of all threads
  static_assert(rows % 8 == 0);  // so that a thread's pieces lie a fixed distance apart
  const int piece = int(threadIdx.x) % pieces, row = int(threadIdx.x) / pieces;
  const N* at = from + (first + row) * stride + 8 * piece;
  to += swizzled(row, piece);
  const index_t step = rows * stride;
  if (first + 128 <= seqlen) {
#pragma unroll
    for (int i = 0; i < 128 / rows; ++i, at += step) copy_to_shared(to + i * rows * 128, at);
  } else {
#pragma unroll
    for (int i = 0; i < 128 / rows; ++i, at += step) {
      const bool there = first + row + i * rows < seqlen;
      copy_to_shared(to + i * rows * 128, there ? at : from, there);
    }
  }
}

// The 4 and 32 sums of a lane, and their places in an instruction.
#define PARE_D(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define PARE_D8(i)                                                                      \
  PARE_D(i), PARE_D(i + 1), PARE_D(i + 2), PARE_D(i + 3), PARE_D(i + 4), PARE_D(i + 5), \
      PARE_D(i + 6), PARE_D(i + 7)
#define PARE_P32                                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, "                                                                                      \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PARE_P64                                                                                 \
  PARE_P32                                                                                       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PARE_SCORES(type)                                                        \
  asm volatile(                                                                  \
      "{.reg .pred add; setp.ne.b32 add, %66, 0;\n"                              \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" PARE_P64 \
      "}, %64, %65, add, 1, 1, 0, 0;}"                                           \
      : PARE_D8(0), PARE_D8(8)                                                   \
      : "l"(a), "l"(b), "r"(add)                                                 \
      : "memory")
#define PARE_VALUES_128(type)                                                             \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" PARE_P64 \
               "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                \
               : PARE_D8(0), PARE_D8(8)                                                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                       \
               : "memory")
#define PARE_VALUES_64(type)                                                             \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" PARE_P32 \
               "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                               \
               : PARE_D8(0)                                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                      \
               : "memory")

/// c (64, 128) = or += a (64, 16) b (128, 16)^T.
template <class N>
__device__ void hopper_scores(float (&c)[16][4], std::uint64_t a, std::uint64_t b, int add) {
  if constexpr (std::is_same_v<N, __half>)
    PARE_SCORES("f16");
  else
    PARE_SCORES("bf16");
}
/// c (64, width) += a (64, 16) b (16, width), a in registers.
template <class N, int Tiles>
__device__ void hopper_values(float (&c)[Tiles][4], const unsigned (&a)[4], std::uint64_t b) {
  if constexpr (Tiles == 16) {
    if constexpr (std::is_same_v<N, __half>)
      PARE_VALUES_128("f16");
    else
      PARE_VALUES_128("bf16");
  } else {
    if constexpr (std::is_same_v<N, __half>)
      PARE_VALUES_64("f16");
    else
      PARE_VALUES_64("bf16");
  }
}

#endif

}  // namespace flash_detail

/// softmax(scores) v of 128 queries of one head of one window by a block of threads, as
/// flash_attention_kernel. Products of the next keys run while the softmax of these is worked out.
/// Source: Shah et al. 2024 (FlashAttention-3).
/// @cond  Doxygen stumbles over the pragmas.
template <class N, class Tiles>
__global__ void __launch_bounds__(Tiles::threads, 1)
    flash_hopper_kernel(MatrixView<N> out, MatrixView<const N> q, MatrixView<const N> k,
                        MatrixView<const N> v, MatrixView<const float> slopes,
                        kernels::AttentionShape shape) {
#if defined(PARE_SM90A)
  using namespace flash_detail;
  constexpr int D = Tiles::width, keys = Tiles::keys;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ volatile int compiled;  // says so, see hopper_compiled
  if (threadIdx.x == 0) compiled = 1;
  const auto start = unsigned(__cvta_generic_to_shared(memory));
  const unsigned queries = (start + 1023) / 1024 * 1024;
  const unsigned key_tiles = queries + Tiles::tile_bytes;
  const unsigned value_tiles = key_tiles + 2 * Tiles::tile_bytes;

  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const index_t head = blockIdx.x, kv_head = shape.kv_head(head);
  const int seqlen = int(shape.seqlen);
  const index_t window = index_t(blockIdx.z) * seqlen;  // its first token
  // The longest first: short ones fill what is left at the end.
  const int first = int(gridDim.y - 1 - blockIdx.y) * Tiles::queries;
  const int last = min(first + Tiles::queries, seqlen) - 1;
  const N* const keys_from = k.row(window) + kv_head * shape.kv_step;
  const N* const values_from = v.row(window) + kv_head * shape.kv_step;
  const ScoreRule rule(slopes, shape, head);

  const int mine = warp * 16;  // first query of the warp, in the block
  const int lane_row = lane / 4, lane_col = lane % 4 * 2;
  const unsigned my_queries = queries + unsigned(warp / 4 * 64 * 128);
  float sums[D / 8][4] = {};
  float base[2] = {-std::numeric_limits<float>::infinity(),
                   -std::numeric_limits<float>::infinity()};
  float total[2] = {};

  const int begin = int(shape.oldest(first)) / keys, end = last / keys + 1;
  start_tile<Tiles>(queries, q.row(window) + head * shape.q_step, q.stride, first, seqlen);
  start_tile<Tiles>(key_tiles, keys_from, k.stride, begin * keys, seqlen);
  end_of_copies();

  float scores[16][4], next[16][4];
  const auto score = [&](float(&c)[16][4], unsigned key_tile) {
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const unsigned at = step / 4 * Tiles::panel_bytes + step % 4 * 32;
      hopper_scores<N>(c, wgmma::operand(my_queries + at), wgmma::operand(key_tile + at), step > 0);
    }
    wgmma::end_of_group();
  };
  // What was copied is shown to all, and to the tensor cores.
  const auto arrive = [] {
    wait_for_copies<0>();
    wgmma::show_stores();
    __syncthreads();
  };
  arrive();
  start_tile<Tiles>(value_tiles, values_from, v.stride, begin * keys, seqlen);
  if (begin + 1 < end)
    start_tile<Tiles>(key_tiles + Tiles::tile_bytes, keys_from, k.stride, (begin + 1) * keys,
                      seqlen);
  end_of_copies();
  wgmma::fence();
  score(scores, key_tiles);
  wgmma::wait_for_groups<0>();
  wgmma::settle(scores);

  for (int tile = begin; tile < end; ++tile) {
    const unsigned half = unsigned(tile - begin) % 2 * Tiles::tile_bytes;
    const unsigned other = Tiles::tile_bytes - half;
    arrive();  // these values and the next keys; the others have been read
    if (tile + 1 < end) {
      wgmma::fence();
      score(next, key_tiles + other);
      start_tile<Tiles>(value_tiles + other, values_from, v.stride, (tile + 1) * keys, seqlen);
      if (tile + 2 < end)
        start_tile<Tiles>(key_tiles + half, keys_from, k.stride, (tile + 2) * keys, seqlen);
      end_of_copies();
    }

    // Entry e of tile n of a lane: query lane_row + 8 (e / 2), key 8 n + lane_col + e % 2.
    const int from_query = first + mine, key = tile * keys + lane_col;
    const int query = from_query + lane_row;
    const bool cut =
        tile * keys + keys - 1 > from_query || int(shape.oldest(from_query + 15)) > tile * keys;
    online_softmax<0, false>(scores, sums, base[0], total[0], rule, key, query,
                             int(shape.oldest(query)), cut);
    online_softmax<1, false>(scores, sums, base[1], total[1], rule, key, query + 8,
                             int(shape.oldest(query + 8)), cut);
    unsigned weights[keys / 16][4];
#pragma unroll
    for (int s = 0; s < keys / 16; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &scores[2 * s + i / 2][i % 2 * 2];
        weights[s][i] = packed_pair<N>(pair[0], pair[1]);
      }
    wgmma::fence();
#pragma unroll
    for (int s = 0; s < keys / 16; ++s)
      hopper_values<N>(sums, weights[s],
                       wgmma::operand(value_tiles + half + s * 2048, Tiles::panel_bytes));
    wgmma::end_of_group();
    wgmma::wait_for_groups<0>();
    wgmma::settle(sums);
    if (tile + 1 < end) {
      wgmma::settle(next);
#pragma unroll
      for (int n = 0; n < 16; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[n][e] = next[n][e];
    }
  }

  // Through the memory of the warp's queries, so that 16 bytes are written at a time.
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = total[h];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const float factor = 1 / sum;
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      *reinterpret_cast<unsigned*>(memory + (queries - start) +
                                   swizzled(mine + lane_row + 8 * h, n) + 2 * lane_col) =
          packed_pair<N>(sums[n][2 * h] * factor, sums[n][2 * h + 1] * factor);
  }
  __syncwarp();
  constexpr int pieces = D / 8;
  for (int at = lane; at < 16 * pieces; at += 32) {
    const int r = mine + at / pieces, piece = at % pieces;
    if (first + r <= last)
      *reinterpret_cast<uint4*>(out.row(window + first + r) + head * D + 8 * piece) =
          *reinterpret_cast<const uint4*>(memory + (queries - start) + swizzled(r, piece));
  }
#endif
}
/// @endcond

namespace flash_detail {

/// Whether the current GPU is a Hopper and flash_hopper_kernel was compiled for it, sm_90a.
template <class N>
bool hopper_compiled() {
  struct Answer {
    bool yes = false;
    Answer() {
      if (Context::get().compute_capability != 90) return;
      cudaFuncAttributes attributes{};
      check(cudaFuncGetAttributes(&attributes, flash_hopper_kernel<N, HopperTiles<64>>),
            "cudaFuncGetAttributes");
      yes = attributes.sharedSizeBytes > 0;  // without its instructions it is empty
    }
  };
  return per_device<Answer>().yes;
}

}  // namespace flash_detail

#undef PARE_D
#undef PARE_D8
#undef PARE_P32
#undef PARE_P64
#undef PARE_SCORES
#undef PARE_VALUES_128
#undef PARE_VALUES_64

}  // namespace pare::backend::cuda
