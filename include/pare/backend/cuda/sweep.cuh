// The tuned form of RowSweep: eight threads per row, weights in registers, U in shared memory.
#pragma once

#include <cstddef>

#include "pare/backend/cuda/arithmetic.cuh"
#include "pare/backend/cuda/product.cuh"
#include "pare/backend/cuda/sweep_shared.cuh"
#include "pare/backend/cuda/tuning.cuh"
#include "pare/kernels/sweep.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// RowSweep over all rows, up to Cut::columns columns.
///
/// Lane l of a row holds columns Chain (l + lanes i) + c. The lanes go through the columns in chains
/// of `Chain` that one lane holds: it hands them to the others, all of them work out the chain's
/// errors. Their effect on the next chain is applied at once; their effect on a lane's own columns while
/// the next chain's errors, which depend on each other, are worked out. Every weight sees the operations
/// of RowSweep in the same order.
/// @tparam Cut  a SweepCut
/// @tparam OneGrid  whether all columns are on grid 0
/// @tparam Of       the m of n:m, a divisor of Chain; 0 without n:m
/// @param rows      of a block of threads, at most Cut::rows
/// @param aligned, factor_aligned, mask_aligned  whether rows of weights and errors, and of U, begin at
///                  multiples of 16 bytes, and those of the mask at multiples of 4
template <class Cut, class T, kernels::MaskSource Mask, bool Quantize, bool OneGrid, int Of,
          int Chain>
