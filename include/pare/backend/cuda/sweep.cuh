// The tuned form of RowSweep: eight threads per row, weights in registers, U in shared memory.
#pragma once

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/product.cuh"
#include "pare/backend/cuda/tuning.cuh"
#include "pare/kernels/sweep.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Moves N neighbouring elements; 16 bytes at a time where the address allows.
template <class T, int N>
__device__ void load(T (&to)[N], const T* from) {
  using Vector = std::conditional_t<sizeof(T) == 4, float4, double2>;
  constexpr int width = int(sizeof(Vector) / sizeof(T));
  static_assert(N % width == 0);
#pragma unroll
  for (int i = 0; i < N; i += width)
    *reinterpret_cast<Vector*>(to + i) = *reinterpret_cast<const Vector*>(from + i);
}

template <class T, int N>
__device__ void store(T* to, const T (&from)[N]) {
  using Vector = std::conditional_t<sizeof(T) == 4, float4, double2>;
  constexpr int width = int(sizeof(Vector) / sizeof(T));
  static_assert(N % width == 0);
#pragma unroll
  for (int i = 0; i < N; i += width)
    *reinterpret_cast<Vector*>(to + i) = *reinterpret_cast<const Vector*>(from + i);
}

/// The shared memory of sweep_kernel.
template <class T, int Columns>
struct SweepShared {
  T upper[Columns][Columns];   ///< U above the diagonal, zero elsewhere
  T diagonal[Columns][2];      ///< U_jj and 1 / U_jj
  std::int32_t grid[Columns];  ///< grid of each column
};

