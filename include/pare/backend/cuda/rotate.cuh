// Rows turned by a randomised Hadamard transform: a tile of blocks per block of threads, the first
// stages in registers, the others through shared memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/elements.cuh"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/hadamard.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Where number i of a tile lies in shared memory: neighbours eight apart are on other banks.
__device__ inline int shared_place(int i) { return i + i / 32; }

/// Numbers that are read and written at once.
template <class N, int count>
struct alignas(sizeof(N) * count < 16 ? sizeof(N) * count : 16) Neighbours {
  N values[count];
};

/// x = H x for 2^stages numbers in registers.
template <int stages, class A>
__device__ void hadamard_of(A (&x)[1 << stages]) {
#pragma unroll
  for (int half = 1; half < 1 << stages; half *= 2)
#pragma unroll
    for (int i = 0; i < 1 << stages; ++i)
      if ((i & half) == 0) {
        const A a = x[i], b = x[i | half];
        x[i] = a + b;
        x[i | half] = a - b;
      }
}

/// A tile: some blocks of a Hadamard transform, which follow one another in a row and row by row.
template <class N>
struct RotatedTile {
  using A = wide<N>;
  MatrixView<N> Y;
  MatrixView<const N> X;
  kernels::HadamardRotation rotation;
  std::uint32_t blocks;         ///< in all
  std::uint32_t blocks_of_row;  ///< in a row
  int log_block, log_tile;      ///< binary logarithms of their numbers of columns
  bool back, whole;             ///< whether rows lie so that `Neighbours` can be read

  /// Row and first column of number i of this tile; false beyond the last block.
  __device__ bool find(int i, index_t& row, index_t& column) const {
    const std::uint32_t block =
        (blockIdx.x << (log_tile - log_block)) + (std::uint32_t(i) >> log_block);
    if (block >= blocks) return false;
    row = index_t(block / blocks_of_row);
    column = (index_t(block % blocks_of_row) << log_block) + (i & ((1 << log_block) - 1));
    return true;
  }

  /// Factors of `count` columns from a multiple of it on.
  template <int count>
  __device__ void scale(A (&x)[count], index_t column, A factor) const {
    const std::uint64_t bits = rotation.signs(column / 64) >> (column % 64);
#pragma unroll
    for (int c = 0; c < count; ++c) x[c] *= (bits >> c & 1) != 0 ? -factor : factor;
  }

  template <int count>
  __device__ void read(A (&x)[count], index_t row, index_t column) const {
    constexpr int most = 16 / int(sizeof(N)), at_once = count < most ? count : most;
    const N* from = X.row(row) + column;
    if (whole) {
#pragma unroll
      for (int c = 0; c < count; c += at_once) {
        const auto some = *reinterpret_cast<const Neighbours<N, at_once>*>(from + c);
#pragma unroll
        for (int k = 0; k < at_once; ++k) x[c + k] = widen(some.values[k]);
      }
      return;
    }
#pragma unroll
    for (int c = 0; c < count; ++c) x[c] = widen(from[c]);
  }

  template <int count>
  __device__ void write(const A (&x)[count], index_t row, index_t column) const {
    constexpr int most = 16 / int(sizeof(N)), at_once = count < most ? count : most;
    N* to = Y.row(row) + column;
    if (whole) {
#pragma unroll
      for (int c = 0; c < count; c += at_once) {
        Neighbours<N, at_once> some;
#pragma unroll
        for (int k = 0; k < at_once; ++k) some.values[k] = narrow<N>(x[c + k]);
        *reinterpret_cast<Neighbours<N, at_once>*>(to + c) = some;
      }
      return;
    }
#pragma unroll
    for (int c = 0; c < count; ++c) to[c] = narrow<N>(x[c]);
  }

  /// `stages` stages whose numbers are 2^log_half apart, from shared memory to shared memory or,
  /// the last of them, to Y.
  template <int stages>
  __device__ void pass(A* shared, int log_half, bool last) const {
    constexpr int count = 1 << stages;
    for (int g = int(threadIdx.x); g < 1 << (log_tile - stages); g += int(blockDim.x)) {
      const int low = g & ((1 << log_half) - 1);
      const int first = ((g >> log_half) << (log_half + stages)) + low;
      A x[count];
#pragma unroll
      for (int c = 0; c < count; ++c) x[c] = shared[shared_place(first + (c << log_half))];
      hadamard_of<stages>(x);
      if (!last) {
#pragma unroll
        for (int c = 0; c < count; ++c) shared[shared_place(first + (c << log_half))] = x[c];
        continue;
      }
      index_t row, column;
      if (!find(first, row, column)) continue;
#pragma unroll
      for (int c = 0; c < count; ++c) Y(row, column + (index_t(c) << log_half)) = narrow<N>(x[c]);
    }
  }
};

