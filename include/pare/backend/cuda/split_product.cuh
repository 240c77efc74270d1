// Products of float32 matrices on the tensor cores, every number in two halves of 16 bits.
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

/// What is known to be zero.
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
/// Neighbours in a row that a thread splits.
inline constexpr int together = 8;

/// What halves are needed for.
enum class Side : std::uint8_t { left, right, both };

/// Where a kernel finds an operand and puts its halves: copies that lie `apart` elements from each
/// other, rows `stride` apart. They are high, low, high on the right and low, high, high on the left:
/// the small products come first, as what is added to a large sum is cut off.
struct Job {
  MatrixView<const float> X;
  bool by_rows, aligned, left;
  int copies;
  unsigned low;  ///< a bit per copy: whether it holds the low halves
  std::uint16_t* to;
  index_t rows, cols;  ///< of a copy, with what is padded by zeros
  index_t stride, apart;
  const float* of_terms;  ///< largest number of each term, null where all are alike
  unsigned* largest;      ///< bits of the largest magnitude
};

/// Two to the power of e, within -120 .. 120.
__device__ inline float power_of_two(int e) {
  return __int_as_float((min(max(e, -120), 120) + 127) << 23);
}

/// The exponent of the power of two that brings an operand's largest number to 2^14 .. 2^15; 0 where that
/// is not finite, and then the product is not either.
__device__ inline int exponent_of(const Job& job) {
  if (job.of_terms != nullptr && !job.left) return top_exponent - 1;  // rows reach 1 .. 2
  const float x = __uint_as_float(*job.largest);
  return x > 0 && isfinite(x) ? min(max(top_exponent - ilogbf(x), -120), 120) : 0;
}

/// What term k is multiplied with: inverse powers of two on the left and on the right.
__device__ inline float term_factor(const Job& job, index_t k) {
  const float u = job.of_terms[k];
  const int e = u > 0 && isfinite(u) ? ilogbf(u) : 0;
  return power_of_two(job.left ? e : -e);
}

/// The largest magnitude of operand blockIdx.y, as bits: these order like the numbers, with NaN above
/// all.
template <bool Balanced>
__global__ void __launch_bounds__(threads) largest_kernel(Job first, Job second) {
  const Job job = blockIdx.y == 0 ? first : second;
  const MatrixView<const float>& X = job.X;
  constexpr int width = 4;
  const bool wide = job.aligned && X.cols % width == 0;
  const auto runs = unsigned(wide ? X.cols / width : X.cols), all = unsigned(X.rows) * runs;
  unsigned mine = 0;
  const auto see = [&](float x, index_t i, index_t j) {
    if constexpr (Balanced) x *= term_factor(job, job.by_rows ? j : i);
    mine = max(mine, __float_as_uint(fabsf(x)));
  };
#pragma unroll 4
  for (unsigned at = blockIdx.x * threads + threadIdx.x; at < all; at += gridDim.x * threads) {
    const index_t i = at / runs, j = at % runs;
    if (wide) {
      const float4 x = *reinterpret_cast<const float4*>(X.row(i) + width * j);
      see(x.x, i, width * j);
      see(x.y, i, width * j + 1);
      see(x.z, i, width * j + 2);
      see(x.w, i, width * j + 3);
    } else {
      see(X(i, j), i, j);
    }
  }
  __shared__ unsigned of_warp[threads / 32];
  for (int step = 16; step > 0; step /= 2) mine = max(mine, __shfl_xor_sync(~0u, mine, step));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (const unsigned other : of_warp) mine = max(mine, other);
  if (mine > 0) atomicMax(job.largest, mine);
}

