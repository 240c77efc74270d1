// Matrix products on cuBLAS. Row-major C = A B is column-major C^T = B^T A^T, so nothing is moved.
#pragma once

#include <algorithm>
#include <vector>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/direct_product.cuh"
#include "pare/backend/cuda/split_product.cuh"
#include "pare/backend/cuda/storage.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// C = alpha A B + beta C, all row-major; A (m, k), B (k, n), C (m, n).
inline void gemm(float alpha, MatrixView<const float> A, MatrixView<const float> B, float beta,
                 MatrixView<float> C) {
  if (C.size() == 0) return;
  if (splits(C.rows, C.cols, A.cols))
    return split_product(alpha, {A, Lines::rows}, {B, Lines::columns}, beta, C);
  check(cublasSgemm_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, C.cols, C.rows, A.cols,
                       &alpha, B.data, B.stride, A.data, A.stride, &beta, C.data, C.stride),
        "cublasSgemm");
}
inline void gemm(double alpha, MatrixView<const double> A, MatrixView<const double> B, double beta,
                 MatrixView<double> C) {
  if (C.size() == 0) return;
  check(cublasDgemm_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, C.cols, C.rows, A.cols,
                       &alpha, B.data, B.stride, A.data, A.stride, &beta, C.data, C.stride),
        "cublasDgemm");
}

/// The same for `count` matrices of one shape that lie `step` elements apart.
inline void gemm_batched(float alpha, MatrixView<const float> A, index_t step_a,
                         MatrixView<const float> B, index_t step_b, float beta, MatrixView<float> C,
                         index_t step_c, index_t count) {
  check(cublasSgemmStridedBatched_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, C.cols, C.rows,
                                     A.cols, &alpha, B.data, B.stride, step_b, A.data, A.stride,
                                     step_a, &beta, C.data, C.stride, step_c, count),
        "cublasSgemmStridedBatched");
}
inline void gemm_batched(double alpha, MatrixView<const double> A, index_t step_a,
                         MatrixView<const double> B, index_t step_b, double beta,
                         MatrixView<double> C, index_t step_c, index_t count) {
  check(cublasDgemmStridedBatched_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, C.cols, C.rows,
                                     A.cols, &alpha, B.data, B.stride, step_b, A.data, A.stride,
                                     step_a, &beta, C.data, C.stride, step_c, count),
        "cublasDgemmStridedBatched");
}

/// Adds X^T X to the upper triangle of the row-major G. What is written below the diagonal is
/// overwritten by the mirror.
inline void syrk(MatrixView<float> G, MatrixView<const float> X) {
  if (splits(G.rows, G.cols, X.rows)) return split_gram(1, X, G);
  const float one = 1;
  check(cublasSsyrk_64(Context::get().blas, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, G.rows, X.rows,
                       &one, X.data, X.stride, &one, G.data, G.stride),
        "cublasSsyrk");
}
inline void syrk(MatrixView<double> G, MatrixView<const double> X) {
  const double one = 1;
  check(cublasDsyrk_64(Context::get().blas, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, G.rows, X.rows,
                       &one, X.data, X.stride, &one, G.data, G.stride),
        "cublasDsyrk");
}

/// The same for X in 16 bits, at the rate of the tensor cores: products of 16-bit numbers are exact
/// in float, and sums are in float. There is no syrk for these. Squares beside the diagonal, each size
/// twice the last, cover what is above it; only those on the diagonal, the smallest, compute numbers that
/// the mirror overwrites. Squares of one size go in one call.
///
/// The tensor cores cut off what they add to a large sum. Of a small G cuBLAS may sum some squares in one
/// piece and others in several, which then lose unequal parts: where the inputs' means are large, G does
/// not stay positive definite. So the sums of a small G are begun anew every most_tokens tokens.
template <class S>
  requires is_storage_only<S>
void syrk(MatrixView<float> G, MatrixView<const S> X) {
  constexpr index_t small = 4096, most_tokens = 2048;  // a small G's triangle stays in the cache
  if (G.rows <= small && X.rows > most_tokens) {
    for (index_t t = 0; t < X.rows; t += most_tokens)
      syrk(G, X.block(t, 0, std::min(most_tokens, X.rows - t), X.cols));
    return;
  }
  using Type = DeviceScalar<S>;
  const float one = 1;
  // G(r, c) of every `step`-th r and c, (height, width) each, += what it is the sum of.
  const auto add = [&](index_t r, index_t c, index_t height, index_t width, index_t step,
                       index_t count) {
    if (height <= 0 || width <= 0 || count == 0) return;
    check(cublasGemmStridedBatchedEx_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_T, width,
                                        height, X.rows, &one, X.data + c, Type::data, X.stride,
                                        step, X.data + r, Type::data, X.stride, step, &one,
                                        &G(r, c), CUDA_R_32F, G.stride, step * (G.stride + 1),
                                        count, Type::compute, CUBLAS_GEMM_DEFAULT),
          "cublasGemmStridedBatchedEx");
  };
  constexpr index_t least = 512;  // columns of a square
  const index_t n = G.cols;
  for (index_t side = least; side < n; side *= 2) {
    const index_t pairs = n / (2 * side), rest = 2 * side * pairs;
    add(0, side, side, side, 2 * side, pairs);
    add(rest, rest + side, side, n - rest - side, 0, 1);
  }
  const index_t squares = n / least, rest = least * squares;
  add(0, 0, least, least, least, squares);
  add(rest, rest, n - rest, n - rest, 0, 1);
}

