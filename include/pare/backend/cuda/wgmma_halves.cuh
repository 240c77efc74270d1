// The halves of operands as Hopper's tensor cores read them from shared memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/split_operand.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace wgmma_detail {

using split_detail::Scales;
using split_detail::Source;

/// Terms whose halves lie together: the high ones and the low ones of a line are 128 bytes.
inline constexpr int block_terms = 32, line_bytes = 128;
/// Lines that are kept together: eight, in which 16-byte pieces are swizzled.
inline constexpr int line_group = 8;

/// Where an operand's halves go: blocks of block_terms terms one after the other, of each all lines. A line is
/// high, then low halves, and its piece p of eight halves is at p ^ line % 8, as wgmma reads it from shared
/// memory.
struct Halves {
  Source from;
  std::uint16_t* to;
  index_t lines;  ///< padded
  int blocks;
};

/// Writes the halves of operand blockIdx.y times a power of two, and alpha over both powers. A warp does
/// 32 lines of a block, a thread eight terms of four lines.
template <bool Balanced>
__global__ void __launch_bounds__(split_detail::threads)
    halves_kernel(Halves first, Halves second, float alpha, float* factor) {
  using split_detail::together;
  const Halves job = blockIdx.y == 0 ? first : second;
  const Source& from = job.from;
  const MatrixView<const float>& X = from.X;
  const int exponent = exponent_of(from);
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
    *factor = ldexpf(ldexpf(alpha, -exponent), -exponent_of(second.from));
  const float power = split_detail::power_of_two(exponent);
  constexpr int of_thread = 4, of_warp = 32, warps = split_detail::threads / 32;
  const unsigned groups = unsigned((job.lines + of_warp - 1) / of_warp);
  const unsigned all = groups * unsigned(job.blocks);
  const int lane = int(threadIdx.x % 32), piece = lane / line_group, place = lane % line_group;
  const index_t depth = from.by_rows ? X.cols : X.rows, lines = from.by_rows ? X.rows : X.cols;
  for (unsigned at = blockIdx.x * warps + threadIdx.x / 32; at < all; at += gridDim.x * warps) {
    const unsigned block = at / groups;
    const index_t k = index_t(block) * block_terms + piece * together;
    // A thread's lines are neighbours where these lie beside each other in X.
    const index_t begin = index_t(at % groups) * of_warp + place * (from.by_rows ? 1 : of_thread);
    const index_t step = from.by_rows ? line_group : 1;
    float x[of_thread][together];
    const auto there = [&](int e, int c) { return begin + e * step < lines && k + c < depth; };
    if (from.by_rows && from.aligned && there(of_thread - 1, together - 1)) {
#pragma unroll
      for (int e = 0; e < of_thread; ++e)
#pragma unroll
        for (int c = 0; c < together; c += 4) {
          const float4 four = *reinterpret_cast<const float4*>(X.row(begin + e * step) + k + c);
          x[e][c] = four.x, x[e][c + 1] = four.y, x[e][c + 2] = four.z, x[e][c + 3] = four.w;
        }
    } else if (!from.by_rows && from.aligned && there(of_thread - 1, together - 1)) {
#pragma unroll
      for (int c = 0; c < together; ++c) {
        const float4 four = *reinterpret_cast<const float4*>(X.row(k + c) + begin);
        x[0][c] = four.x, x[1][c] = four.y, x[2][c] = four.z, x[3][c] = four.w;
      }
    } else {
#pragma unroll
      for (int e = 0; e < of_thread; ++e)
#pragma unroll
        for (int c = 0; c < together; ++c)
          x[e][c] = !there(e, c)   ? 0.0f
                    : from.by_rows ? X(begin + e * step, k + c)
                                   : X(k + c, begin + e);
    }
    if constexpr (Balanced) {
#pragma unroll
      for (int c = 0; c < together; ++c) {
        const float of_term = k + c < depth ? term_factor(from, from.first + k + c) : 0.0f;
#pragma unroll
        for (int e = 0; e < of_thread; ++e) x[e][c] *= of_term;
      }
    }
#pragma unroll
    for (int e = 0; e < of_thread; ++e) {
      const index_t line = begin + e * step;
      if (line >= job.lines) break;
      uint4 high, low;
      split_detail::split_numbers(x[e], power, high, low);
      uint4* const to = reinterpret_cast<uint4*>(job.to) + (block * job.lines + line) * line_group;
      to[piece ^ line % line_group] = high;
      to[(piece + 4) ^ line % line_group] = low;
    }
  }
}

/// Where the halves of some terms go.
inline Halves halves_of(const Source& from, index_t first, index_t many,
                        DeviceMatrix<std::uint16_t>& room) {
  const Source some = split_detail::terms_of(from, first, many);
  const index_t lines = split_detail::padded(some.by_rows ? some.X.rows : some.X.cols);
  const index_t blocks = (many + block_terms - 1) / block_terms;
  room.resize(blocks * lines, line_bytes / 2);
  return {some, room.data(), lines, int(blocks)};
}

inline void write_halves(const Halves& first, const Halves& second, int operands, float alpha,
                         Scales& scales) {
  using split_detail::threads;
  const index_t most = std::max(first.lines * first.blocks, second.lines * second.blocks);
  const index_t blocks = (most + threads - 1) / threads;
  const dim3 grid(unsigned(std::min<index_t>(blocks, 32 * Context::get().multiprocessors)),
                  unsigned(operands));
  const auto kernel = first.from.of_right != nullptr ? halves_kernel<true> : halves_kernel<false>;
  kernel<<<grid, threads, 0, stream()>>>(first, second, alpha, scales.factors.data());
  check_launch("halves_kernel");
}

}  // namespace wgmma_detail

}  // namespace pare::backend::cuda
