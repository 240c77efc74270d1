// Cholesky factor and inverse of one matrix in one cooperative launch, tile by tile.
#pragma once

#include <cooperative_groups.h>

#include <algorithm>

#include "pare/backend/cuda/tile_items.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace tiles_detail {

/// A = R^T R for the symmetric A, of which only the upper triangle is read; on return it holds inverse(R),
/// zeros below. Every step eliminates `depth` columns from A and, below it, from the identity, which
/// becomes the inverse and takes the place of what has been eliminated.
template <int Threads>
__global__ void __launch_bounds__(Threads, 1) factor_tiles_kernel(Problem p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  extern __shared__ __align__(16) unsigned char memory[];
  float* const operands = reinterpret_cast<float*>(memory);
  const auto grid = cooperative_groups::this_grid();
  const int block = int(blockIdx.x), blocks = int(gridDim.x), side = (p.n + tile - 1) / tile;
  const auto at = [&](int r, int c) { return p.A + index_t(r) * tile * p.stride + c * tile; };

  // What step t subtracts from tile (r, c): rows of X, which is the inverse, up to the step, and of R's
  // transpose after it, times R.
  const auto update = [&](int t, int r, int c) {
    const int first = (t + 1) * halves;
    Item item{};
    const bool of_X = r < first;
    item.left = of_X ? at(r, t * halves) : p.turned + index_t(r) * tile * depth;
    item.left_stride = of_X ? p.stride : depth;
    item.left_aligned = of_X ? p.aligned : true;
    item.right = p.R + c * tile;
    item.right_stride = p.padded;
    item.right_aligned = true;
    item.C = at(r, c);
    item.rows = min(tile, p.n - r * tile);
    item.cols = min(tile, p.n - c * tile);
    item.terms = depth;
    item.left_rows = item.right_cols = tile;  // what lies beyond R is zero
    item.add = r < t * halves || r >= first;
    item.sign = -1;
    return item;
  };

  for (int t = 0; t * depth < p.n; ++t) {
    const int first = (t + 1) * halves, here = min(depth, p.n - t * depth);
    // The block on the diagonal, and what the step before has left of the rest.
    if (block == 0)
      cholesky_detail::cholesky_block(*reinterpret_cast<cholesky_detail::Shared*>(memory),
                                      MatrixView<float>(at(t * halves, t * halves), here, here,
                                                        p.stride),
                                      p.info);
    else if (const int width = side - first; t > 0 && width > 0) {
      // Columns behind the step's, without its rows.
      const int above = width * t * halves;
      compute_items(p, operands, block - 1, blocks - 1, above + width * (width + 1) / 2,
                    [&](int i) {
                      if (i < above) return update(t - 1, i / width, first + i % width);
                      i -= above;  // counts a triangle, column by column
                      auto c = int((sqrtf(8.0f * float(i) + 1) - 1) / 2);
                      while (c * (c + 1) / 2 > i) --c;
                      while ((c + 1) * (c + 2) / 2 <= i) ++c;
                      return update(t - 1, first + i - c * (c + 1) / 2, first + c);
                    });
    }
    grid.sync();

    // The step's rows of R right of the diagonal, and of X its columns. Of a row of X one block computes
    // both halves, the second one first, as the first is an operand of it.
    {
      const int width = max(0, side - first), of_R = halves * width;
      const int parts = (here + tile - 1) / tile, rows = t * halves;
      const auto decode = [&](int i) {
        Item item{};
        item.sign = 1;
        if (i < of_R) {
          const int half = i % halves, c = first + i / halves;
          item.by_terms = true;
          item.left = at(t * halves, t * halves) + half * tile;
          item.left_stride = p.stride;
          item.left_aligned = p.aligned;
          item.right = at(t * halves, c);
          item.right_stride = p.stride;
          item.right_aligned = p.aligned;
          item.rows = tile;
          item.cols = min(tile, p.n - c * tile);
          item.left_rows = tile;
          item.right_cols = item.cols;
          item.terms = (half + 1) * tile;
          item.copy = p.R + index_t(half) * tile * p.padded + c * tile;
          item.turned = p.turned + index_t(c) * tile * depth + half * tile;
          item.zero = at(c, t * halves + half);
          item.zero_rows = item.cols;
        } else {
          i -= of_R;
          const int r = i / parts, half = parts - 1 - i % parts;
          item.left = at(r, t * halves);
          item.left_stride = p.stride;
          item.left_aligned = p.aligned;
          item.right = at(t * halves, t * halves + half);
          item.right_stride = p.stride;
          item.right_aligned = p.aligned;
          item.C = at(r, t * halves + half);
          item.rows = tile;
          item.cols = min(tile, here - half * tile);
          item.left_rows = tile;
          item.right_cols = item.cols;
          item.terms = min((half + 1) * tile, here);
        }
        return item;
      };
      compute_items(p, operands, block, blocks, of_R, decode);
      for (int r = blocks - 1 - block; r < rows; r += blocks)
        compute_items(p, operands, of_R + r * parts, 1, of_R + (r + 1) * parts, decode);
    }
    if (first >= side) break;
    grid.sync();

    // What the next step needs first: its columns and its rows.
    {
      const int wide = min(halves, side - first), beyond = side - first - wide;
      const int tall = first * wide, corner = wide * (wide + 1) / 2;
      compute_items(p, operands, block, blocks, tall + corner + beyond * wide, [&](int i) {
        if (i < corner) return update(t, first + (i == 2), first + (i > 0));
        i -= corner;
        if (i < beyond * wide) return update(t, first + i % wide, first + wide + i / wide);
        i -= beyond * wide;
        return update(t, i / wide, first + i % wide);
      });
    }
    grid.sync();
  }
#else
  __trap();  // directs() keeps such devices away
#endif
}

}  // namespace tiles_detail

/// Bytes of shared memory that factor_tiles() needs.
inline constexpr int factor_tiles_bytes = tiles_detail::bytes;

/// Overwrites the symmetric A = R^T R, of which only the upper triangle is read, with inverse(R), zeros
/// below. Needs directs().
/// @param A     (n, n)
/// @param info  one number in device memory, becomes 1 where A is not positive definite
/// @throws device_error, out_of_memory_error
inline void factor_tiles(MatrixView<float> A, int* info) {
  using namespace tiles_detail;
  const auto n = int(A.rows), side = (n + tile - 1) / tile, padded = side * tile;
  DeviceMatrix<float> R(depth, n > depth ? padded : 0), turned(n > depth ? padded : 0, depth);
  Problem problem{
      A.data, n, int(A.stride), R.data(), turned.data(), padded, direct_detail::aligned(A, 0),
      info};
  const auto kernel = factor_tiles_kernel<threads>;
  allow_shared(kernel, bytes);
  const int blocks =
      n <= depth ? 1 : std::min(Context::get().multiprocessors, side * (side + 1) / 2);
  void* arguments[] = {&problem};
  check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(unsigned(blocks)),
                                    dim3(threads), arguments, std::size_t(bytes), stream()),
        "factor_tiles_kernel");
}

}  // namespace pare::backend::cuda
