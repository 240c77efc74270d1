// Causal attention: batched products over the heads and one kernel for the softmax between them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/product.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Most queries of a window that are done together; what lies behind the last of them is skipped.
inline constexpr index_t query_rows = 512;
/// Bytes of scores that are held at a time.
inline constexpr std::size_t score_bytes = std::size_t{256} << 20;

/// Turns scores into weights. Row h * queries + r of scores (heads * queries, seen) belongs to
/// query first + r, which sees keys 0 .. first + r; the weights of the others become zero.
/// `weights` may be the memory of `scores`. A block of threads per row.
template <class A, class N>
__global__ void __launch_bounds__(row_threads)
    causal_softmax(MatrixView<const A> scores, MatrixView<N> weights, index_t queries,
                   index_t first) {
  const index_t row = blockIdx.x, visible = first + row % queries + 1;
  const A* s = scores.row(row);
  A largest = -std::numeric_limits<A>::infinity();
  for (index_t j = threadIdx.x; j < visible; j += row_threads)
    largest = s[j] > largest ? s[j] : largest;
  largest = block_combine(largest, [](A a, A b) { return a > b ? a : b; });
  A sum = 0;
  for (index_t j = threadIdx.x; j < visible; j += row_threads) sum += exp(s[j] - largest);
  const A factor = A(1) / block_sum(sum);
  for (index_t j = threadIdx.x; j < scores.cols; j += row_threads)
    weights(row, j) = narrow<N>(j < visible ? exp(s[j] - largest) * factor : A(0));
}

/// The attention of a ModelBackend.
struct Attention {
  template <class S>
  static void causal_attention(MatrixView<S> out, MatrixView<const S> q, MatrixView<const S> k,
                               MatrixView<const S> v, index_t heads, index_t seqlen) {
    using A = compute_scalar<S>;
    if (q.size() == 0) return;
    const index_t width = q.cols / heads;
    const index_t fitting = index_t(score_bytes / sizeof(A)) / (heads * seqlen);
    const index_t rows = std::clamp<index_t>(fitting, 1, std::min(query_rows, seqlen));
    DeviceMatrix<A> scores(heads * rows, seqlen);
    DeviceMatrix<S> weights;
    if constexpr (is_storage_only<S>) weights.resize(heads * rows, seqlen);
    for (index_t window = 0; window < q.rows; window += seqlen)
      for (index_t first = 0; first < seqlen; first += rows) {
        const index_t queries = std::min(rows, seqlen - first), seen = first + queries;
        const MatrixView<A> s(scores.data(), heads * queries, seen);
        MatrixView<S> w(weights.data(), heads * queries, seen);
        if constexpr (!is_storage_only<S>) w = s;
        attend(out.block(window + first, 0, queries, q.cols),
               q.block(window + first, 0, queries, q.cols), k.block(window, 0, seen, q.cols),
               v.block(window, 0, seen, q.cols), s, w, heads, width, first);
      }
  }

 private:
  /// All heads of neighbouring queries of one window.
  template <class S, class A>
  static void attend(MatrixView<S> out, MatrixView<const S> q, MatrixView<const S> k,
                     MatrixView<const S> v, MatrixView<A> scores, MatrixView<S> weights,
                     index_t heads, index_t width, index_t first) {
    using Type = DeviceScalar<S>;
    constexpr auto accumulated = DeviceScalar<A>::data;
    const cublasHandle_t blas = Context::get().blas;
    const index_t queries = q.rows, seen = k.rows, step = queries * seen;
    const A scale = A(1 / std::sqrt(double(width))), one = 1, zero = 0;
    check(cublasGemmStridedBatchedEx_64(blas, CUBLAS_OP_T, CUBLAS_OP_N, seen, queries, width,
                                        &scale, k.data, Type::data, k.stride, width, q.data,
                                        Type::data, q.stride, width, &zero, scores.data,
                                        accumulated, seen, step, heads, Type::compute,
                                        CUBLAS_GEMM_DEFAULT),
          "cublasGemmStridedBatchedEx");
    causal_softmax<<<unsigned(scores.rows), row_threads, 0, stream()>>>(MatrixView<const A>(scores),
                                                                        native(weights), queries,
                                                                        first);
    check_launch("causal_softmax");
    check(cublasGemmStridedBatchedEx_64(blas, CUBLAS_OP_N, CUBLAS_OP_N, width, queries, seen, &one,
                                        v.data, Type::data, v.stride, width, weights.data,
                                        Type::data, seen, step, &zero, out.data, Type::data,
                                        out.stride, width, heads, Type::compute,
                                        CUBLAS_GEMM_DEFAULT),
          "cublasGemmStridedBatchedEx");
  }
};

}  // namespace pare::backend::cuda