/// largest[i] = the largest magnitude of row i, NaN left out; a block of threads per row.
template <class T>
__global__ void __launch_bounds__(threads) row_largest_kernel(MatrixView<const T> X, T* largest) {
  __shared__ T of_warp[threads / 32];
  T mine = 0;
  for (index_t j = threadIdx.x; j < X.cols; j += threads)
    mine = fmaxf(mine, fabsf(X(blockIdx.x, j)));
  for (int step = 16; step > 0; step /= 2) mine = fmaxf(mine, __shfl_xor_sync(~0u, mine, step));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < threads / 32; ++w) mine = fmaxf(mine, of_warp[w]);
  largest[blockIdx.x] = mine;
}

/// Writes the halves of operand blockIdx.y times a power of two, and {alpha over both powers, beta, 1}.
template <bool Balanced>
__global__ void __launch_bounds__(threads)
    split_kernel(Job first, Job second, float alpha, float beta, float* scale) {
  const Job job = blockIdx.y == 0 ? first : second;
  const MatrixView<const float>& X = job.X;
  const int exponent = exponent_of(job);
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    scale[0] = ldexpf(ldexpf(alpha, -exponent), -exponent_of(second));
    scale[1] = beta;
    scale[2] = 1;
  }
  const auto runs = unsigned(job.cols / together), all = unsigned(job.rows) * runs;
  const float power = power_of_two(exponent);
  for (unsigned at = blockIdx.x * threads + threadIdx.x; at < all; at += gridDim.x * threads) {
    const index_t i = at / runs, begin = index_t(at % runs) * together;
    alignas(16) float x[together];
    if (job.aligned && i < X.rows && begin + together <= X.cols) {
#pragma unroll
      for (int c = 0; c < together; c += 4)
        *reinterpret_cast<float4*>(x + c) = *reinterpret_cast<const float4*>(X.row(i) + begin + c);
    } else {
#pragma unroll
      for (int c = 0; c < together; ++c)
        x[c] = i < X.rows && begin + c < X.cols ? X(i, begin + c) : 0.0f;
    }
    if constexpr (Balanced) {
#pragma unroll
      for (int c = 0; c < together; ++c) {
        const index_t k = job.by_rows ? begin + c : i;
        if (k < (job.by_rows ? X.cols : X.rows)) x[c] *= term_factor(job, k);
      }
    }
    alignas(16) std::uint16_t high[together], low[together];
#pragma unroll
    for (int c = 0; c < together; ++c) {
      const float scaled = x[c] * power;
      const __half h = __float2half_rn(scaled);
      high[c] = __half_as_ushort(h);
      low[c] = __half_as_ushort(__float2half_rn(scaled - __half2float(h)));
    }
    const uint4 h = *reinterpret_cast<const uint4*>(high), l = *reinterpret_cast<const uint4*>(low);
    std::uint16_t* to = job.to + i * job.stride + begin;
    for (int copy = 0; copy < job.copies; ++copy, to += job.apart)
      *reinterpret_cast<uint4*>(to) = (job.low >> copy & 1u) != 0 ? l : h;
  }
}

inline index_t padded(index_t n) { return (n + together - 1) / together * together; }

/// The halves of one operand, up to split_depth terms at a time.
class SplitOperand {
 public:
  /// @param largest   one number in device memory
  /// @param of_terms  largest number of each term, null where all are alike
  SplitOperand(Operand operand, Side side, unsigned* largest, const float* of_terms = nullptr)
      : operand_(operand), side_(side), largest_(largest), of_terms_(of_terms) {}

  /// What largest_kernel is told.
  Job whole() const { return job_of(operand_.of); }

  /// What split_kernel is told to split some of the terms. Halves of earlier ones are overwritten.
  Job part(index_t first, index_t many) {
    Job job = job_of(operand_.terms(first, many).of);
    depth_ = padded(many);
    if (of_terms_ != nullptr) job.of_terms += first;
    job.rows = by_rows() ? job.X.rows : depth_;
    job.cols = by_rows() ? depth_ : padded(job.X.cols);
    job.copies = side_ == Side::both ? 4 : 3;
    job.low = side_ == Side::left ? 0b001u : 0b010u;
    halves_.resize(by_rows() ? job.rows : job.copies * job.rows,
                   by_rows() ? job.copies * job.cols : job.cols);
    job.to = halves_.data();
    job.stride = halves_.cols();
    job.apart = by_rows() ? depth_ : job.rows * job.cols;
    return job;
  }

