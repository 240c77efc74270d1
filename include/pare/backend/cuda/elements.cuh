// Element-wise work, searches and moments.
#pragma once

#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>

#include <algorithm>

#include "pare/backend/cuda/columns.cuh"
#include "pare/backend/cuda/fit.cuh"
#include "pare/backend/cuda/rows.cuh"
#include "pare/backend/cuda/storage.cuh"
#include "pare/backend/cuda/vectors.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Thrust's policy: the thread's stream, buffers from the pool.
inline auto policy() { return thrust::cuda::par_nosync(PoolAllocator{}).on(stream()); }

/// f(row, column), a thread per element. Thrust walks one dimension only, and a division per
/// element would cost more than most functors.
template <class F>
__global__ void element_kernel(index_t rows, index_t cols, F f) {
  const index_t c = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= cols) return;
  for (index_t r = blockIdx.y; r < rows; r += gridDim.y) f(r, c);
}

inline constexpr int finite_threads = 256;

/// first = the lowest flat row-major index of an element that is NaN or infinite; unchanged where there is
/// none.
template <class T>
__global__ void __launch_bounds__(finite_threads)
    first_non_finite(MatrixView<const T> A, unsigned long long* first) {
  unsigned long long mine = ~0ull;
  const index_t threads = index_t(gridDim.x) * finite_threads;
  const index_t me = index_t(blockIdx.x) * finite_threads + threadIdx.x;
  if (A.stride == A.cols || A.rows == 1) {
    constexpr int width = int(16 / sizeof(T));
    const bool aligned = reinterpret_cast<std::uintptr_t>(A.data) % 16 == 0;
    const index_t size = A.size(), chunks = aligned ? size / width : 0;
#pragma unroll 4
    for (index_t i = me; i < chunks; i += threads) {
      const uint4 chunk = reinterpret_cast<const uint4*>(A.data)[i];
      const T* const x = reinterpret_cast<const T*>(&chunk);
      for (int k = width - 1; k >= 0; --k)
        if (!isfinite(widen(x[k]))) mine = min(mine, 0ull + i * width + k);
    }
    for (index_t i = chunks * width + me; i < size; i += threads)
      if (!isfinite(widen(A.data[i]))) mine = min(mine, 0ull + i);
  } else {
    for (index_t r = blockIdx.x; r < A.rows; r += gridDim.x)
      for (index_t c = threadIdx.x; c < A.cols; c += finite_threads)
        if (!isfinite(widen(A(r, c)))) mine = min(mine, 0ull + r * A.cols + c);
  }
  if (mine != ~0ull) atomicMin(first, mine);  // seldom
}

inline constexpr int moment_rows = 256;  ///< of one partial sum
inline constexpr int moment_threads_x = 32, moment_threads_y = 8;

/// Sums of |x|, x - s and (x - s)^2 over a strip of rows for each column, s = X(0, column): a mean
/// far above the spread does not cost the variance its digits.
/// @param sums  (strips, 3 * cols)
template <class T>
__global__ void moment_sums(MatrixView<const T> X, MatrixView<double> sums) {
  __shared__ double shared[3][moment_threads_y][moment_threads_x];
  const index_t j = index_t(blockIdx.x) * moment_threads_x + threadIdx.x;
  const index_t begin = index_t(blockIdx.y) * moment_rows;
  const index_t end = min(X.rows, begin + moment_rows);
  double magnitude = 0, sum = 0, squares = 0;
  if (j < X.cols) {
    const double shift = double(widen(X(0, j)));
#pragma unroll 4
    for (index_t t = begin + threadIdx.y; t < end; t += moment_threads_y) {
      const double x = double(widen(X(t, j))), d = x - shift;
      magnitude += std::abs(x);
      sum += d;
      squares += d * d;
    }
  }
  shared[0][threadIdx.y][threadIdx.x] = magnitude;
  shared[1][threadIdx.y][threadIdx.x] = sum;
  shared[2][threadIdx.y][threadIdx.x] = squares;
  __syncthreads();
  if (threadIdx.y >= 3 || j >= X.cols) return;
  double total = 0;
  for (int y = 0; y < moment_threads_y; ++y) total += shared[threadIdx.y][y][threadIdx.x];
  sums(blockIdx.y, threadIdx.y * X.cols + j) = total;
}