inline constexpr int tile_side = 32;

/// Copies the upper triangle of G below the diagonal, a tile per block of threads.
template <class T>
__global__ void mirror_kernel(MatrixView<T> G) {
  __shared__ T tile[tile_side][tile_side + 1];  // the odd row length keeps banks apart
  if (blockIdx.x < blockIdx.y) return;
  const index_t row = index_t(blockIdx.y) * tile_side, col = index_t(blockIdx.x) * tile_side;
  for (index_t r = threadIdx.y; r < tile_side; r += blockDim.y)
    if (row + r < G.rows && col + threadIdx.x < G.cols)
      tile[r][threadIdx.x] = G(row + r, col + threadIdx.x);
  __syncthreads();
  for (index_t c = threadIdx.y; c < tile_side; c += blockDim.y) {
    const index_t i = col + c, j = row + threadIdx.x;  // below the diagonal
    if (i < G.rows && j < i) G(i, j) = tile[threadIdx.x][c];
  }
}

/// Columns whose errors are collected at most, for the matrices whose halves are multiplied.
inline constexpr index_t deep_update = 2048;

/// The products of a Backend.
struct Products {
  /// Half the arithmetic of a full product, then a mirror.
  template <class T, class S>
  static void gram_accumulate(MatrixView<T> G, MatrixView<const S> X) {
    syrk(G, X);
    mirror_upper(G);
  }

  /// What is below the diagonal may be anything afterwards.
  template <class T, class S>
  static void gram_accumulate_upper(MatrixView<T> G, MatrixView<const S> X) {
    syrk(G, X);
  }

  /// Copies the upper triangle of the square G below the diagonal.
  template <class T>
  static void mirror_upper(MatrixView<T> G) {
    if (G.rows == 0) return;
    const unsigned side = unsigned((G.rows + tile_side - 1) / tile_side);
    mirror_kernel<<<dim3(side, side), dim3(tile_side, 8), 0, stream()>>>(G);
    check_launch("mirror_kernel");
  }

  template <class T>
  static void multiply(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    // cuBLAS picks its kernel by strides too: a window must give the bytes a whole matrix gives. What is
    // split is copied anyway.
    const bool split = std::is_same_v<T, float> && splits(C.rows, C.cols, A.cols);
    DeviceMatrix<T> whole;
    if (A.stride != A.cols && !split) {
      whole.resize(A.rows, A.cols);
      DeviceMemory::copy(A, whole.view());
      A = whole.view();
    }
    gemm(T(1), A, B, T(0), C);
  }

  /// C = A B with factors rounded to TF32, sums in float32: on the tensor cores.
  static void rough_multiply(MatrixView<float> C, MatrixView<const float> A,
                             MatrixView<const float> B) {
    if (C.size() == 0) return;
    const float one = 1, zero = 0;
    check(cublasGemmEx_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, C.cols, C.rows, A.cols,
                          &one, B.data, CUDA_R_32F, B.stride, A.data, CUDA_R_32F, A.stride, &zero,
                          C.data, CUDA_R_32F, C.stride, CUBLAS_COMPUTE_32F_FAST_TF32,
                          CUBLAS_GEMM_DEFAULT),
          "cublasGemmEx");
  }

  /// Neighbouring columns whose errors are collected before the columns after them are updated, level
  /// by level: deep products read and write W less often.
  /// @param rows, cols  of the weights, (out, in)
  /// @param block       columns of a block
  /// @return columns of each level, the smallest first; empty where no update is split
  template <class T>
  static std::vector<index_t> update_depths(index_t rows, index_t cols, index_t block) {
    std::vector<index_t> depths;
    if (!std::is_same_v<T, float>) return depths;
    for (const index_t most : {split_depth, deep_update}) {
      const index_t inner = depths.empty() ? block : depths.back(), depth = most / inner * inner;
      if (depth == inner || 2 * depth > cols || !splits(rows, cols / 2, depth)) break;
      depths.push_back(depth);
    }
    return depths;
  }

  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> E, MatrixView<const T> U) {
    if constexpr (std::is_same_v<T, float>) {
      if (splits(W.rows, W.cols, E.cols))
        return split_product(-1, {E, Lines::rows}, {U, Lines::columns}, 1, W, Terms::balanced);
      if (directs() && E.cols > 0) return direct_product(-1, {E, Lines::rows}, U, 1, W);
    }
    gemm(T(-1), E, U, T(1), W);
  }
};

}  // namespace pare::backend::cuda