  /// The halves from line `line` on, as the left or the right operand.
  const std::uint16_t* halves(index_t line, bool left) const {
    // high, low, high, high: the last three are what the left operand needs.
    const index_t copy = side_ == Side::both && left ? 1 : 0;
    return halves_.data() + (by_rows() ? copy * depth_ + line * halves_.cols()
                                       : copy * depth_ * halves_.cols() + line);
  }
  index_t stride() const { return halves_.cols(); }
  /// Terms of all three products together.
  index_t depth() const { return 3 * depth_; }
  bool by_rows() const { return operand_.lines == Lines::rows; }

 private:
  Job job_of(MatrixView<const float> X) const {
    Job job{};
    job.X = X;
    job.by_rows = by_rows();
    job.aligned = job.X.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(job.X.data) % 16 == 0;
    job.left = side_ == Side::left;
    job.of_terms = of_terms_;
    job.largest = largest_;
    return job;
  }

  Operand operand_;
  Side side_;
  unsigned* largest_;
  const float* of_terms_;
  index_t depth_ = 0;
  DeviceMatrix<std::uint16_t> halves_;
};

/// What products of halves have in device memory.
struct Scales {
  DeviceMatrix<unsigned> largest{1, 2};  // bits of the largest magnitude of each operand
  DeviceMatrix<float> factors{1, 3};     // alpha over the powers of two, beta, 1

  Scales() {
    check(cudaMemsetAsync(largest.data(), 0, 2 * sizeof(unsigned), stream()), "cudaMemsetAsync");
  }
};

template <bool Balanced>
void find_largest(const Job& first, const Job& second, int operands) {
  const index_t most = std::max(first.X.size(), second.X.size());
  constexpr index_t each = 16;  // numbers of a thread
  const index_t blocks = (most + each * threads - 1) / (each * threads);
  const dim3 grid(unsigned(std::min<index_t>(blocks, 8 * Context::get().multiprocessors)),
                  unsigned(operands));
  largest_kernel<Balanced><<<grid, threads, 0, stream()>>>(first, second);
  check_launch("largest_kernel");
}

template <bool Balanced>
void split(const Job& first, const Job& second, int operands, float alpha, float beta,
           Scales& scales) {
  const index_t most = std::max(first.rows * first.cols, second.rows * second.cols);
  const index_t blocks = (most / together + threads - 1) / threads;
  const dim3 grid(unsigned(std::min<index_t>(blocks, 16 * Context::get().multiprocessors)),
                  unsigned(operands));
  split_kernel<Balanced>
      <<<grid, threads, 0, stream()>>>(first, second, alpha, beta, scales.factors.data());
  check_launch("split_kernel");
}

/// C = factor * left right + beta C with what split() has made ready, from the given lines on.
/// @param add  beta is 1 instead of the one given to split()
inline void multiply_halves(const SplitOperand& left, index_t left_line, const SplitOperand& right,
                            index_t right_line, const Scales& scales, bool add,
                            MatrixView<float> C) {
  const cublasHandle_t blas = Context::get().blas;
  const float* const factors = scales.factors.data();
  check(cublasSetPointerMode(blas, CUBLAS_POINTER_MODE_DEVICE), "cublasSetPointerMode");
  const cublasStatus_t status =
      cublasGemmEx_64(blas, right.by_rows() ? CUBLAS_OP_T : CUBLAS_OP_N,
                      left.by_rows() ? CUBLAS_OP_N : CUBLAS_OP_T, C.cols, C.rows, left.depth(),
                      factors, right.halves(right_line, false), CUDA_R_16F, right.stride(),
                      left.halves(left_line, true), CUDA_R_16F, left.stride(),
                      factors + (add ? 2 : 1), C.data, CUDA_R_32F, C.stride, CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT);
  check(cublasSetPointerMode(blas, CUBLAS_POINTER_MODE_HOST), "cublasSetPointerMode");
  check(status, "cublasGemmEx");
}

}  // namespace split_detail

