// Rows turned by a randomised Hadamard transform. A thread holds 32 numbers and a warp 1024, of
// which it does ten stages; more stages are done after an exchange between the warps of a block.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/elements.cuh"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/hadamard.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

inline constexpr int log_held = 5;  ///< binary logarithm of the numbers of a thread
inline constexpr int held = 1 << log_held;
inline constexpr int log_warp_tile = 10;  ///< and of those of a warp

/// Numbers that are read and written at once.
template <class N, int count>
struct alignas(sizeof(N) * count) Neighbours {
  N values[count];
};

/// Rows that are turned by blocks of 2^log_block columns. A tile is 2^log_tile numbers: a block of
/// one row, or of as many rows as it has room for. Number i of a tile is in row i >> log_block.
template <class N>
struct RotatedRows {
  using A = wide<N>;
  static constexpr int log_chunk = sizeof(N) == 8 ? 1 : sizeof(N) == 4 ? 2 : 3;  // of 16 bytes
  static constexpr int chunk = 1 << log_chunk;

  MatrixView<N> Y;
  MatrixView<const N> X;
  kernels::HadamardRotation rotation;
  int log_block;
  index_t tiles;  ///< below one another
  bool back;

  /// Where number i of a tile lies in shared memory. What a warp reads or writes at once is on
  /// different banks, and the place of a sum of numbers without a common bit is the sum of places.
  PARE_HOST_DEVICE static constexpr int place(int i) {
    constexpr int gap = log_chunk + log_held;
    return i + (i >> gap << log_chunk) + (log_chunk == 3 ? i >> 5 << 2 : 0);
  }

  // The layout in which rows are read: thread `lane` of a warp holds chunks `lane`, `lane` + 32,
  // ... of its 1024 numbers.
  __device__ static constexpr int read_first(int lane) { return lane << log_chunk; }
  __device__ static constexpr int read_offset(int k) {
    return (k & (chunk - 1)) + (k >> log_chunk << (log_chunk + log_held));
  }
  // The layout that does the stages between: a thread holds a number of each of 32 chunks that
  // follow one another.
  __device__ static constexpr int middle_first(int lane) {
    return (lane & (chunk - 1)) + (lane >> log_chunk << (log_chunk + log_held));
  }
  __device__ static constexpr int middle_offset(int k) { return k << log_chunk; }

  /// Signs of the numbers of a thread: bit 31 - k is set where number k, `offset_of(k)` after
  /// `first`, is negated.
  template <class F>
  __device__ std::uint32_t signs(index_t column, int first, F offset_of) const {
    std::uint32_t word = 0;
    for (int k = 0; k < held; ++k) {
      const int i = (first + offset_of(k)) & ((1 << log_block) - 1);
      word = word << 1 | std::uint32_t(rotation.sign(column + i) < 0);
    }
    return word;
  }
};

/// x, negated where the highest bit of `sign` is set.
__device__ inline float negated_by(float x, std::uint32_t sign) {
  return __uint_as_float(__float_as_uint(x) ^ (sign & 0x80000000u));
}
__device__ inline double negated_by(double x, std::uint32_t sign) {
  return __hiloint2double(__double2hiint(x) ^ int(sign & 0x80000000u), __double2loint(x));
}

/// x = H x for the stage whose pairs are numbers that differ in a bit.
template <int bit, class A>
__device__ void hadamard_stage(A (&x)[held]) {
#pragma unroll
  for (int k = 0; k < held; ++k)
    if ((k >> bit & 1) == 0) {
      const A a = x[k], b = x[k | 1 << bit];
      x[k] = a + b;
      x[k | 1 << bit] = a - b;
    }
}

/// Stages first ... last - 1 of a thread's numbers; `does(stage)` tells which are wanted.
template <int first, int last, class A, class F>
__device__ void hadamard_stages(A (&x)[held], const F& does) {
  if constexpr (first < last) {
    if (does(first)) hadamard_stage<first>(x);
    hadamard_stages<first + 1, last>(x, does);
  }
}

/// The ten stages of a warp (those of them that are less than log_block), from registers in the
/// layout of reading to shared memory.
template <class N, bool all>
__device__ void hadamard_of_warp(wide<N> (&x)[held], wide<N>* shared, int log_block) {
  using A = wide<N>;
  using R = RotatedRows<N>;
  constexpr int c = R::log_chunk, at_once = 16 / int(sizeof(A));
  const int lane = int(threadIdx.x) % 32;
  hadamard_stages<0, log_held>(x, [&](int bit) {
    return all || (bit < c ? bit : bit + log_held) < log_block;
  });
  A* const read = shared + R::place(R::read_first(lane));
#pragma unroll
  for (int k = 0; k < held; k += at_once) {
    Neighbours<A, at_once> some;
#pragma unroll
    for (int n = 0; n < at_once; ++n) some.values[n] = x[k + n];
    *reinterpret_cast<Neighbours<A, at_once>*>(read + R::place(R::read_offset(k))) = some;
  }
  __syncwarp();
  A* const middle = shared + R::place(R::middle_first(lane));
#pragma unroll
  for (int k = 0; k < held; ++k) x[k] = middle[R::place(R::middle_offset(k))];
  hadamard_stages<0, log_held>(x, [&](int bit) { return all || bit + c < log_block; });
#pragma unroll
  for (int k = 0; k < held; ++k) middle[R::place(R::middle_offset(k))] = x[k];
}

