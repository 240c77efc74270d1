// Causal attention: one kernel where heads fit it, otherwise batched products over the heads with the
// softmax between them.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/flash_attention.cuh"
#include "pare/backend/cuda/product.cuh"
#include "pare/kernels/attention.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Most queries of a window that are done together; what lies behind the last of them is skipped.
inline constexpr index_t query_rows = 512;
/// Bytes of scores that are held at a time.
inline constexpr std::size_t score_bytes = std::size_t{256} << 20;

/// Turns products of queries and keys into weights, both (heads * queries, keys). Row h * queries + r
/// belongs to query first + r of head h, column j to key `oldest` + j; the weights of keys that a
/// query does not see become zero. `weights` may be the memory of `scores`, which are scaled already.
/// A block of threads per row.
template <class A, class N>
__global__ void __launch_bounds__(row_threads)
    attention_softmax(MatrixView<A> scores, MatrixView<N> weights, MatrixView<const A> slopes,
                      index_t queries, index_t first, index_t oldest,
                      kernels::AttentionShape shape) {
  const index_t row = blockIdx.x, query = first + row % queries;
  const index_t begin = shape.oldest(query) - oldest, end = query + 1 - oldest;
  A* s = scores.row(row);
  if (shape.soft_cap > 0 || slopes.rows > 0) {
    // A thread reads below what it writes here.
    const A cap = A(shape.soft_cap), slope = slopes.rows > 0 ? slopes(0, row / queries) : A(0);
    for (index_t j = begin + threadIdx.x; j < end; j += row_threads) {
      const A score = cap > A(0) ? cap * tanh(s[j] / cap) : s[j];
      s[j] = score + slope * A(j + 1 - end);
    }
  }
  A largest = -std::numeric_limits<A>::infinity();
  for (index_t j = begin + threadIdx.x; j < end; j += row_threads)
    largest = s[j] > largest ? s[j] : largest;
  largest = block_combine(largest, [](A a, A b) { return a > b ? a : b; });
  A sum = 0;
  for (index_t j = begin + threadIdx.x; j < end; j += row_threads) sum += exp(s[j] - largest);
  const A factor = A(1) / block_sum(sum);
  // The same threads for the same columns: weights may lie where the scores do.
  for (index_t j = threadIdx.x; j < begin; j += row_threads) weights(row, j) = narrow<N>(A(0));
  for (index_t j = begin + threadIdx.x; j < scores.cols; j += row_threads)
    weights(row, j) = narrow<N>(j < end ? exp(s[j] - largest) * factor : A(0));
}

/// The attention of a ModelBackend.
struct Attention {
  template <class S>
  static void attention(MatrixView<S> out, MatrixView<const S> q, MatrixView<const S> k,
                        MatrixView<const S> v, MatrixView<const compute_scalar<S>> slopes,
                        const kernels::AttentionShape& shape) {
    using A = compute_scalar<S>;
    if (q.size() == 0) return;
    constexpr bool in_parts = std::is_same_v<S, float>;
    if constexpr (in_parts || is_storage_only<S>)
      if ((!in_parts || precision() == Precision::split) &&
          with_tuning(Context::get().compute_capability, [&]<class Tuning>(Tuning) {
            return flash_attention<Tuning>(native(out), native(q), native(k), native(v), slopes,
                                           shape);
          }))
        return;
    const index_t seqlen = shape.seqlen;
    const index_t fitting = index_t(score_bytes / sizeof(A)) / (shape.heads * seqlen);
    const index_t rows = std::clamp<index_t>(fitting, 1, std::min(query_rows, seqlen));
    const index_t most_keys = std::min(seqlen, shape.window > 0 ? shape.window + rows : seqlen);
    DeviceMatrix<A> scores(shape.heads * rows, most_keys);
    DeviceMatrix<S> weights;
    if constexpr (is_storage_only<S>) weights.resize(shape.heads * rows, most_keys);
    for (index_t window = 0; window < q.rows; window += seqlen)
      for (index_t first = 0; first < seqlen; first += rows) {
        const index_t queries = std::min(rows, seqlen - first);
        const index_t oldest = shape.oldest(first), seen = first + queries - oldest;
        const MatrixView<A> s(scores.data(), shape.heads * queries, seen);
        MatrixView<S> w(weights.data(), shape.heads * queries, seen);
        if constexpr (!is_storage_only<S>) w = s;
        const MatrixView<S> mixed = out.block(window + first, 0, queries, out.cols);
        multiply_by_keys(s, q.block(window + first, 0, queries, q.cols),
                         k.block(window + oldest, 0, seen, k.cols), shape);
        attention_softmax<<<unsigned(s.rows), row_threads, 0, stream()>>>(s, native(w), slopes,
                                                                          queries, first, oldest,
                                                                          shape);
        check_launch("attention_softmax");
        multiply_by_values(mixed, MatrixView<const S>(w), v.block(window + oldest, 0, seen, v.cols),
                           shape);
      }
  }