__global__ void __launch_bounds__(Cut::threads, OneGrid&& Chain == 4 ? Cut::blocks : 1)
    sweep_kernel(kernels::RowSweep<T, Mask, Quantize> sweep, int rows, bool aligned,
                 bool factor_aligned, bool mask_aligned) {
  constexpr int sweep_lanes = Cut::lanes, sweep_columns = Cut::columns;
  constexpr int strips = sweep_columns / (sweep_lanes * Chain);
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<SweepShared<T, sweep_columns, Chain>*>(memory);

  const int count = int(sweep.weights.cols);
  if constexpr (Quantize && !OneGrid)
    for (int j = threadIdx.x; j < sweep_columns; j += blockDim.x)
      shared.grid[j] = sweep.column_grid[j < count ? j : count - 1];

  int lane = threadIdx.x % sweep_lanes;
  asm volatile("" : "+r"(lane));  // is not worked out anew
  const int row_of_block = int(threadIdx.x) / sweep_lanes;
  const index_t wanted_row = index_t(blockIdx.x) * rows + row_of_block;
  const bool active = row_of_block < rows && wanted_row < sweep.weights.rows;
  const index_t row = active ? wanted_row : 0;
  const int mine = active ? count : 0;  // the others only take part in the shuffles

  alignas(16) T w[strips][Chain];  // of this strip of columns and those after it
  unsigned marks[strips];          // a bit per column
  if (aligned && mine == sweep_columns) {
#pragma unroll
    for (int i = 0; i < strips; ++i)
      load(w[i], sweep.weights.row(row) + Chain * (lane + sweep_lanes * i));
  } else {
#pragma unroll
    for (int i = 0; i < strips; ++i)
#pragma unroll
      for (int c = 0; c < Chain; ++c) {
        const int j = Chain * (lane + sweep_lanes * i) + c;
        w[i][c] = j < mine ? sweep.weights(row, j) : T(0);
      }
  }
#pragma unroll
  for (int i = 0; i < strips; ++i) marks[i] = 0;
  if constexpr (Mask == kernels::MaskSource::given) {
    static_assert(Chain == 4);
    if (mask_aligned && mine == sweep_columns) {
#pragma unroll
      for (int i = 0; i < strips; ++i) {
        const std::uint8_t* const mask = sweep.mask.row(row) + Chain * (lane + sweep_lanes * i);
        const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(mask);
#pragma unroll
        for (int c = 0; c < Chain; ++c) marks[i] |= unsigned((word >> 8 * c & 255) != 0) << c;
      }
    } else {
#pragma unroll
      for (int i = 0; i < strips; ++i)
#pragma unroll
        for (int c = 0; c < Chain; ++c) {
          const int j = Chain * (lane + sweep_lanes * i) + c;
          if (j < mine && sweep.mask(row, j) != 0) marks[i] |= 1u << c;
        }
    }
  }
  stage_upper(shared, sweep.factor, factor_aligned);
  __syncthreads();
  using Shared = SweepShared<T, sweep_columns, Chain>;
  unsigned base = unsigned(__cvta_generic_to_shared(memory));
  asm volatile("" : "+r"(base));  // after the barrier
  // U of a column behind its chain, from a column on.
  const auto upper = [&](T(&u)[Chain], int j, int column) {
    load_shared(u, base + unsigned(offsetof(Shared, upper)) +
                       unsigned(j * sweep_columns + column) * unsigned(sizeof(T)));
  };

  // The grids of the chain, codes minus zero, and what the next chain's are made of.
  constexpr int grids = OneGrid ? 1 : Chain;
  T scale[grids], inverse_scale[grids], low[grids], high[grids];
  T next_scale[grids], next_zero[grids], next_top[grids];
  const auto fetch_grids = [&](int first) {
#pragma unroll
    for (int c = 0; c < grids; ++c) {
      const int grid = OneGrid ? 0 : shared.grid[first + c];
      next_scale[c] = sweep.grids.scale(grid, row);
      next_zero[c] = sweep.grids.zero(grid, row);
      next_top[c] = sweep.grids.top(grid, row);
    }
  };
  const auto enter_grids = [&] {
#pragma unroll
    for (int c = 0; c < grids; ++c) {
      scale[c] = next_scale[c];
      inverse_scale[c] = T(1) / next_scale[c];
      low[c] = -next_zero[c];
      high[c] = next_top[c] + low[c];
    }
  };
  if constexpr (Quantize) {
    fetch_grids(0);
    enter_grids();
  }
  // U in the chain, and U_jj with its inverse: read a chain ahead, because nothing else hides it.
  T within[Chain][Chain], diagonal[Chain][2];
  const auto fetch_chain = [&](int first) {
#pragma unroll
    for (int c = 0; c < Chain; ++c) {
      load_shared(diagonal[c], base + unsigned(offsetof(Shared, diagonal)) +
                                   unsigned(first + c) * unsigned(2 * sizeof(T)));
      if (c + 1 < Chain)
        load_shared(within[c], base + unsigned(offsetof(Shared, within)) +
                                   unsigned(first + c) * unsigned(Chain * sizeof(T)));
    }
  };
  fetch_chain(0);

  T x[Chain], before[Chain] = {};  // the chain's weights, the errors of the chain before it
#pragma unroll
  for (int c = 0; c < Chain; ++c) x[c] = __shfl_sync(~0u, w[0][c], 0, sweep_lanes);
  double loss = 0;
  // The loops are not unrolled: they are run too seldom to pay for fetching their instructions.
#pragma unroll 1
  for (int begin = 0; begin < count; begin += Chain * sweep_lanes) {
    alignas(16) T e[Chain] = {};
#pragma unroll 1
    for (int owner = 0; owner < sweep_lanes; ++owner) {
      const int first = begin + Chain * owner;
      if (first >= count) break;
      const int last = max(first - Chain, 0), next = min(first + Chain, sweep_columns - Chain);
      if constexpr (Quantize && !OneGrid) {
        if (first > 0) enter_grids();
        fetch_grids(next);
      }
      const auto reach = [&](int s) {  // what the chain before does to strip s
#pragma unroll
        for (int c = 0; c < Chain; ++c) {
          T u[Chain];
          upper(u, last + c, begin + Chain * (lane + sweep_lanes * s));
#pragma unroll
          for (int k = 0; k < Chain; ++k) w[s][k] -= before[c] * u[k];
        }
      };
#pragma unroll
      for (int s = 1; s < strips; ++s)
        if (begin + s * Chain * sweep_lanes < count) reach(s);
      T u_then[Chain][Chain];
#pragma unroll
      for (int c = 0; c < Chain; ++c) upper(u_then[c], first + c, next);
      reach(0);
      T then[Chain], kept[Chain], error[Chain];  // then: the weights of the chain after it
#pragma unroll
      for (int c = 0; c < Chain; ++c)
        then[c] = __shfl_sync(~0u, owner + 1 < sweep_lanes ? w[0][c] : w[min(1, strips - 1)][c],
                              owner + 1, sweep_lanes);
      unsigned bits = 0;
      if constexpr (Mask == kernels::MaskSource::given)
        bits = __shfl_sync(~0u, marks[0], owner, sweep_lanes);

#pragma unroll
      for (int c = 0; c < Chain; ++c) {
        if constexpr (Of > 0)
          if (c % Of == 0) {
            T score[Of];
#pragma unroll
            for (int k = 0; k < Of; ++k)
              score[k] = quotient(std::abs(x[c + k]), diagonal[c + k][0], diagonal[c + k][1]);
#pragma unroll
            for (int k = 0; k < Of; ++k)
              if (among_smallest([&](int at) { return score[at]; }, k, Of, sweep.zeros))
                bits |= 1u << (c + k);
          }
        kept[c] = x[c];
        if constexpr (Mask != kernels::MaskSource::none) kept[c] = (bits >> c) & 1u ? T(0) : x[c];
        if constexpr (Quantize) {
          // Bounds are whole numbers, so they may come before the rounding.
          const int g = OneGrid ? 0 : c;
          const T code = quotient(kept[c], scale[g], inverse_scale[g]);
          kept[c] = scale[g] * round_small(min(max(code, low[g]), high[g]));
        }
        error[c] = quotient(x[c] - kept[c], diagonal[c][0], diagonal[c][1]);
#pragma unroll
        for (int k = c + 1; k < Chain; ++k) x[k] -= error[c] * within[c][k];
#pragma unroll
        for (int k = 0; k < Chain; ++k) then[k] -= error[c] * u_then[c][k];
      }
      fetch_chain(next);
      if (lane == owner) {
        marks[0] = bits;
#pragma unroll
        for (int c = 0; c < Chain; ++c) {
          w[0][c] = kept[c];
          e[c] = error[c];
        }
      }
#pragma unroll
      for (int c = 0; c < Chain; ++c) {
        x[c] = then[c];
        before[c] = error[c];
      }
    }

    const int first = begin + Chain * lane;
    const bool whole = aligned && first + Chain <= mine;
    if (whole) {
      store(sweep.weights.row(row) + first, w[0]);
      store(sweep.errors.row(row) + first, e);
    }
#pragma unroll
    for (int c = 0; c < Chain; ++c) {
      loss += 0.5 * double(e[c]) * double(e[c]);
      if (first + c >= mine) continue;
      if (!whole) {
        sweep.weights(row, first + c) = w[0][c];
        sweep.errors(row, first + c) = e[c];
      }
      if constexpr (Mask == kernels::MaskSource::n_of_m)
        sweep.mask(row, first + c) = std::uint8_t((marks[0] >> c) & 1u);
    }
#pragma unroll
    for (int s = 0; s + 1 < strips; ++s) {
      marks[s] = marks[s + 1];
#pragma unroll
      for (int c = 0; c < Chain; ++c) w[s][c] = w[s + 1][c];
    }
  }

#pragma unroll
  for (int step = sweep_lanes / 2; step > 0; step /= 2)
    loss += __shfl_down_sync(~0u, loss, step, sweep_lanes);
  if (active && lane == 0) sweep.row_loss[row] += loss;
}

