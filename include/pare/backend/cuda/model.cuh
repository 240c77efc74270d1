// The operations of a model's forward pass.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "pare/backend/cuda/attention.cuh"
#include "pare/backend/cuda/biased_product.cuh"
#include "pare/backend/cuda/elements.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Each row to mean 0 and variance 1, then times weight plus bias where there are any. Y may be X:
/// a thread writes what it alone reads. A block of threads per row.
template <class N>
__global__ void __launch_bounds__(row_threads)
    layer_norm_kernel(MatrixView<N> Y, MatrixView<const N> X, MatrixView<const N> weight,
                      MatrixView<const N> bias, wide<N> epsilon) {
  using A = wide<N>;
  const index_t i = blockIdx.x;
  A sum = 0, squares = 0;
  for (index_t j = threadIdx.x; j < X.cols; j += row_threads) sum += widen(X(i, j));
  const A mean = block_sum(sum) / A(X.cols);
  for (index_t j = threadIdx.x; j < X.cols; j += row_threads) {
    const A d = widen(X(i, j)) - mean;
    squares += d * d;
  }
  const A factor = A(1) / sqrt(block_sum(squares) / A(X.cols) + epsilon);
  for (index_t j = threadIdx.x; j < X.cols; j += row_threads) {
    A y = (widen(X(i, j)) - mean) * factor;
    if (weight.rows > 0) y *= widen(weight(0, j));
    if (bias.rows > 0) y += widen(bias(0, j));
    Y(i, j) = narrow<N>(y);
  }
}

/// Each row divided by the root of its mean square, then times offset + weight where there is one.
/// Y may be X: a thread writes what it alone reads. A block of threads per row, or a warp where rows
/// are as short as the heads that are normed one by one.
/// @tparam Threads  per row: row_threads or 32
template <class N, int Threads>
__global__ void __launch_bounds__(row_threads)
    rms_norm_kernel(MatrixView<N> Y, MatrixView<const N> X, MatrixView<const N> weight,
                    wide<N> epsilon, wide<N> offset) {
  using A = wide<N>;
  const index_t i = index_t(blockIdx.x) * (row_threads / Threads) + threadIdx.x / Threads;
  if (i >= X.rows) return;
  const index_t first = threadIdx.x % Threads;
  A squares = 0;
  for (index_t j = first; j < X.cols; j += Threads) {
    const A x = widen(X(i, j));
    squares += x * x;
  }
  if constexpr (Threads == row_threads)
    squares = block_sum(squares);
  else
    for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(~0u, squares, step);
  const A factor = A(1) / sqrt(squares / A(X.cols) + epsilon);
  for (index_t j = first; j < X.cols; j += Threads) {
    A y = widen(X(i, j)) * factor;
    if (weight.rows > 0) y *= offset + widen(weight(0, j));
    Y(i, j) = narrow<N>(y);
  }
}

/// losses(0, t) = log(sum exp(row t)) - row t[target], 0 without a target. Sums are in double.
template <class N>
__global__ void __launch_bounds__(row_threads)
    cross_entropy_kernel(MatrixView<const N> logits, MatrixView<const std::int32_t> targets,
                         MatrixView<double> losses) {
  using A = wide<N>;
  const index_t t = blockIdx.x;
  const N* row = logits.row(t);
  const std::int32_t target = targets(0, t);
  A largest = -std::numeric_limits<A>::infinity();
  for (index_t j = threadIdx.x; j < logits.cols; j += row_threads) {
    const A x = widen(row[j]);
    largest = x > largest ? x : largest;
  }
  largest = block_combine(largest, [](A a, A b) { return a > b ? a : b; });
  double sum = 0;
  for (index_t j = threadIdx.x; j < logits.cols; j += row_threads)
    sum += double(exp(widen(row[j]) - largest));
  sum = block_sum(sum);
  if (threadIdx.x > 0) return;
  losses(0, t) = target < 0 ? 0 : log(sum) + double(largest) - double(widen(row[target]));
}

/// Every row of Y = the row given.
template <class N>
struct RepeatRow {
  MatrixView<N> Y;
  MatrixView<const N> row;  // (1, cols)
  __device__ void operator()(index_t r, index_t c) const { Y(r, c) = row(0, c); }
};

/// Y += X.
template <class N>
struct AddTo {
  MatrixView<N> Y;
  MatrixView<const N> X;
  __device__ void operator()(index_t r, index_t c) const {
    Y(r, c) = narrow<N>(widen(Y(r, c)) + widen(X(r, c)));
  }
};

