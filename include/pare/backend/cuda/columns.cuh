// Loops over elements and rows that have a faster form here: zeros, permuted columns, counts of marks, faults
// of rows.
#pragma once

#include <algorithm>
#include <cstddef>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/rows.cuh"
#include "pare/backend/cuda/vectors.cuh"
#include "pare/kernels/checks.hpp"
#include "pare/kernels/counts.hpp"
#include "pare/kernels/elements.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

inline constexpr int permute_threads = 512;
inline constexpr index_t permute_bytes = 64 * 1024;  ///< of shared memory for the rows of a block

/// to(r, p) = from(r, order[p]), or to(r, order[p]) = from(r, p): some rows per block go through shared
/// memory, so that device memory is read and written in order.
template <bool Scatter, class T>
__global__ void __launch_bounds__(permute_threads)
    permute_columns(MatrixView<const T> from, MatrixView<T> to, const index_t* order,
                    int rows_of_block) {
  extern __shared__ __align__(16) unsigned char memory[];
  T* const tile = reinterpret_cast<T*>(memory);
  const int cols = int(from.cols);
  const index_t first = index_t(blockIdx.x) * rows_of_block;
  const int rows = int(min(index_t(rows_of_block), from.rows - first));
  for (int c = threadIdx.x; c < cols; c += permute_threads) {
    const int at = Scatter ? int(order[c]) : c;
    for (int r = 0; r < rows; ++r) tile[r * cols + at] = from(first + r, c);
  }
  __syncthreads();
  for (int c = threadIdx.x; c < cols; c += permute_threads) {
    const int at = Scatter ? c : int(order[c]);
    for (int r = 0; r < rows; ++r) to(first + r, c) = tile[r * cols + at];
  }
}

/// false where a row does not fit into shared memory.
template <bool Scatter, class T>
bool permuted_columns(MatrixView<const T> from, MatrixView<T> to, const index_t* order) {
  const index_t row_bytes = from.cols * index_t(sizeof(T));
  if (from.cols != to.cols || row_bytes > permute_bytes) return false;
  const index_t rows = std::clamp<index_t>(permute_bytes / row_bytes, 1, 4);
  const auto kernel = permute_columns<Scatter, T>;
  allow_shared(kernel, int(permute_bytes));
  kernel<<<unsigned((from.rows + rows - 1) / rows), permute_threads, std::size_t(rows * row_bytes),
           stream()>>>(from, to, order, int(rows));
  check_launch("permute_columns");
  return true;
}

/// Runs f over all elements if it has a faster form; false otherwise.
template <class F>
bool tuned_elements(index_t, index_t, const F&) {
  return false;
}
template <class T>
bool tuned_elements(index_t, index_t, const kernels::GatherColumns<T>& f) {
  return permuted_columns<false>(f.from, f.to, f.order);
}
template <class T>
bool tuned_elements(index_t, index_t, const kernels::ScatterColumns<T>& f) {
  return permuted_columns<true>(f.from, f.to, f.order);
}
template <class U>
bool tuned_elements(index_t rows, index_t cols, const kernels::SetZero<U>& f) {
  if (rows > 1 && f.A.stride != cols) return false;
  check(cudaMemsetAsync(f.A.data, 0, std::size_t(rows * cols) * sizeof(U), stream()),
        "cudaMemsetAsync");
  return true;
}

inline constexpr int count_threads = 256, count_rows = 8;

/// CountBlocks over some rows per block of threads, a warp for each block of columns.
template <class T>
__global__ void __launch_bounds__(count_threads) count_blocks(kernels::CountBlocks<T> count) {
  const index_t first = index_t(blockIdx.x) * count_rows;
  const int rows = int(min(index_t(count_rows), count.mask.rows - first));
  const int lane = threadIdx.x % 32;
  for (index_t b = threadIdx.x / 32; b < count.counts.cols; b += count_threads / 32) {
    const index_t begin = b * count.block_size;
    const index_t end = min(begin + count.block_size, count.mask.cols);
    int marked = 0;  // of row `lane`
    for (index_t p = begin + lane; p - lane < end; p += 32) {
      const index_t column = p < end ? count.order[p] : -1;
      std::uint8_t marks[count_rows];
#pragma unroll
      for (int r = 0; r < count_rows; ++r)
        marks[r] = column >= 0 && r < rows ? count.mask(first + r, column) : 0;
#pragma unroll
      for (int r = 0; r < count_rows; ++r) {
        const int found = __popc(__ballot_sync(~0u, marks[r] != 0));
        if (lane == r) marked += found;
      }
    }
    if (lane < rows) count.counts(first + lane, b) = T(marked);
  }
}

/// RowFaults that takes four weights at a time and loads a grid once for neighbours that share it.
struct FaultsOfFour {
  using partial = kernels::RowFaults<float>::partial;
  using Weights = Vector<float>;
  static constexpr int size = Weights::size;

  kernels::RowFaults<float> rows;

  /// Whether rows of the weights and of the mask are whole vectors, as are the columns' grids, and no mask is
  /// given.
  static bool take(const kernels::RowFaults<float>& f) {
    const auto aligned = [](const void* p, std::size_t bytes) {
      return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
    };
    return f.given.rows == 0 && whole_vectors(f.weights) && f.mask.stride % size == 0 &&
           aligned(f.mask.data, size) && aligned(f.column_grid, size * sizeof(std::int32_t));
  }

  PARE_HOST_DEVICE index_t columns() const { return rows.weights.cols / size; }
  __device__ void add(index_t i, index_t v, partial& wrong) const {
    const auto q = load_vector<Weights>(rows.weights.row(i) + v * size);
    const auto marked = load_vector<Vector<std::uint8_t, size>>(rows.mask.row(i) + v * size);
    if (rows.grids.top.rows > 0) {
      const auto grid = load_vector<Vector<std::int32_t>>(rows.column_grid + v * size);
      float scale = 0, zero = 0, top = 0;
#pragma unroll
      for (int k = 0; k < size; ++k) {
        if (k == 0 || grid.at[k] != grid.at[k - 1]) {
          scale = rows.grids.scale(grid.at[k], i);
          zero = rows.grids.zero(grid.at[k], i);
          top = rows.grids.top(grid.at[k], i);
        }
        wrong[0] += !(round_to_grid(q.at[k], scale, zero, top) == q.at[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < size; ++k) wrong[1] += marked.at[k] != 0 && q.at[k] != 0;
  }
  __device__ void finish(index_t i, const partial& wrong) const { rows.finish(i, wrong); }
};

/// Runs a reduction over its rows if it has a faster form; false otherwise.
template <class R>
bool tuned_rows(index_t, const R&) {
  return false;
}
template <class T>
bool tuned_rows(index_t rows, const kernels::CountBlocks<T>& count) {
  if (rows == 0 || rows != count.rows()) return false;
  count_blocks<<<unsigned((count.mask.rows + count_rows - 1) / count_rows), count_threads, 0,
                 stream()>>>(count);
  check_launch("count_blocks");
  return true;
}
inline bool tuned_rows(index_t rows, const kernels::RowFaults<float>& faults) {
  if (!FaultsOfFour::take(faults)) return false;
  cuda::reduce_rows(rows, FaultsOfFour{faults});
  return true;
}

}  // namespace pare::backend::cuda