template <class Cut, bool OneGrid, int Of, int Chain, class T, kernels::MaskSource Mask,
          bool Quantize>
void launch_sweep_of(const kernels::RowSweep<T, Mask, Quantize>& sweep) {
  const auto kernel = sweep_kernel<Cut, T, Mask, Quantize, OneGrid, Of, Chain>;
  constexpr std::size_t shared = sizeof(SweepShared<T, Cut::columns, Chain>);
  allow_shared(kernel, int(shared));
  const auto begins_at = [](const auto& v, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(v.data) % bytes == 0 &&
           std::size_t(v.stride) * sizeof(*v.data) % bytes == 0;
  };
  const bool aligned = begins_at(sweep.weights, 16) && begins_at(sweep.errors, 16);
  const bool factor_aligned =
      begins_at(sweep.factor, 16) && std::size_t(sweep.factor.cols) * sizeof(T) % 16 == 0;
  // Few rows go to all multiprocessors.
  const index_t rows = sweep.weights.rows, of_warp = 32 / Cut::lanes;
  const index_t share = (rows - 1) / Context::get().multiprocessors + 1;
  const index_t of_block = std::min<index_t>(Cut::rows, (share + of_warp - 1) / of_warp * of_warp);
  kernel<<<unsigned((rows + of_block - 1) / of_block), Cut::threads, shared, stream()>>>(
      sweep, int(of_block), aligned, factor_aligned, begins_at(sweep.mask, 4));
  check_launch("sweep_kernel");
}

template <class Cut, int Of, int Chain, class T, kernels::MaskSource Mask, bool Quantize>
void launch_sweep(const kernels::RowSweep<T, Mask, Quantize>& sweep) {
  if (sweep.weights.rows == 0) return;
  if constexpr (Quantize)
    if (sweep.grids.scale.rows != 1) return launch_sweep_of<Cut, false, Of, Chain>(sweep);
  launch_sweep_of<Cut, true, Of, Chain>(sweep);
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