/// Reads the numbers of a thread, whose first is number `first` of a tile; 0 beyond the last row.
/// @param row     of the tile's first number
/// @param column  likewise
template <class N>
__device__ void read_numbers(const RotatedRows<N>& rows, int log_block, index_t row, index_t column,
                             int first, wide<N> (&x)[held]) {
  using R = RotatedRows<N>;
  using Chunk = Neighbours<N, R::chunk>;
#pragma unroll
  for (int k = 0; k < held; k += R::chunk) {
    const int i = first + R::read_offset(k);
    const index_t r = row + (i >> log_block), c = column + (i & ((1 << log_block) - 1));
    const Chunk chunk =
        r < rows.X.rows ? *reinterpret_cast<const Chunk*>(rows.X.row(r) + c) : Chunk{};
#pragma unroll
    for (int n = 0; n < R::chunk; ++n) x[k + n] = widen(chunk.values[n]);
  }
}

/// Negates numbers as `signs` says, and scales them.
template <class A>
__device__ void scale_numbers(A (&x)[held], A factor, std::uint32_t signs) {
#pragma unroll
  for (int k = 0; k < held; ++k) x[k] *= negated_by(factor, signs << k);
}

/// Blocks of at most 1024 columns: every warp, which is a block of threads, by itself.
template <class N>
__global__ void __launch_bounds__(32, 16) rotate_in_warps(RotatedRows<N> rows) {
  using A = wide<N>;
  using R = RotatedRows<N>;
  __shared__ __align__(16) A shared[R::place(1 << log_warp_tile)];
  const int first = R::read_first(int(threadIdx.x));
  const index_t column = index_t(blockIdx.x) << rows.log_block;
  const int log_rows = log_warp_tile - rows.log_block;
  const A factor = A(1) / sqrt(A(1 << rows.log_block));
  std::uint32_t signs = rows.signs(column, first, [](int k) { return R::read_offset(k); });
  for (index_t tile = blockIdx.y; tile < rows.tiles; tile += gridDim.y) {
    // Factors are made anew for every tile: kept, they would take 32 registers.
    asm volatile("" : "+r"(signs));
    A x[held];
    read_numbers(rows, rows.log_block, tile << log_rows, column, first, x);
    if (!rows.back) scale_numbers(x, factor, signs);
    hadamard_of_warp<N, false>(x, shared, rows.log_block);
    __syncwarp();
    const A* const read = shared + R::place(first);
#pragma unroll
    for (int k = 0; k < held; ++k) x[k] = read[R::place(R::read_offset(k))];
    if (rows.back) scale_numbers(x, factor, signs);
#pragma unroll
    for (int k = 0; k < held; k += R::chunk) {
      const int i = first + R::read_offset(k);
      const index_t row = (tile << log_rows) + (i >> rows.log_block);
      if (row >= rows.Y.rows) continue;
      Neighbours<N, R::chunk> some;
#pragma unroll
      for (int n = 0; n < R::chunk; ++n) some.values[n] = narrow<N>(x[k + n]);
      N* const to = rows.Y.row(row) + column + (i & ((1 << rows.log_block) - 1));
      *reinterpret_cast<Neighbours<N, R::chunk>*>(to) = some;
    }
    __syncwarp();
  }
}

