// The operands of products of float32 matrices on the tensor cores, and how they become halves of 16 bits.
#pragma once

#include <cuda_fp16.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "pare/backend/cuda/context.cuh"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// The arithmetic of products of float32 matrices.
enum class Precision : std::uint8_t {
  float32,  ///< products and sums in float32
  split     ///< three products of halves on the tensor cores where a product is large
};

namespace split_detail {
inline std::atomic<Precision> chosen{Precision::split};
}  // namespace split_detail

/// The arithmetic in force in this process; Precision::split unless set.
inline Precision precision() { return split_detail::chosen; }
/// Chooses the arithmetic of products of float32 matrices. Not to be called while another thread
/// computes: one factorisation asks several times.
inline void set_precision(Precision precision) { split_detail::chosen = precision; }

/// Terms of a sum that the tensor cores add up. They truncate where float32 arithmetic rounds, so longer
/// sums are added in float32.
inline constexpr index_t split_depth = 512;

/// Multiply-adds from which a product is split: below, the passes over the operands cost more than
/// the product in float32.
inline constexpr double split_operations = 0.5e9;
/// Shortest side, and shortest sum, of a product that is split.
inline constexpr index_t split_side = 128;

/// Whether a product (m, k) x (k, n) of float32 is split.
inline bool splits(index_t m, index_t n, index_t k) {
  constexpr index_t most_numbers = index_t{1} << 32;  // of an operand: kernels count in 32 bits
  return precision() == Precision::split && std::min({m, n, k}) >= split_side &&
         std::max(m, n) < most_numbers / k && double(m) * double(n) * double(k) >= split_operations;
}

/// Which way the terms of a sum lie in an operand.
enum class Lines : std::uint8_t {
  rows,    ///< along a row: (m, k) on the left, (n, k) on the right
  columns  ///< along a column: (k, m) on the left, (k, n) on the right
};

/// An operand of a product.
struct Operand {
  MatrixView<const float> of;
  Lines lines;

  /// Terms of a sum.
  index_t depth() const { return lines == Lines::rows ? of.cols : of.rows; }
  /// Some of the terms.
  Operand terms(index_t first, index_t many) const {
    return {lines == Lines::rows ? of.columns(first, many) : of.block(first, 0, many, of.cols),
            lines};
  }
};

/// Whether terms are scaled one by one.
enum class Terms : std::uint8_t {
  alike,    ///< they are not
  balanced  ///< by the largest number of each row of B (k, n), as a trailing update needs: errors are
            ///< large where the factor's rows are small
};

/// What is known to be zero. The blocks of split_depth on the diagonal of a triangle have zeros below it;
/// what is below them is not summed, whatever stands there.
enum class Zeros : std::uint8_t {
  none,
  below_left,  ///< A (m, k) is upper triangular
  below_right  ///< B (k, n) is upper triangular
};

/// Calls f(k, many, part, first) once for each group of at most split_depth terms. k is the first term of
/// the group, `part` the block of C that the group changes. The first group changes all of C.
/// @param zeros  with below_right the part begins at column k, with below_left it ends at row k + many
template <class F>
void for_parts(index_t depth, MatrixView<float> C, Zeros zeros, const F& f) {
  const index_t parts = (depth + split_depth - 1) / split_depth;
  for (index_t i = 0; i < parts; ++i) {
    const index_t k = split_depth * (zeros == Zeros::below_left ? parts - 1 - i : i);
    const index_t many = std::min(split_depth, depth - k);
    const index_t height = zeros == Zeros::below_left ? k + many : C.rows;
    const index_t col = zeros == Zeros::below_right ? k : 0;
    f(k, many, C.block(0, col, height, C.cols - col), i == 0);
  }
}

