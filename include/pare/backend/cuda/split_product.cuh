// Products of float32 matrices on the tensor cores, every number in two halves of 16 bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pare/backend/cuda/split_operand.cuh"
#include "pare/backend/cuda/wgmma_product.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace split_detail {

/// What halves are needed for.
enum class Side : std::uint8_t { left, right, both };

/// Where a kernel finds an operand and puts its halves: copies that lie `apart` elements from each
/// other, rows `stride` apart. They are high, low, high on the right and low, high, high on the left:
/// the small products come first, as what is added to a large sum is cut off.
struct Job {
  Source from;
  int copies;
  unsigned low;  ///< a bit per copy: whether it holds the low halves
  std::uint16_t* to;
  index_t rows, cols;  ///< of a copy, with what is padded by zeros
  index_t stride, apart;
};

/// Writes the halves of operand blockIdx.y times a power of two, and {alpha over both powers, beta, 1}.
template <bool Balanced>
__global__ void __launch_bounds__(threads)
    split_kernel(Job first, Job second, float alpha, float beta, float* scale) {
  const Job job = blockIdx.y == 0 ? first : second;
  const Source& from = job.from;
  const MatrixView<const float>& X = from.X;
  const int exponent = exponent_of(from);
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    scale[0] = ldexpf(ldexpf(alpha, -exponent), -exponent_of(second.from));
    scale[1] = beta;
    scale[2] = 1;
  }
  const auto runs = unsigned(job.cols / together), all = unsigned(job.rows) * runs;
  const float power = power_of_two(exponent);
  for (unsigned at = blockIdx.x * threads + threadIdx.x; at < all; at += gridDim.x * threads) {
    const index_t i = at / runs, begin = index_t(at % runs) * together;
    alignas(16) float x[together];
    if (from.aligned && i < X.rows && begin + together <= X.cols) {
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
        const index_t k = from.by_rows ? begin + c : i;
        if (k < (from.by_rows ? X.cols : X.rows)) x[c] *= term_factor(from, from.first + k);
      }
    }
    uint4 h, l;
    split_numbers(x, power, h, l);
    std::uint16_t* to = job.to + i * job.stride + begin;
    for (int copy = 0; copy < job.copies; ++copy, to += job.apart)
      *reinterpret_cast<uint4*>(to) = (job.low >> copy & 1u) != 0 ? l : h;
  }
}

/// The halves of one operand, up to split_depth terms at a time.
class SplitOperand {
 public:
  SplitOperand(const Source& from, Side side) : from_(from), side_(side) {}

  /// What split_kernel is told to split some of the terms. Halves of earlier ones are overwritten.
  Job part(index_t first, index_t many) {
    Job job{};
    job.from = terms_of(from_, first, many);
    depth_ = padded(many);
    job.rows = by_rows() ? job.from.X.rows : depth_;
    job.cols = by_rows() ? depth_ : padded(job.from.X.cols);
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
  bool by_rows() const { return from_.by_rows; }

 private:
  Source from_;
  Side side_;
  index_t depth_ = 0;
  DeviceMatrix<std::uint16_t> halves_;
};

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
  Scales scales(balanced ? depth : 0);
  const Source a = source_of(A, true, terms, scales), b = source_of(B, false, terms, scales);
  find_largest(a, b, 2);
  if (wgmma_detail::available())
    return wgmma_detail::product(alpha, a, b, beta, C, depth, zeros, scales);
  SplitOperand left(a, Side::left), right(b, Side::right);
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
  const Source x = source_of({X, Lines::columns}, false, Terms::alike, scales);
  find_largest(x, x, 1);
  if (wgmma_detail::available()) return wgmma_detail::gram(alpha, x, C, X.rows, scales);
  SplitOperand operand(x, Side::both);
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