/// RowSweep over all rows, up to Cut::columns columns.
///
/// Lane l of a row holds columns Chain (l + 8 i) + c. The lanes go through the columns in chains of
/// `Chain` that one lane holds: it hands them to the others, all of them work out the chain's
/// errors, each applies them to its own columns. Every weight sees the operations of RowSweep in
/// the same order.
/// @tparam Cut  a SweepCut
/// @tparam Of   the m of n:m, a divisor of Chain; 0 without n:m
template <class Cut, class T, kernels::MaskSource Mask, bool Quantize, int Of, int Chain>
__global__ void __launch_bounds__(Cut::threads)
    sweep_kernel(kernels::RowSweep<T, Mask, Quantize> sweep, bool aligned) {
  constexpr int sweep_lanes = Cut::lanes, sweep_columns = Cut::columns;
  constexpr int sweep_threads = Cut::threads;
  constexpr int strips = sweep_columns / (sweep_lanes * Chain);
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<SweepShared<T, sweep_columns>*>(memory);

  const int count = int(sweep.weights.cols);
  for (int at = threadIdx.x; at < sweep_columns * sweep_columns; at += sweep_threads) {
    const int j = at / sweep_columns, k = at % sweep_columns;
    shared.upper[j][k] = j < k && k < count ? sweep.factor(j, k) : T(0);
  }
  for (int j = threadIdx.x; j < sweep_columns; j += sweep_threads) {
    const T diagonal = j < count ? sweep.factor(j, j) : T(1);
    shared.diagonal[j][0] = diagonal;
    shared.diagonal[j][1] = T(1) / diagonal;
    if constexpr (Quantize) shared.grid[j] = j < count ? sweep.column_grid[j] : 0;
  }

  const int lane = threadIdx.x % sweep_lanes;
  const index_t wanted_row = index_t(blockIdx.x) * Cut::rows + threadIdx.x / sweep_lanes;
  const bool active = wanted_row < sweep.weights.rows;
  const index_t row = active ? wanted_row : 0;
  const int mine = active ? count : 0;  // the others only take part in the shuffles

  alignas(16) T w[strips][Chain], e[strips][Chain];
  unsigned marks[strips];  // a bit per column
#pragma unroll
  for (int i = 0; i < strips; ++i) {
    const int first = Chain * (lane + sweep_lanes * i);
    const T* from = sweep.weights.row(row) + first;
    marks[i] = 0;
    if (aligned && first + Chain <= mine) {
      load(w[i], from);
    } else {
#pragma unroll
      for (int c = 0; c < Chain; ++c) w[i][c] = first + c < mine ? from[c] : T(0);
    }
#pragma unroll
    for (int c = 0; c < Chain; ++c) {
      e[i][c] = 0;
      if constexpr (Mask == kernels::MaskSource::given)
        if (first + c < mine && sweep.mask(row, first + c) != 0) marks[i] |= 1u << c;
    }
  }
  int grid = -1;
  T scale = 1, inverse_scale = 1, low = 0, high = 0;  // of the grid in force, codes minus zero
  __syncthreads();

#pragma unroll
  for (int i = 0; i < strips; ++i) {
#pragma unroll 1
    for (int owner = 0; owner < sweep_lanes; ++owner) {
      const int first = Chain * (owner + sweep_lanes * i);
      if (first >= count) break;
      T x[Chain], kept[Chain], error[Chain];
#pragma unroll
      for (int c = 0; c < Chain; ++c) x[c] = __shfl_sync(~0u, w[i][c], owner, sweep_lanes);
      unsigned bits = 0;
      if constexpr (Mask == kernels::MaskSource::given)
        bits = __shfl_sync(~0u, marks[i], owner, sweep_lanes);

#pragma unroll
      for (int c = 0; c < Chain; ++c) {
        const int j = first + c;
        const T diagonal = shared.diagonal[j][0], inverse = shared.diagonal[j][1];
        if constexpr (Of > 0)
          if (c % Of == 0) {
            T score[Of];
#pragma unroll
            for (int k = 0; k < Of; ++k)
              score[k] = quotient(std::abs(x[c + k]), shared.diagonal[j + k][0],
                                  shared.diagonal[j + k][1]);
#pragma unroll
            for (int k = 0; k < Of; ++k)
              if (among_smallest([&](int at) { return score[at]; }, k, Of, sweep.zeros))
                bits |= 1u << (c + k);
          }
        kept[c] = x[c];
        if constexpr (Mask != kernels::MaskSource::none) kept[c] = (bits >> c) & 1u ? T(0) : x[c];
        if constexpr (Quantize) {
          if (shared.grid[j] != grid) {  // alike in all threads
            grid = shared.grid[j];
            scale = sweep.grids.scale(grid, row);
            inverse_scale = T(1) / scale;
            low = -sweep.grids.zero(grid, row);
            high = sweep.grids.top(grid, row) + low;
          }
          // Bounds are whole numbers, so they may come before the rounding.
          const T code = quotient(kept[c], scale, inverse_scale);
          kept[c] = scale * round_small(min(max(code, low), high));
        }
        error[c] = quotient(x[c] - kept[c], diagonal, inverse);
#pragma unroll
        for (int k = c + 1; k < Chain; ++k) x[k] -= error[c] * shared.upper[j][first + k];
      }

#pragma unroll
      for (int c = 0; c < Chain; ++c)
#pragma unroll
        for (int s = i; s < strips; ++s) {
          alignas(16) T u[Chain];
          load(u, &shared.upper[first + c][Chain * (lane + sweep_lanes * s)]);
#pragma unroll
          for (int k = 0; k < Chain; ++k) w[s][k] -= error[c] * u[k];
        }
      if (lane == owner) {
        marks[i] = bits;
#pragma unroll
        for (int c = 0; c < Chain; ++c) {
          w[i][c] = kept[c];
          e[i][c] = error[c];
        }
      }
    }
  }

  double loss = 0;
#pragma unroll
  for (int i = 0; i < strips; ++i) {
    const int first = Chain * (lane + sweep_lanes * i);
    const bool whole = aligned && first + Chain <= mine;
    if (whole) {
      store(sweep.weights.row(row) + first, w[i]);
      store(sweep.errors.row(row) + first, e[i]);
    }
#pragma unroll
    for (int c = 0; c < Chain; ++c) {
      loss += 0.5 * double(e[i][c]) * double(e[i][c]);
      if (first + c >= mine) continue;
      if (!whole) {
        sweep.weights(row, first + c) = w[i][c];
        sweep.errors(row, first + c) = e[i][c];
      }
      if constexpr (Mask == kernels::MaskSource::n_of_m)
        sweep.mask(row, first + c) = std::uint8_t((marks[i] >> c) & 1u);
    }
  }
#pragma unroll
  for (int step = sweep_lanes / 2; step > 0; step /= 2)
    loss += __shfl_down_sync(~0u, loss, step, sweep_lanes);
  if (active && lane == 0) sweep.row_loss[row] += loss;
}