namespace split_detail {

inline constexpr int threads = 256;
/// Exponent to which the largest number of an operand is brought: sums of products stay far below
/// the largest float32, and numbers down to 2^-17 of the largest keep all their digits.
inline constexpr int top_exponent = 14;
/// Numbers that a thread splits.
inline constexpr int together = 8;

/// Where a kernel finds some terms of an operand, and its scale. Largest magnitudes are given as bits,
/// which order like the numbers, with NaN above all.
struct Source {
  MatrixView<const float> X;
  bool by_rows, aligned, left;
  index_t first;       ///< of these terms
  index_t depth;       ///< terms of the whole operand
  unsigned* largest;   ///< magnitude of the whole operand; null where terms are balanced
  unsigned* of_left;   ///< magnitude of each term on the left, where terms are balanced
  unsigned* of_right;  ///< and on the right
};

/// Two to the power of e, within -120 .. 120.
__device__ inline float power_of_two(int e) {
  return __int_as_float((min(max(e, -120), 120) + 127) << 23);
}

/// What term k of the whole operand is multiplied with: inverse powers of two on the left and on the right.
__device__ inline float term_factor(const Source& from, index_t k) {
  const float u = __uint_as_float(from.of_right[k]);
  const int e = u > 0 && isfinite(u) ? ilogbf(u) : 0;
  return power_of_two(from.left ? e : -e);
}

__device__ inline unsigned bits_of(float x) { return __float_as_uint(fabsf(x)); }
__device__ inline unsigned largest_of_warp(unsigned mine) {
  for (int step = 16; step > 0; step /= 2) mine = max(mine, __shfl_xor_sync(~0u, mine, step));
  return mine;
}
/// The largest number of a block of `threads` threads, for all of them.
__device__ inline unsigned largest_of_block(unsigned mine) {
  __shared__ unsigned of_warp[threads / 32];
  mine = largest_of_warp(mine);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  for (const unsigned other : of_warp) mine = max(mine, other);
  return mine;
}

/// The exponent of the power of two that brings an operand's largest number to 2^14 .. 2^15; 0 where that
/// is not finite, and then the product is not either. A whole block asks.
__device__ inline int exponent_of(const Source& from) {
  unsigned bits = 0;
  if (from.largest != nullptr) {
    bits = *from.largest;
  } else if (from.left) {
    for (index_t k = threadIdx.x; k < from.depth; k += threads)
      bits = max(bits, bits_of(__uint_as_float(from.of_left[k]) * term_factor(from, k)));
    bits = largest_of_block(bits);
  } else {
    return top_exponent - 1;  // terms reach 1 .. 2
  }
  const float x = __uint_as_float(bits);
  return x > 0 && isfinite(x) ? min(max(top_exponent - ilogbf(x), -120), 120) : 0;
}

/// Writes the largest magnitude of operand blockIdx.y.
__device__ inline void find_largest_of_all(const Source& from) {
  const MatrixView<const float>& X = from.X;
  constexpr int width = 4;
  const bool wide = from.aligned && X.cols % width == 0;
  const auto runs = unsigned(wide ? X.cols / width : X.cols), all = unsigned(X.rows) * runs;
  unsigned mine = 0;
#pragma unroll 4
  for (unsigned at = blockIdx.x * threads + threadIdx.x; at < all; at += gridDim.x * threads) {
    const index_t i = at / runs, j = at % runs;
    if (wide) {
      const float4 x = *reinterpret_cast<const float4*>(X.row(i) + width * j);
      mine = max(max(mine, bits_of(x.x)), max(bits_of(x.y), max(bits_of(x.z), bits_of(x.w))));
    } else {
      mine = max(mine, bits_of(X(i, j)));
    }
  }
  mine = largest_of_block(mine);
  if (threadIdx.x == 0 && mine > 0) atomicMax(from.largest, mine);
}

/// Writes the largest magnitude of each term. A warp does 32 terms of some lines where terms lie along rows,
/// else a term of 32 times as many.
__device__ inline void find_largest_of_terms(const Source& from) {
  const MatrixView<const float>& X = from.X;
  const bool by_rows = from.by_rows;
  unsigned* const largest = from.left ? from.of_left : from.of_right;
  constexpr int some = 32;  // numbers that a thread reads at once
  const auto high = unsigned(by_rows ? some : 1), wide = unsigned(by_rows ? 32 : 32 * some);
  const unsigned across = (unsigned(X.cols) + wide - 1) / wide;
  const unsigned all = (unsigned(X.rows) + high - 1) / high * across;
  const unsigned lane = threadIdx.x % 32;
  constexpr unsigned warps = threads / 32;
  for (unsigned at = blockIdx.x * warps + threadIdx.x / 32; at < all; at += gridDim.x * warps) {
    const index_t row = index_t(at / across) * high, col = index_t(at % across) * wide + lane;
    unsigned mine = 0;
#pragma unroll
    for (int c = 0; c < some; ++c) {
      const index_t i = by_rows ? row + c : row, j = by_rows ? col : col + 32 * c;
      if (i < X.rows && j < X.cols) mine = max(mine, bits_of(X(i, j)));
    }
    if (!by_rows) mine = largest_of_warp(mine);
    if (mine > 0 && (by_rows || lane == 0)) atomicMax(largest + (by_rows ? col : row), mine);
  }
}

/// Finds what the scale of operand blockIdx.y depends on.
template <bool Balanced>
__global__ void __launch_bounds__(threads) largest_kernel(Source first, Source second) {
  const Source from = blockIdx.y == 0 ? first : second;
  if constexpr (Balanced)
    find_largest_of_terms(from);
  else
    find_largest_of_all(from);
}

/// Writes eight numbers times a power of two as high and low halves.
__device__ inline void split_numbers(const float (&x)[together], float power, uint4& high,
                                     uint4& low) {
  alignas(16) std::uint16_t h[together], l[together];
#pragma unroll
  for (int c = 0; c < together; ++c) {
    const float scaled = x[c] * power;
    const __half top = __float2half_rn(scaled);
    h[c] = __half_as_ushort(top);
    l[c] = __half_as_ushort(__float2half_rn(scaled - __half2float(top)));
  }
  high = *reinterpret_cast<const uint4*>(h);
  low = *reinterpret_cast<const uint4*>(l);
}

inline index_t padded(index_t n) { return (n + together - 1) / together * together; }

inline bool aligned(MatrixView<const float> X) {
  return X.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0;
}

/// Some of the terms.
inline Source terms_of(const Source& from, index_t first, index_t many) {
  Source some = from;
  some.X = from.by_rows ? from.X.columns(first, many) : from.X.block(first, 0, many, from.X.cols);
  some.aligned = aligned(some.X);
  some.first = from.first + first;
  return some;
}

/// What is known of a product's operands, in device memory.
struct Scales {
  DeviceMatrix<unsigned> largest;     // magnitude of each operand, or of each of their terms
  DeviceMatrix<float> factors{1, 3};  // alpha over the powers of two, beta, 1