/// Row r of Y += row r % seqlen of a table.
template <class N>
struct AddPositions {
  MatrixView<N> Y;
  MatrixView<const N> table;
  index_t seqlen;
  __device__ void operator()(index_t r, index_t c) const {
    Y(r, c) = narrow<N>(widen(Y(r, c)) + widen(table(r % seqlen, c)));
  }
};

template <class N>
struct GatherRows {
  MatrixView<N> Y;
  MatrixView<const N> table;
  MatrixView<const std::int32_t> ids;  // (1, rows of Y)
  __device__ void operator()(index_t r, index_t c) const { Y(r, c) = table(index_t(ids(0, r)), c); }
};

/// What ModelBackend asks for, for float, double, and 16-bit storage computed with in float.
struct ModelOps : Attention {
  template <class S>
  static void linear(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> W,
                     MatrixView<const S> bias) {
    using Type = DeviceScalar<S>;
    using A = compute_scalar<S>;
    if (Y.size() == 0) return;
    if constexpr (is_storage_only<S>)
      if (bias.rows > 0) return biased_product(Y, X, W, bias);
    // The product adds to what is there.
    const A one = 1, beta = bias.rows > 0 ? 1 : 0;
    if (bias.rows > 0)
      Elements::for_each_element(Y.rows, Y.cols,
                                 RepeatRow<device_scalar<S>>{native(Y), native(bias)});
    if constexpr (std::is_same_v<S, float>)
      if (splits(Y.rows, Y.cols, X.cols))
        return split_product(1, {X, Lines::rows}, {W, Lines::rows}, beta, Y);
    check(cublasGemmEx_64(Context::get().blas, CUBLAS_OP_T, CUBLAS_OP_N, Y.cols, Y.rows, X.cols,
                          &one, W.data, Type::data, W.stride, X.data, Type::data, X.stride, &beta,
                          Y.data, Type::data, Y.stride, Type::compute, CUBLAS_GEMM_DEFAULT),
          "cublasGemmEx");
  }

  template <class S>
  static void layer_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                         MatrixView<const S> bias, double epsilon = 1e-5) {
    if (X.size() == 0) return;
    using N = device_scalar<S>;
    layer_norm_kernel<N>
        <<<unsigned(X.rows), row_threads, 0, stream()>>>(native(Y), native(X), native(weight),
                                                         native(bias), wide<N>(epsilon));
    check_launch("layer_norm_kernel");
  }

  template <class S>
  static void rms_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                       double epsilon, double offset) {
    if (X.size() == 0) return;
    using N = device_scalar<S>;
    using A = wide<N>;
    const auto launch = [&](auto kernel, index_t blocks) {
      kernel<<<unsigned(blocks), row_threads, 0, stream()>>>(native(Y), native(X), native(weight),
                                                             A(epsilon), A(offset));
      check_launch("rms_norm_kernel");
    };
    if (X.cols > row_threads)
      launch(rms_norm_kernel<N, row_threads>, X.rows);
    else
      launch(rms_norm_kernel<N, 32>, (X.rows + row_warps - 1) / row_warps);
  }

  template <class S>
  static void add(MatrixView<S> Y, MatrixView<const S> X) {
    Elements::for_each_element(Y.rows, Y.cols, AddTo<device_scalar<S>>{native(Y), native(X)});
  }

  template <class S>
  static void embed_tokens(MatrixView<S> Y, MatrixView<const S> table,
                           MatrixView<const std::int32_t> ids) {
    Elements::for_each_element(Y.rows, Y.cols,
                               GatherRows<device_scalar<S>>{native(Y), native(table), ids});
  }

  template <class S>
  static void add_positions(MatrixView<S> Y, MatrixView<const S> table, index_t seqlen) {
    Elements::for_each_element(Y.rows, Y.cols,
                               AddPositions<device_scalar<S>>{native(Y), native(table), seqlen});
  }

  template <class S>
  static double cross_entropy(MatrixView<const S> logits, MatrixView<const std::int32_t> targets) {
    if (logits.size() == 0) return 0;
    DeviceMatrix<double> losses(1, logits.rows);
    cross_entropy_kernel<<<unsigned(logits.rows), row_threads, 0, stream()>>>(native(logits),
                                                                              targets,
                                                                              losses.view());
    check_launch("cross_entropy_kernel");
    const Matrix<double> host = DeviceMemory::to_host(std::as_const(losses).view());
    double total = 0;
    for (index_t t = 0; t < host.size(); ++t) total += host(0, t);
    return total;
  }
};

}  // namespace pare::backend::cuda