template <class Cut, int Of, int Chain, class T, kernels::MaskSource Mask, bool Quantize>
void launch_sweep(const kernels::RowSweep<T, Mask, Quantize>& sweep) {
  const auto kernel = sweep_kernel<Cut, T, Mask, Quantize, Of, Chain>;
  constexpr std::size_t shared = sizeof(SweepShared<T, Cut::columns>);
  allow_shared(kernel, int(shared));
  const auto in_vectors = [](MatrixView<T> v) {
    return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 &&
           std::size_t(v.stride) * sizeof(T) % 16 == 0;
  };
  const bool aligned = in_vectors(sweep.weights) && in_vectors(sweep.errors);
  const index_t blocks = (sweep.weights.rows + Cut::rows - 1) / Cut::rows;
  kernel<<<unsigned(blocks), Cut::threads, shared, stream()>>>(sweep, aligned);
  check_launch("sweep_kernel");
}

/// Sweeps up to Cut::columns columns; false for an m without a tuned kernel.
template <class Cut, class T, kernels::MaskSource Mask, bool Quantize>
bool tuned_sweep(const kernels::RowSweep<T, Mask, Quantize>& sweep) {
  if constexpr (Mask == kernels::MaskSource::n_of_m_beside) {
    return false;  // rare
  } else if constexpr (Mask != kernels::MaskSource::n_of_m) {
    launch_sweep<Cut, 0, 4>(sweep);
    return true;
  } else {
    switch (sweep.of) {
      case 2:
        launch_sweep<Cut, 2, 4>(sweep);
        return true;
      case 4:
        launch_sweep<Cut, 4, 4>(sweep);
        return true;
      case 8:
        launch_sweep<Cut, 8, 8>(sweep);
        return true;
      default:
        return false;
    }
  }
}

/// Columns [begin, begin + width) of a sweep.
template <class T, kernels::MaskSource Mask, bool Quantize>
kernels::RowSweep<T, Mask, Quantize> sweep_window(kernels::RowSweep<T, Mask, Quantize> sweep,
                                                  index_t begin, index_t width) {
  sweep.weights = sweep.weights.columns(begin, width);
  sweep.errors = sweep.errors.columns(begin, width);
  sweep.mask = sweep.mask.columns(begin, width);
  sweep.factor = sweep.factor.block(begin, begin, width, width);
  if constexpr (Quantize) sweep.column_grid += begin;
  return sweep;
}

/// Runs a RowSweep over all its rows. Wide blocks go in windows with a product behind each; what
/// has no tuned kernel goes to `generic(rows, sweep)`, a thread per row.
/// @tparam Cut  a SweepCut
template <class Cut, class T, kernels::MaskSource Mask, bool Quantize, class Generic>
void run_sweep_cut(const kernels::RowSweep<T, Mask, Quantize>& sweep, const Generic& generic) {
  const index_t count = sweep.weights.cols;
  index_t step = Cut::columns;
  if (Mask == kernels::MaskSource::n_of_m || Mask == kernels::MaskSource::n_of_m_beside)
    step = std::max<index_t>(sweep.of, step - step % sweep.of);
  for (index_t begin = 0; begin < count; begin += step) {
    const index_t width = std::min(step, count - begin), rest = count - begin - width;
    const auto window = sweep_window(sweep, begin, width);
    if (!tuned_sweep<Cut>(window)) generic(window.weights.rows, window);
    if (rest > 0)
      Products::trailing_update(sweep.weights.columns(begin + width, rest),
                                MatrixView<const T>(window.errors),
                                sweep.factor.block(begin, begin + width, width, rest));
  }
}

/// The same, cut as the current GPU wants it.
template <class T, kernels::MaskSource Mask, bool Quantize, class Generic>
void run_sweep(const kernels::RowSweep<T, Mask, Quantize>& sweep, const Generic& generic) {
  with_tuning(Context::get().compute_capability, [&]<class Tuning>(Tuning) {
    run_sweep_cut<typename Tuning::template sweep<T>>(sweep, generic);
  });
}

}  // namespace pare::backend::cuda