/// Turns a tile. `early` stages are done on neighbours in registers while they are read.
template <class N, int early>
__global__ void __launch_bounds__(1024) rotate_kernel(RotatedTile<N> tile) {
  using A = wide<N>;
  constexpr int count = 1 << early;
  extern __shared__ __align__(16) unsigned char memory[];
  A* const shared = reinterpret_cast<A*>(memory);
  const A factor = A(1) / sqrt(A(1 << tile.log_block));
  const bool alone = tile.log_block == early;  // no number leaves its thread
  for (int i = int(threadIdx.x) * count; i < 1 << tile.log_tile; i += int(blockDim.x) * count) {
    index_t row, column;
    A x[count] = {};
    const bool there = tile.find(i, row, column);
    if (there) {
      tile.read(x, row, column);
      if (!tile.back) tile.scale(x, column, factor);
    }
    hadamard_of<early>(x);
    if (alone && there) {
      if (tile.back) tile.scale(x, column, factor);
      tile.write(x, row, column);
    } else if (!alone) {
#pragma unroll
      for (int c = 0; c < count; ++c) shared[shared_place(i + c)] = x[c];
    }
  }
  if (alone) return;
  for (int done = early; done < tile.log_block;) {
    const int left = tile.log_block - done;
    __syncthreads();
    if (left >= 3)
      tile.template pass<3>(shared, done, left == 3 && !tile.back);
    else if (left == 2)
      tile.template pass<2>(shared, done, !tile.back);
    else
      tile.template pass<1>(shared, done, !tile.back);
    done += left < 3 ? left : 3;
  }
  if (!tile.back) return;
  __syncthreads();
  for (int i = int(threadIdx.x) * count; i < 1 << tile.log_tile; i += int(blockDim.x) * count) {
    index_t row, column;
    if (!tile.find(i, row, column)) continue;
    A x[count];
#pragma unroll
    for (int c = 0; c < count; ++c) x[c] = shared[shared_place(i + c)];
    tile.scale(x, column, factor);
    tile.write(x, row, column);
  }
}

/// What pare::rotate_rows asks for.
struct Rotations {
  /// Y = X R^T or, turned back, X R; Y may be X. Blocks that the shared memory of a GPU does not
  /// hold (2^15 doubles, and as many floats on some) are turned in its main memory.
  template <class S>
  static void rotate_rows(MatrixView<S> Y, MatrixView<const S> X,
                          const kernels::HadamardRotation& rotation, bool back) {
    if (X.size() == 0) return;
    using N = device_scalar<S>;
    using A = wide<N>;
    const index_t block = kernels::HadamardRotation::block(X.cols);
    RotatedTile<N> tile{native(Y), native(X), rotation, 0,    std::uint32_t(X.cols / block),
                        0,         0,         back,     false};
    while (index_t{1} << tile.log_block < block) ++tile.log_block;
    const index_t blocks = X.rows * (X.cols / block);
    tile.log_tile = std::max(tile.log_block, 11);
    const std::size_t bytes = sizeof(A) * (std::size_t(33) << tile.log_tile) / 32;
    if (bytes > std::size_t(Context::get().shared_bytes) || blocks > index_t{1} << 31) {
      rotate_long_rows(Y, X, rotation, back);
      return;
    }
    tile.blocks = std::uint32_t(blocks);
    tile.whole = is_whole(X.data, X.stride) && is_whole(Y.data, Y.stride);
    const index_t tiles = (blocks + (index_t{1} << (tile.log_tile - tile.log_block)) - 1) >>
                          (tile.log_tile - tile.log_block);
    const int early = std::min(tile.log_block, 3);
    const unsigned threads = unsigned(std::min(1024, 1 << (tile.log_tile - 3)));
    const auto launch = [&](auto kernel) {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
            "cudaFuncSetAttribute");
      kernel<<<unsigned(tiles), threads, bytes, stream()>>>(tile);
      check_launch("rotate_kernel");
    };
    if (early == 3)
      launch(rotate_kernel<N, 3>);
    else if (early == 2)
      launch(rotate_kernel<N, 2>);
    else if (early == 1)
      launch(rotate_kernel<N, 1>);
    else
      launch(rotate_kernel<N, 0>);
  }

 private:
  /// Whether rows lie so that 16 bytes of neighbours can be read at once.
  template <class T>
  static bool is_whole(const T* data, index_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 &&
           std::size_t(stride) * sizeof(T) % 16 == 0;
  }

  /// A thread per block, in the memory of the device: right, not fast.
  template <class S>
  static void rotate_long_rows(MatrixView<S> Y, MatrixView<const S> X,
                               const kernels::HadamardRotation& rotation, bool back) {
    using A = compute_scalar<S>;
    DeviceMatrix<A> wide_rows(X.rows, X.cols);
    const MatrixView<A> W = wide_rows.view();
    Elements::for_each_element(X.rows, X.cols, kernels::ConvertElement<S, A>{X, W});
    const kernels::RotateBlock<A> block{W, W, rotation, back};
    Elements::for_each_row(block.count(), block);
    Elements::for_each_element(X.rows, X.cols, kernels::ConvertElement<A, S>{W, Y});
  }
};

}  // namespace pare::backend::cuda