/// C = alpha A B + beta C for float32 matrices, on the tensor cores: every operand is scaled by a
/// power of two and parted into two halves of 16 bits, and of their four products the one of the low
/// halves is left out.
///
/// The halves of a number x hold it up to max(2^-22 |x|, 2^-39 X), where X is the largest magnitude of
/// the operand. The product of both largest magnitudes should be within 2^-110 .. 2^120. Where an operand
/// has a number that is not finite, what that number reaches is not finite, and the rest is unspecified.
/// At most split_depth terms are summed by the tensor cores, sums of these are in float32. C may be an
/// operand where there are no more terms than that.
/// @param A      (m, k), or (k, m) with Lines::columns
/// @param B      (k, n), or (n, k) with Lines::rows
/// @param C      (m, n)
/// @param terms  balanced only where B is (k, n)
/// @param zeros  what is skipped; not none only where A is (m, k) and B (k, n), and with k = m or k = n
/// @throws device_error, out_of_memory_error
/// Source: Ootomo and Yokota 2022, Recovering single precision accuracy from Tensor Cores while
/// surpassing the FP32 theoretical peak performance.
inline void split_product(float alpha, Operand A, Operand B, float beta, MatrixView<float> C,
                          Terms terms = Terms::alike, Zeros zeros = Zeros::none) {
  using namespace split_detail;
  if (C.size() == 0) return;
  const index_t depth = A.depth();
  const bool balanced = terms == Terms::balanced;
  Scales scales;
  DeviceMatrix<float> of_terms(1, balanced ? depth : 0);
  SplitOperand left(A, Side::left, scales.largest.data(), of_terms.data());
  SplitOperand right(B, Side::right, scales.largest.data() + 1, of_terms.data());
  if (balanced) {
    row_largest_kernel<<<unsigned(depth), threads, 0, stream()>>>(B.of, of_terms.data());
    check_launch("row_largest_kernel");
    find_largest<true>(left.whole(), left.whole(), 1);
  } else {
    find_largest<false>(left.whole(), right.whole(), 2);
  }
  for_parts(depth, C, zeros, [&](index_t k, index_t many, MatrixView<float> part, bool first_part) {
    const Job first = left.part(k, many), second = right.part(k, many);
    if (balanced)
      split<true>(first, second, 2, alpha, beta, scales);
    else
      split<false>(first, second, 2, alpha, beta, scales);
    multiply_halves(left, 0, right, C.cols - part.cols, scales, !first_part, part);
  });
}

/// Rows of a symmetric product that are computed together: narrower wastes less below the diagonal,
/// but fills the device less.
inline constexpr index_t gram_strip = 2048;

/// C = alpha X^T X + C on and above the diagonal, with the arithmetic and errors of split_product(); some
/// of what lies below the diagonal is overwritten.
/// @param X  (k, n)
/// @param C  (n, n)
/// @throws device_error, out_of_memory_error
inline void split_gram(float alpha, MatrixView<const float> X, MatrixView<float> C) {
  using namespace split_detail;
  if (C.size() == 0) return;
  Scales scales;
  SplitOperand operand({X, Lines::columns}, Side::both, scales.largest.data());
  find_largest<false>(operand.whole(), operand.whole(), 1);
  for (index_t k = 0; k < X.rows; k += split_depth) {
    const Job job = operand.part(k, std::min(split_depth, X.rows - k));
    split<false>(job, job, 1, alpha, 1, scales);
    for (index_t r = 0; r < C.rows; r += gram_strip) {
      const index_t strip = std::min(gram_strip, C.rows - r);
      multiply_halves(operand, r, operand, r, scales, true, C.block(r, r, strip, C.cols - r));
    }
  }
}

}  // namespace pare::backend::cuda