  /// @param depth  terms that are balanced, 0 where they are alike
  explicit Scales(index_t depth = 0) : largest(2, std::max(depth, index_t{1})) {
    check(cudaMemsetAsync(largest.data(), 0, std::size_t(largest.size()) * sizeof(unsigned),
                          stream()),
          "cudaMemsetAsync");
  }
};

/// @param terms  balanced where `scales` has room for their magnitudes
inline Source source_of(Operand operand, bool left, Terms terms, Scales& scales) {
  Source from{};
  from.X = operand.of;
  from.by_rows = operand.lines == Lines::rows;
  from.aligned = aligned(from.X);
  from.left = left;
  from.depth = operand.depth();
  unsigned* const of_right = scales.largest.view().row(1);
  if (terms == Terms::balanced) {
    from.of_left = scales.largest.data();
    from.of_right = of_right;
  } else {
    from.largest = left ? scales.largest.data() : of_right;
  }
  return from;
}

/// Finds the largest magnitudes of one operand or two.
inline void find_largest(const Source& first, const Source& second, int operands) {
  const index_t most = std::max(first.X.size(), second.X.size());
  constexpr index_t each = 16;  // numbers of a thread
  const index_t blocks = (most + each * threads - 1) / (each * threads);
  const dim3 grid(unsigned(std::min<index_t>(blocks, 8 * Context::get().multiprocessors)),
                  unsigned(operands));
  const auto kernel = first.largest == nullptr ? largest_kernel<true> : largest_kernel<false>;
  kernel<<<grid, threads, 0, stream()>>>(first, second);
  check_launch("largest_kernel");
}

}  // namespace split_detail

}  // namespace pare::backend::cuda