 private:
  /// Query heads for one batched product: head, head + step, ..., `count` of them. Their key-value
  /// heads are kv_step apart, 0 where all read the same one.
  struct Batch {
    index_t head, step, kv_head, kv_step, count;
  };

  /// Calls f(batch) until every head was in one. A stride reaches one member of every group, or all
  /// members of one group; whatever takes fewer products.
  template <class F>
  static void for_each_batch(const kernels::AttentionShape& shape, const F& f) {
    const index_t group = shape.group();
    if (group <= shape.kv_heads)
      for (index_t member = 0; member < group; ++member)
        f(Batch{member, group, 0, 1, shape.kv_heads});
    else
      for (index_t kv = 0; kv < shape.kv_heads; ++kv) f(Batch{kv * group, 1, kv, 0, group});
  }

  /// scores (heads * queries, seen) = scale * q k^T, head by head.
  template <class S, class A>
  static void multiply_by_keys(MatrixView<A> scores, MatrixView<const S> q, MatrixView<const S> k,
                               const kernels::AttentionShape& shape) {
    using Type = DeviceScalar<S>;
    const index_t queries = q.rows, seen = k.rows, step = queries * seen;
    const A scale = A(shape.scale), zero = 0;
    for_each_batch(shape, [&](const Batch& b) {
      check(cublasGemmStridedBatchedEx_64(
                Context::get().blas, CUBLAS_OP_T, CUBLAS_OP_N, seen, queries, shape.head_dim,
                &scale, k.data + b.kv_head * shape.kv_step, Type::data, k.stride,
                b.kv_step * shape.kv_step, q.data + b.head * shape.q_step, Type::data, q.stride,
                b.step * shape.q_step, &zero, scores.data + b.head * step, DeviceScalar<A>::data,
                seen, b.step * step, b.count, Type::compute, CUBLAS_GEMM_DEFAULT),
            "cublasGemmStridedBatchedEx");
    });
  }

  /// out (queries, heads * head_dim) = weights v, head by head.
  template <class S>
  static void multiply_by_values(MatrixView<S> out, MatrixView<const S> weights,
                                 MatrixView<const S> v, const kernels::AttentionShape& shape) {
    using Type = DeviceScalar<S>;
    const index_t queries = out.rows, seen = v.rows, step = queries * seen;
    const index_t width = shape.head_dim;
    const compute_scalar<S> one = 1, zero = 0;
    for_each_batch(shape, [&](const Batch& b) {
      check(cublasGemmStridedBatchedEx_64(Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, width,
                                          queries, seen, &one, v.data + b.kv_head * shape.kv_step,
                                          Type::data, v.stride, b.kv_step * shape.kv_step,
                                          weights.data + b.head * step, Type::data, seen,
                                          b.step * step, &zero, out.data + b.head * width,
                                          Type::data, out.stride, b.step * width, b.count,
                                          Type::compute, CUBLAS_GEMM_DEFAULT),
            "cublasGemmStridedBatchedEx");
    });
  }
};

}  // namespace pare::backend::cuda