/// Adds the strips of moment_sums in order and turns them into moments.
template <class T>
struct FinishMoments {
  MatrixView<const T> X;
  MatrixView<const double> sums;  // (strips, 3 * cols)
  MatrixView<double> moments;     // (3, cols)
  __device__ void operator()(index_t j) const {
    double total[3] = {};
    for (index_t s = 0; s < sums.rows; ++s)
      for (int m = 0; m < 3; ++m) total[m] += sums(s, m * X.cols + j);
    const double n = double(X.rows), square = total[2] - total[1] * total[1] / n;
    moments(0, j) = total[0] / n;
    moments(1, j) = double(widen(X(0, j))) + total[1] / n;
    moments(2, j) = square > 0 ? square : 0;
  }
};

/// What first_non_finite() found, on its way to the host.
struct FirstNonFinite {
  Download<unsigned long long> first;
  /// Waits for the copy. @return a flat row-major index, -1 where all numbers are finite
  index_t get() { return index_t(first.get()(0, 0)); }
};

/// The loops of a Backend.
struct Elements {
  template <class F>
  static void for_each_row(index_t n, const F& f) {
    if (n > 0) thrust::for_each_n(policy(), thrust::counting_iterator<index_t>(0), n, f);
  }

  template <class R>
  static void reduce_rows(index_t n, const R& reduction) {
    if (!tuned_rows(n, reduction)) cuda::reduce_rows(n, reduction);
  }

  template <class T>
  static void fit_grids(const kernels::GridFit<T>& fit) {
    cuda::fit_grids(fit);
  }

  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    if (rows == 0 || cols == 0 || tuned_elements(rows, cols, f) || vector_elements(rows, cols, f))
      return;
    constexpr int threads = 256;
    const dim3 blocks(unsigned((cols + threads - 1) / threads),
                      unsigned(std::min<index_t>(rows, 65535)));
    element_kernel<<<blocks, threads, 0, stream()>>>(rows, cols, f);
    check_launch("element_kernel");
  }

  template <class T>
  static FirstNonFinite start_find_non_finite(MatrixView<const T> A) {
    DeviceMatrix<unsigned long long> first(1, 1);
    check(cudaMemsetAsync(first.data(), 0xff, sizeof(unsigned long long), stream()),
          "cudaMemsetAsync");
    const index_t blocks =
        std::clamp<index_t>((A.size() + 16 * finite_threads - 1) / (16 * finite_threads), 1,
                            8 * Context::get().multiprocessors);
    first_non_finite<<<unsigned(blocks), finite_threads, 0, stream()>>>(native(A), first.data());
    check_launch("first_non_finite");
    return {Download<unsigned long long>(first.view())};
  }
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    return start_find_non_finite(A).get();
  }

  template <class T>
  static void column_moments(MatrixView<const T> X, MatrixView<double> moments) {
    const index_t strips = (X.rows + moment_rows - 1) / moment_rows;
    DeviceMatrix<double> sums(strips, 3 * X.cols);
    const dim3 blocks(unsigned((X.cols + moment_threads_x - 1) / moment_threads_x),
                      unsigned(strips));
    const auto x = native(X);
    moment_sums<<<blocks, dim3(moment_threads_x, moment_threads_y), 0, stream()>>>(x, sums.view());
    check_launch("moment_sums");
    for_each_row(X.cols, FinishMoments<device_scalar<T>>{x, sums.view(), moments});
  }
};

}  // namespace pare::backend::cuda
