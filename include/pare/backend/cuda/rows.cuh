// Forms of the solver's row functors in which a block of threads shares a row.
//
// With a thread per row neighbouring threads read addresses a row apart, and a few thousand rows do
// not fill a GPU. `cooperative(f)` gives the form of a functor that has one; its operator()(row) is
// called by all threads of a block.
#pragma once

#include "pare/backend/cuda/fit.cuh"
#include "pare/importance/signals.hpp"
#include "pare/solver/count.hpp"
#include "pare/solver/verify.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

template <class F>
__global__ void __launch_bounds__(row_threads) row_kernel(F f) {
  f(index_t(blockIdx.x));
}

template <class F>
void launch_rows(index_t rows, const F& f) {
  row_kernel<<<unsigned(rows), row_threads, 0, stream()>>>(f);
  check_launch("row_kernel");
}

template <class T>
struct BlockFitRow : FitRow<T> {
  __device__ void operator()(index_t i) const {
    const Grid<T> grid = block_fit_grid(this->weights.row(i), this->weights.cols,
                                        int(this->bits[i * this->bits_step]), this->options);
    if (threadIdx.x > 0) return;
    this->scale(0, i) = grid.scale;
    this->zero(0, i) = grid.zero;
    this->top(0, i) = grid.top;
  }
};
template <class T>
BlockFitRow<T> cooperative(const FitRow<T>& f) {
  return {f};
}

template <class T>
struct BlockRowSums : detail::RowSums<T> {
  __device__ void operator()(index_t i) const {
    const T* w = this->weights.row(i);
    const T* p = this->product.row(i);
    const Grid<T> grid = block_fit_grid(w, this->weights.cols, this->bits, this->options);
    double projected = 0, quadratic = 0, magnitude = 0, distortion = 0, spread = 0;
    for (index_t j = threadIdx.x; j < this->weights.cols; j += row_threads) {
      const double d = double(w[j]) - double(round_to_grid(w[j], grid.scale, grid.zero, grid.top));
      projected += double(w[j]) * this->mean[j];
      quadratic += double(w[j]) * double(p[j]);
      magnitude += std::abs(double(w[j]));
      distortion += d * d * this->diagonal[j];
      spread += double(w[j]) * double(w[j]) * this->diagonal[j];
    }
    projected = block_sum(projected);
    quadratic = block_sum(quadratic);
    magnitude = block_sum(magnitude);
    distortion = block_sum(distortion);
    spread = block_sum(spread);
    if (threadIdx.x > 0) return;
    this->out(i, 0) = projected;
    this->out(i, 1) = quadratic;
    this->out(i, 2) = magnitude;
    this->out(i, 3) = distortion;
    this->out(i, 4) = spread;
  }
};
template <class T>
BlockRowSums<T> cooperative(const detail::RowSums<T>& f) {
  return {f};
}

template <class T>
struct BlockVerifyRow : detail::VerifyRow<T> {
  __device__ void operator()(index_t i) const {
    using detail::RowFault;
    const T* q = this->weights.row(i);
    const std::uint8_t* m = this->mask.row(i);
    int width = 0, off_grid = 0, miscounted = 0, not_zero = 0, grid_held = -1;
    for (index_t g = threadIdx.x; g < this->grids.top.rows; g += row_threads)
      width |= !this->has_width(g, i);
    T scale = 0, zero = 0, top = 0;
    for (index_t j = threadIdx.x; j < this->weights.cols; j += row_threads) {
      not_zero |= m[j] != 0 && q[j] != T(0);
      if (this->grids.top.rows == 0) continue;
      if (const int g = this->column_grid[j]; g != grid_held) {
        grid_held = g;
        scale = this->grids.scale(g, i);
        zero = this->grids.zero(g, i);
        top = this->grids.top(g, i);
      }
      off_grid |= !(round_to_grid(q[j], scale, zero, top) == q[j]);
    }
    if (this->of > 0)
      for (index_t j = threadIdx.x * this->of; j < this->weights.cols;
           j += row_threads * this->of) {
        int count = 0;
        for (int k = 0; k < this->of; ++k) count += m[j + k];
        miscounted |= count != this->zeros;
      }
    width = __syncthreads_or(width);
    off_grid = __syncthreads_or(off_grid);
    miscounted = __syncthreads_or(miscounted);
    not_zero = __syncthreads_or(not_zero);
    if (threadIdx.x == 0)
      this->finish(i, width == 0, off_grid == 0, miscounted == 0, not_zero == 0);
  }
};
template <class T>
BlockVerifyRow<T> cooperative(const detail::VerifyRow<T>& f) {
  return {f};
}

/// A warp per block of columns.
template <class T>
struct BlockCountBlock : detail::CountBlock<T> {
  __device__ void operator()(index_t i) const {
    for (index_t b = threadIdx.x / 32; b < this->counts.cols; b += row_warps) {
      const index_t begin = b * this->block_size;
      const index_t end = min(begin + this->block_size, this->mask.cols);
      int count = 0;
      for (index_t p = begin + threadIdx.x % 32; p < end; p += 32)
        count += this->mask(i, this->order[p]);
      count = __reduce_add_sync(~0u, count);
      if (threadIdx.x % 32 == 0) this->counts(i, b) = T(count);
    }
  }
};
template <class T>
BlockCountBlock<T> cooperative(const detail::CountBlock<T>& f) {
  return {f};
}

template <class T>
struct BlockCountRow : detail::CountRow<T> {
  __device__ void operator()(index_t i) const {
    std::int64_t pruned = 0, zeros = 0, bits = 0;
    for (index_t j = threadIdx.x; j < this->weights.cols; j += row_threads)
      this->add_column(i, j, pruned, zeros, bits);
    pruned = block_sum(pruned);
    zeros = block_sum(zeros);
    bits = block_sum(bits);
    if (threadIdx.x == 0) this->finish(i, pruned, zeros, bits);
  }
};
template <class T>
BlockCountRow<T> cooperative(const detail::CountRow<T>& f) {
  return {f};
}

template <class T>
struct BlockClosedLoss : detail::ClosedLoss<T> {
  __device__ void operator()(index_t r) const {
    double loss = 0, weights = 0, spread = 0;
    for (index_t j = threadIdx.x; j < this->difference.cols; j += row_threads)
      this->add_column(r, j, loss, weights, spread);
    loss = block_sum(loss);
    weights = block_sum(weights);
    spread = block_sum(spread);
    if (threadIdx.x == 0) this->finish(r, loss, weights, spread);
  }
};
template <class T>
BlockClosedLoss<T> cooperative(const detail::ClosedLoss<T>& f) {
  return {f};
}

}  // namespace pare::backend::cuda
