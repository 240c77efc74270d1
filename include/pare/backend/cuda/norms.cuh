// Norms of the rows of a model's activations.
#pragma once

#include <cmath>
#include <type_traits>

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

/// Y = norm of the rows of X, which stay in registers between the passes over them. Y may be X. Which
/// thread has which columns does not depend on where the rows lie.
/// @tparam Threads  of a row, see row_sum: cols <= norm_vectors * Threads * numbers of a vector
/// @param vectors   whether all rows are whole vectors of 16 bytes
template <class N, int Threads>
__global__ void __launch_bounds__(row_threads)
    norm_kernel(MatrixView<N> Y, MatrixView<const N> X, NormRule<N> rule, bool vectors) {
  using A = wide<N>;
  using V = Vector<N>;
  constexpr int each = V::size;
  const index_t i = index_t(blockIdx.x) * (blockDim.x / Threads) + threadIdx.x / Threads;
  const int first = int(threadIdx.x % Threads) * each;
  const int columns = i < X.rows ? int(X.cols) : 0;  // lanes of a warp sum together to the end
  V x[norm_vectors];
  // f(vector, column of its first number, how many there are) for all vectors of the thread.
  const auto for_all = [&](const auto& f) {
#pragma unroll
    for (int v = 0; v < norm_vectors; ++v) {
      const int j = first + v * Threads * each;
      if (j < columns) f(x[v], j, vectors ? each : min(each, columns - j));
    }
  };
  const auto load = [&](V& to, const N* from, int count) {
    if (vectors) {
      to = load_vector<V>(from);
    } else {
#pragma unroll
      for (int e = 0; e < each; ++e)
        if (e < count) to.at[e] = from[e];
    }
  };
  for_all([&](V& vector, int j, int count) { load(vector, X.row(i) + j, count); });
  A mean = 0, squares = 0;
  if (rule.centered) {
    for_all([&](const V& vector, int, int count) {
#pragma unroll
      for (int e = 0; e < each; ++e)
        if (e < count) mean += widen(vector.at[e]);
    });
    mean = row_sum<Threads>(mean) / A(columns);
  }
  for_all([&](const V& vector, int, int count) {
#pragma unroll
    for (int e = 0; e < each; ++e) {
      const A d = widen(vector.at[e]) - mean;
      if (e < count) squares += d * d;
    }
  });
  const A factor = A(1) / sqrt(row_sum<Threads>(squares) / A(columns) + rule.epsilon);
  for_all([&](V& vector, int j, int count) {
    A y[each];
#pragma unroll
    for (int e = 0; e < each; ++e) y[e] = (widen(vector.at[e]) - mean) * factor;
    V other;
    if (rule.weight.rows > 0) {
      load(other, rule.weight.data + j, count);
#pragma unroll
      for (int e = 0; e < each; ++e) y[e] *= rule.offset + widen(other.at[e]);
    }
    if (rule.bias.rows > 0) {
      load(other, rule.bias.data + j, count);
#pragma unroll
      for (int e = 0; e < each; ++e) y[e] += widen(other.at[e]);
    }
#pragma unroll
    for (int e = 0; e < each; ++e) vector.at[e] = narrow<N>(y[e]);
    if (vectors) {
      store_vector(Y.row(i) + j, vector);
    } else {
#pragma unroll
      for (int e = 0; e < each; ++e)
        if (e < count) Y(i, j + e) = vector.at[e];
    }
  });
}

/// The same for rows of any length, a number at a time.
template <class N>
__global__ void __launch_bounds__(row_threads)
    long_norm_kernel(MatrixView<N> Y, MatrixView<const N> X, NormRule<N> rule) {
  using A = wide<N>;
  const index_t i = blockIdx.x, first = threadIdx.x;
  A mean = 0, squares = 0;
  if (rule.centered) {
    for (index_t j = first; j < X.cols; j += row_threads) mean += widen(X(i, j));
    mean = row_sum<row_threads>(mean) / A(X.cols);
  }
  for (index_t j = first; j < X.cols; j += row_threads) {
    const A d = widen(X(i, j)) - mean;
    squares += d * d;
  }
  const A factor = A(1) / sqrt(row_sum<row_threads>(squares) / A(X.cols) + rule.epsilon);
  for (index_t j = first; j < X.cols; j += row_threads) {
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
  const auto launch = [&]<int Threads>(std::integral_constant<int, Threads>) {
    constexpr index_t threads = Threads < 128 ? row_threads : Threads, rows = threads / Threads;
    const bool vectors = whole_vectors(Y) && whole_vectors(X) &&
                         (rule.weight.rows == 0 || whole_vectors(rule.weight)) &&
                         (rule.bias.rows == 0 || whole_vectors(rule.bias));
    norm_kernel<N, Threads>
        <<<unsigned((X.rows + rows - 1) / rows), threads, 0, stream()>>>(Y, X, rule, vectors);
    check_launch("norm_kernel");
  };
  constexpr index_t reach = norm_vectors * Vector<N>::size;  // columns of a thread
  if (X.cols <= 8 * reach) return launch(std::integral_constant<int, 8>{});
  if (X.cols <= 32 * reach) return launch(std::integral_constant<int, 32>{});
  if (X.cols <= 128 * reach) return launch(std::integral_constant<int, 128>{});
  if (X.cols <= row_threads * reach) return launch(std::integral_constant<int, row_threads>{});
  long_norm_kernel<N><<<unsigned(X.rows), row_threads, 0, stream()>>>(Y, X, rule);
  check_launch("long_norm_kernel");
}

}  // namespace pare::backend::cuda