/// Blocks of 2^log_block columns, more than 1024: a block of threads each.
template <class N, int log_block>
__global__ void __launch_bounds__(1 << (log_block - log_held))
    rotate_in_blocks(RotatedRows<N> rows) {
  using A = wide<N>;
  using R = RotatedRows<N>;
  // Pairs of 16-bit numbers are written at once, where a thread need not hold five stages.
  constexpr int pair = sizeof(N) == 2 && log_block < 15 ? 1 : 0;
  constexpr int log_apart = log_block - log_held + pair;  // of the numbers that are written
  constexpr auto write_offset = [](int k) { return (k & pair) + (k >> pair << log_apart); };
  extern __shared__ __align__(16) unsigned char memory[];
  A* const shared = reinterpret_cast<A*>(memory);
  const int thread = int(threadIdx.x), warp = thread / 32;
  const int first = (warp << log_warp_tile) + R::read_first(thread % 32);
  const index_t column = index_t(blockIdx.x) << log_block;
  const A factor = A(1) / sqrt(A(1 << log_block));
  std::uint32_t signs = rows.back
                            ? rows.signs(column, thread << pair, write_offset)
                            : rows.signs(column, first, [](int k) { return R::read_offset(k); });
  for (index_t row = blockIdx.y; row < rows.tiles; row += gridDim.y) {
    asm volatile("" : "+r"(signs));  // as above
    A x[held];
    read_numbers(rows, log_block, row, column, first, x);
    if (!rows.back) scale_numbers(x, factor, signs);
    hadamard_of_warp<N, true>(x, shared + R::place(warp << log_warp_tile), log_block);
    __syncthreads();
    const A* const write = shared + R::place(thread << pair);
#pragma unroll
    for (int k = 0; k < held; k += 1 << pair) {
      const auto some =
          *reinterpret_cast<const Neighbours<A, 1 << pair>*>(write + R::place(write_offset(k)));
#pragma unroll
      for (int n = 0; n < 1 << pair; ++n) x[k + n] = some.values[n];
    }
    __syncthreads();
    hadamard_stages<pair, log_held>(x, [](int bit) {
      return bit - pair + log_apart >= log_warp_tile;
    });
    if (rows.back) scale_numbers(x, factor, signs);
    N* const to = rows.Y.row(row) + column + (thread << pair);
#pragma unroll
    for (int k = 0; k < held; k += 1 << pair) {
      Neighbours<N, 1 << pair> some;
#pragma unroll
      for (int n = 0; n < 1 << pair; ++n) some.values[n] = narrow<N>(x[k + n]);
      *reinterpret_cast<Neighbours<N, 1 << pair>*>(to + write_offset(k)) = some;
    }
  }
}

/// What pare::rotate_rows asks for.
struct Rotations {
  /// Y = X R^T or, turned back, X R; Y may be X. Blocks of less than 16 bytes, and those that the
  /// shared memory of a GPU does not hold (2^15 doubles, and as many floats on some), are turned in
  /// its main memory; rows that do not begin at multiples of 16 bytes are copied first.
  template <class S>
  static void rotate_rows(MatrixView<S> Y, MatrixView<const S> X,
                          const kernels::HadamardRotation& rotation, bool back) {
    if (X.size() == 0) return;
    using N = device_scalar<S>;
    using R = RotatedRows<N>;
    const index_t block = kernels::HadamardRotation::block(X.cols);
    R rows{native(Y), native(X), rotation, 0, X.rows, back};
    while (index_t{1} << rows.log_block < block) ++rows.log_block;
    const std::size_t bytes = sizeof(wide<N>) * std::size_t(R::place(1 << rows.log_block));
    if (block < R::chunk || bytes > std::size_t(Context::get().shared_bytes)) {
      rotate_each_block(Y, X, rotation, back);
    } else if (!is_whole(X) || !is_whole(Y)) {
      DeviceMatrix<S> copy(X.rows, X.cols);
      copy_async(X, copy.view(), cudaMemcpyDeviceToDevice);
      rotate_rows<S>(copy.view(), std::as_const(copy).view(), rotation, back);
      copy_async(std::as_const(copy).view(), Y, cudaMemcpyDeviceToDevice);
    } else if (rows.log_block <= log_warp_tile) {
      const int log_rows = log_warp_tile - rows.log_block;
      rows.tiles = (X.rows + (index_t{1} << log_rows) - 1) >> log_rows;
      launch(rows, rotate_in_warps<N>, 32, 0);
    } else {
      const unsigned threads = 1u << (rows.log_block - log_held);
      switch (rows.log_block) {
        case 11:
          return launch(rows, rotate_in_blocks<N, 11>, threads, bytes);
        case 12:
          return launch(rows, rotate_in_blocks<N, 12>, threads, bytes);
        case 13:
          return launch(rows, rotate_in_blocks<N, 13>, threads, bytes);
        case 14:
          return launch(rows, rotate_in_blocks<N, 14>, threads, bytes);
        default:
          return launch(rows, rotate_in_blocks<N, 15>, threads, bytes);
      }
    }
  }

 private:
  /// Four times as many blocks of threads as run at once, each of which walks down its columns: those
  /// that end early make room for others.
  template <class N, class Kernel>
  static void launch(const RotatedRows<N>& rows, Kernel kernel, unsigned threads,
                     std::size_t bytes) {
    allow_shared(kernel, int(bytes));
    int resident = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, int(threads), bytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const index_t across = rows.X.cols >> rows.log_block;
    const index_t below = index_t(4 * resident) * Context::get().multiprocessors / across;
    const dim3 blocks(unsigned(across), unsigned(std::clamp(below, index_t{1},
                                                            std::min(rows.tiles, index_t{65535}))));
    kernel<<<blocks, threads, bytes, stream()>>>(rows);
    check_launch("rotate_rows");
  }

  /// Whether rows lie so that 16 bytes of neighbours can be read at once.
  template <class S>
  static bool is_whole(MatrixView<S> rows) {
    return reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0 &&
           std::size_t(rows.stride) * sizeof(S) % 16 == 0;
  }

  /// A thread per block, in the memory of the device: right, not fast.
  template <class S>
  static void rotate_each_block(MatrixView<S> Y, MatrixView<const S> X,
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
