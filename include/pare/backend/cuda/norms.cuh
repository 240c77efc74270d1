// Norms of the rows of a model's activations.
#pragma once

#include <cmath>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/vectors.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// What a norm does to rows of numbers that are stored as N: each is divided by the root of its mean
/// square plus epsilon, after its mean was taken away where that is asked for; then times
/// offset + weight, plus bias, where there are any.
template <class N>
struct NormRule {
  MatrixView<const N> weight, bias;  // (1, cols) or no rows
  wide<N> epsilon;
  wide<N> offset;
  bool centered;  ///< whether the mean is taken away
};

/// The sum of a number over the threads of a row, in an order that depends on nothing but the thread.
/// @tparam Threads  of a row: a power of two up to 32, or those of a block
template <int Threads, class A>
__device__ A row_sum(A value) {
  for (int step = (Threads < 32 ? Threads : 32) / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(~0u, value, step);
  if constexpr (Threads > 32) {
    __shared__ A shared[Threads / 32];
    __syncthreads();  // the last call's values have been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
    for (int w = 1; w < Threads / 32; ++w) value += shared[w];
  }
  return value;
}

/// Vectors of a row that a thread of norm_kernel keeps.
inline constexpr int norm_vectors = 4;

/// Y = norm of the rows of X, which stay in registers between the passes over them. Y may be X.
/// @tparam Threads  of a row, see row_sum: cols <= norm_vectors * Threads * numbers of a vector
template <class N, int Threads>
__global__ void __launch_bounds__(row_threads)
    norm_kernel(MatrixView<N> Y, MatrixView<const N> X, NormRule<N> rule) {
  using A = wide<N>;
  constexpr int each = Vector<N>::size;
  const index_t i = index_t(blockIdx.x) * (blockDim.x / Threads) + threadIdx.x / Threads;
  const index_t first = index_t(threadIdx.x % Threads) * each;
  const index_t columns = i < X.rows ? X.cols : 0;  // lanes of a warp sum together to the end
  Vector<N> x[norm_vectors];
  // f(number, column) of all numbers of the thread.
  const auto for_all = [&](const auto& f) {
#pragma unroll
    for (int v = 0; v < norm_vectors; ++v) {
      const index_t j = first + index_t(v) * Threads * each;
      if (j < columns) f(x[v], j);
    }
  };
  for_all([&](Vector<N>& vector, index_t j) { vector = load_vector<Vector<N>>(X.row(i) + j); });
  A mean = 0, squares = 0;
  if (rule.centered) {
    for_all([&](const Vector<N>& vector, index_t) {
#pragma unroll
      for (int e = 0; e < each; ++e) mean += widen(vector.at[e]);
    });
    mean = row_sum<Threads>(mean) / A(columns);
  }
  for_all([&](const Vector<N>& vector, index_t) {
#pragma unroll
    for (int e = 0; e < each; ++e) {
      const A d = widen(vector.at[e]) - mean;
      squares += d * d;
    }
  });
  const A factor = A(1) / sqrt(row_sum<Threads>(squares) / A(columns) + rule.epsilon);
  for_all([&](Vector<N>& vector, index_t j) {
    A y[each];
#pragma unroll
    for (int e = 0; e < each; ++e) y[e] = (widen(vector.at[e]) - mean) * factor;
    if (rule.weight.rows > 0) {
      const Vector<N> weight = load_vector<Vector<N>>(rule.weight.data + j);
#pragma unroll
      for (int e = 0; e < each; ++e) y[e] *= rule.offset + widen(weight.at[e]);
    }
    if (rule.bias.rows > 0) {
      const Vector<N> bias = load_vector<Vector<N>>(rule.bias.data + j);
#pragma unroll
      for (int e = 0; e < each; ++e) y[e] += widen(bias.at[e]);
    }
#pragma unroll
    for (int e = 0; e < each; ++e) vector.at[e] = narrow<N>(y[e]);
    store_vector(Y.row(i) + j, vector);
  });
}

/// The same for rows of any length that lie anywhere, a number at a time.
/// @tparam Threads  of a row, 32, or row_threads
template <class N, int Threads>
__global__ void __launch_bounds__(row_threads)
    plain_norm_kernel(MatrixView<N> Y, MatrixView<const N> X, NormRule<N> rule) {
  using A = wide<N>;
  const index_t i = index_t(blockIdx.x) * (row_threads / Threads) + threadIdx.x / Threads;
  if (i >= X.rows) return;
  const index_t first = threadIdx.x % Threads;
  A mean = 0, squares = 0;
  if (rule.centered) {
    for (index_t j = first; j < X.cols; j += Threads) mean += widen(X(i, j));
    mean = row_sum<Threads>(mean) / A(X.cols);
  }
  for (index_t j = first; j < X.cols; j += Threads) {
    const A d = widen(X(i, j)) - mean;
    squares += d * d;
  }
  const A factor = A(1) / sqrt(row_sum<Threads>(squares) / A(X.cols) + rule.epsilon);
  for (index_t j = first; j < X.cols; j += Threads) {
    A y = (widen(X(i, j)) - mean) * factor;
    if (rule.weight.rows > 0) y *= rule.offset + widen(rule.weight(0, j));
    if (rule.bias.rows > 0) y += widen(rule.bias(0, j));
    Y(i, j) = narrow<N>(y);
  }
}

/// Y = norm of the rows of X (rows, cols). Y may be X.
template <class N>
void norm_rows(MatrixView<N> Y, MatrixView<const N> X, const NormRule<N>& rule) {
  if (X.size() == 0) return;
  const auto launch = [&](auto kernel, int threads_of_row, int threads) {
    const index_t rows = threads / threads_of_row;
    kernel<<<unsigned((X.rows + rows - 1) / rows), threads, 0, stream()>>>(Y, X, rule);
    check_launch("norm_kernel");
  };
  constexpr index_t reach = norm_vectors * Vector<N>::size;  // columns of a thread
  const bool vectors = whole_vectors(Y) && whole_vectors(X) &&
                       (rule.weight.rows == 0 || whole_vectors(rule.weight)) &&
                       (rule.bias.rows == 0 || whole_vectors(rule.bias));
  if (vectors && X.cols <= 8 * reach)
    launch(norm_kernel<N, 8>, 8, row_threads);
  else if (vectors && X.cols <= 32 * reach)
    launch(norm_kernel<N, 32>, 32, row_threads);
  else if (vectors && X.cols <= 128 * reach)
    launch(norm_kernel<N, 128>, 128, 128);
  else if (vectors && X.cols <= row_threads * reach)
    launch(norm_kernel<N, row_threads>, row_threads, row_threads);
  else if (X.cols <= row_threads)
    launch(plain_norm_kernel<N, 32>, 32, row_threads);
  else
    launch(plain_norm_kernel<N, row_threads>, row_threads, row_threads);
}

}  // namespace pare::backend::cuda
