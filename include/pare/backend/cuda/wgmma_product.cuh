// Products of float32 matrices in halves on Hopper's tensor cores: one kernel for all three products of
// halves, which reads every half once per tile of C and sums in float32.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "pare/backend/cuda/tuning.cuh"
#include "pare/backend/cuda/wgmma.cuh"
#include "pare/backend/cuda/wgmma_halves.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace wgmma_detail {

/// Lines of the left operand that a block of threads multiplies; two groups of four warps have half each.
inline constexpr int tile_rows = 128;
static_assert(split_depth % tile_rows == 0, "a tile lies in one block on a triangle's diagonal");
/// Eight warps multiply; of four more, which leave their registers to these, one copies.
inline constexpr int consumers = 8, threads = 32 * (consumers + 4);
/// Rows of tiles that are computed side by side, so that what they share stays in the L2 cache.
inline constexpr int side_by_side = 8;
/// Terms whose halves are in device memory at a time.
inline constexpr index_t piece_terms = 4096;

/// A product of halves, C = factor * left right^T + beta C.
struct Job {
  const std::uint16_t *left, *right;
  index_t left_lines, right_lines;  ///< padded
  MatrixView<float> C;
  const float* factor;
  float beta;
  int blocks;     ///< of terms
  index_t first;  ///< term of the whole product, the first of these
  Zeros zeros;
  bool upper;    ///< tiles below the diagonal of C are left out
  bool by_rows;  ///< C is written by bulk copies
};

/// The tiles of C that are computed, one after the other: columns of neighbouring tiles, from the left, or
/// whole ones from the right where those have most to sum.
template <int Columns>
class Tiles {
 public:
  __host__ __device__ explicit Tiles(const Job& job)
      : rows_(int((job.C.rows + tile_rows - 1) / tile_rows)),
        cols_(int((job.C.cols + Columns - 1) / Columns)),
        upper_(job.upper),
        from_right_(job.zeros == Zeros::below_right),
        together_(from_right_ ? rows_ : side_by_side) {}

  /// Goes on to a later tile; false where there is none.
  __host__ __device__ bool go_to(int tile) {
    for (; begin_ < rows_; begin_ += together_, at_ = 0) {
      // Of tiles left of the diagonal nothing is computed.
      for (int first = upper_ ? begin_ * tile_rows / Columns : 0; first + at_ < cols_; ++at_) {
        col_ = first + at_;
        int height = rows_ - begin_ < together_ ? rows_ - begin_ : together_;
        const int to_diagonal = ((col_ + 1) * Columns - 1) / tile_rows + 1 - begin_;
        if (upper_ && to_diagonal < height) height = to_diagonal;
        if (tile < passed_ + height) {
          row_ = begin_ + tile - passed_;
          return true;
        }
        passed_ += height;
      }
    }
    return false;
  }
  __host__ __device__ int row() const { return row_; }
  __host__ __device__ int col() const { return from_right_ ? cols_ - 1 - col_ : col_; }
  /// How many there are.
  int count() const {
    Tiles all = *this;
    all.go_to(std::numeric_limits<int>::max());
    return all.passed_;
  }

 private:
  int rows_, cols_;
  bool upper_, from_right_;
  int together_;
  int begin_ = 0, at_ = 0, passed_ = 0, row_ = 0, col_ = 0;
};

/// Calls f(row, col, begin, end) for the tiles of this block of threads, with the blocks of terms that they
/// sum. Every second round goes the other way: where tiles have less and less to sum, blocks of threads
/// have the same to do.
template <int Columns, class F>
__device__ void for_each_tile(const Job& job, const F& f) {
  Tiles<Columns> tiles(job);
  const int at_once = int(gridDim.x), mine = int(blockIdx.x);
  for (int round = 0;; ++round) {
    if (!tiles.go_to(round * at_once + (round % 2 == 0 ? mine : at_once - 1 - mine))) return;
    const index_t row = index_t(tiles.row()) * tile_rows, col = index_t(tiles.col()) * Columns;
    index_t begin = 0, end = job.blocks;
    if (job.zeros == Zeros::below_left) begin = (row - job.first) / block_terms;
    if (job.zeros == Zeros::below_right)
      end = (min(col + Columns, job.C.cols) - job.first + block_terms - 1) / block_terms;
    f(row, col, int(max(begin, index_t(0))), int(min(end, index_t(job.blocks))));
  }
}

#if defined(PARE_SM90A)

/// Copies the halves of all tiles of this block of threads to shared memory; one thread.
template <class Cut>
__device__ void copy_tiles(const Job& job, unsigned memory, unsigned full, unsigned empty) {
  constexpr int columns = Cut::columns;
  unsigned stage = 0, phase = 1;
  for_each_tile<columns>(job, [&](index_t row, index_t col, int begin, int end) {
    const auto a_bytes = unsigned(min(index_t(tile_rows), job.left_lines - row) * line_bytes);
    const auto b_bytes = unsigned(min(index_t(columns), job.right_lines - col) * line_bytes);
    for (int b = begin; b < end; ++b) {
      wgmma::wait(empty + 8 * stage, phase);
      const unsigned to = memory + stage * Cut::stage_bytes, barrier = full + 8 * stage;
      wgmma::expect(barrier, a_bytes + b_bytes);
      constexpr int line = line_bytes / 2;
      wgmma::copy(to, job.left + (b * job.left_lines + row) * line, a_bytes, barrier);
      wgmma::copy(to + tile_rows * line_bytes, job.right + (b * job.right_lines + col) * line,
                  b_bytes, barrier);
      if (++stage == Cut::stages) {
        stage = 0;
        phase ^= 1;
      }
    }
  });
}

/// Calls f(i, row, column) for every second sum of a thread, from `begin` on: see wgmma::multiply_add.
template <int Many, class F>
__device__ void for_each_pair(int begin, const F& f) {
  const int lane = int(threadIdx.x % 32);
#pragma unroll
  for (int i = begin; i < begin + Many; i += 2)
    f(i, lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2);
}

/// C = sums + beta C for 16 rows of a tile, number by number; one warp.
template <int Sums>
__device__ void write_numbers(const Job& job, const float (&sums)[Sums], index_t row, index_t col) {
  const MatrixView<float>& C = job.C;
  const float factor = *job.factor;
  for_each_pair<Sums>(0, [&](int i, int r, int c) {
    for (int e = 0; e < 2; ++e)
      if (row + r < C.rows && col + c + e < C.cols) {
        float& to = C(row + r, col + c + e);
        const float sum = __fmul_rn(factor, sums[i + e]);  // as write_rows() rounds
        to = job.beta == 0 ? sum : __fadd_rn(sum, job.beta * to);
      }
  });
}

/// The same through shared memory, where beta is 0 or 1; returns before all is written. Sums below the
/// smallest normal number become 0 where they are added to C.
/// @param room  for 16 rows, this warp's own
template <class Cut, int Sums>
__device__ void write_rows(const Job& job, const float (&sums)[Sums], index_t row, index_t col,
                           unsigned room) {
  const MatrixView<float>& C = job.C;
  const float factor = *job.factor;
  const int lane = int(threadIdx.x % 32);
  constexpr int many = Cut::out_columns / 2;
#pragma unroll
  for (int begin = 0; begin < Sums; begin += many) {
    wgmma::wait_for_reads();
    __syncwarp();
    for_each_pair<many>(begin, [&](int i, int r, int c) {
      wgmma::store_pair(room + r * Cut::out_stride + (c - 2 * begin) * int(sizeof(float)),
                        factor * sums[i], factor * sums[i + 1]);
    });
    wgmma::show_stores();
    __syncwarp();
    const index_t left = col + 2 * begin, width = min(index_t(Cut::out_columns), C.cols - left);
    if (lane < 16 && row + lane < C.rows && width > 0) {
      float* const to = &C(row + lane, left);
      const unsigned from = room + lane * Cut::out_stride, bytes = unsigned(width) * sizeof(float);
      if (job.beta == 0)
        wgmma::copy_back(to, from, bytes);
      else
        wgmma::add_back(to, from, bytes);
    }
    wgmma::end_of_writes();
  }
}

/// Multiplies half the lines of all tiles of this block of threads; a group of four warps.
template <class Cut>
__device__ void multiply_tiles(const Job& job, unsigned memory, unsigned full, unsigned empty) {
  constexpr int columns = Cut::columns;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
  const unsigned room = memory + Cut::stages * Cut::stage_bytes + warp * 16 * Cut::out_stride;
  const auto release = [&](unsigned stage) {
    if (lane == 0) wgmma::arrive(empty + 8 * stage);
  };
  unsigned stage = 0, phase = 0;
  for_each_tile<columns>(job, [&](index_t row, index_t col, int begin, int end) {
    float sums[columns / 2] = {}, part[columns / 2];
    for (int b = begin; b < end;) {
      const int stop = min(b + Cut::blocks, end);
      unsigned last = stage;
      for (int add = 0; b < stop; ++b, add = 1) {
        wgmma::wait(full + 8 * stage, phase);
        const unsigned at = memory + stage * Cut::stage_bytes;
        const std::uint64_t A = wgmma::operand(at + group * (tile_rows / 2) * line_bytes);
        const std::uint64_t B = wgmma::operand(at + tile_rows * line_bytes);
        constexpr int low = 4, next = 2;  // in 16 bytes: low halves, the next 16 terms
        wgmma::fence();
        wgmma::multiply_add(part, A + low, B, add);
        wgmma::multiply_add(part, A, B + low, 1);
        wgmma::multiply_add(part, A + low + next, B + next, 1);
        wgmma::multiply_add(part, A + next, B + low + next, 1);
        wgmma::multiply_add(part, A, B, 1);
        wgmma::multiply_add(part, A + next, B + next, 1);
        wgmma::end_of_group();
        if (add) {
          wgmma::wait_for_groups<1>();
          release(last);
        }
        last = stage;
        if (++stage == Cut::stages) {
          stage = 0;
          phase ^= 1;
        }
      }
      wgmma::wait_for_groups<0>();
      wgmma::settle(part);
      release(last);
#pragma unroll
      for (int i = 0; i < columns / 2; ++i) sums[i] += part[i];
    }
    if (job.by_rows)
      write_rows<Cut>(job, sums, row + 16 * warp, col, room);
    else
      write_numbers(job, sums, row + 16 * warp, col);
  });
  wgmma::wait_for_writes();
}

#endif

/// The tiles of a product, several after each other for a block of threads.
template <class Cut>
__global__ void __launch_bounds__(threads, 1) wgmma_kernel(const Job job) {
#if defined(PARE_SM90A)
  extern __shared__ unsigned char dynamic[];
  __shared__ std::uint64_t barriers[2 * Cut::stages];  // available() looks for these
  const auto place = [](const void* p) { return unsigned(__cvta_generic_to_shared(p)); };
  const unsigned memory = (place(dynamic) + 1023) / 1024 * 1024;  // swizzling goes by addresses
  const unsigned full = place(barriers), empty = full + 8 * Cut::stages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < Cut::stages; ++s) {
      wgmma::make_barrier(full + 8 * s, 1);
      wgmma::make_barrier(empty + 8 * s, consumers);
    }
    wgmma::show_barriers();
  }
  __syncthreads();
  if (threadIdx.x / 32 >= consumers) {
    wgmma::fewer_registers<40>();
    if (threadIdx.x == 32 * consumers) copy_tiles<Cut>(job, memory, full, empty);
  } else {
    wgmma::more_registers<232>();
    multiply_tiles<Cut>(job, memory, full, empty);
  }
#else
  __trap();  // available() keeps such code away
#endif
}

using Widest = tuning::Sm90::wgmma<192>;

/// Whether the current GPU is a Hopper and this kernel was compiled for it, sm_90a.
struct Here {
  bool compiled = false;
  Here() {
    if (Context::get().compute_capability != 90) return;
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, wgmma_kernel<Widest>), "cudaFuncGetAttributes");
    compiled = attributes.sharedSizeBytes > 0;  // without the instructions it has no barriers
  }
};
inline bool available() { return per_device<Here>().compiled; }

template <class Cut>
void launch(const Job& job) {
  constexpr int bytes = Cut::stages * Cut::stage_bytes + tile_rows * Cut::out_stride + 1024;
  allow_shared(wgmma_kernel<Cut>, bytes);
  const int tiles = Tiles<Cut::columns>(job).count();
  wgmma_kernel<Cut>
      <<<unsigned(std::min(tiles, Context::get().multiprocessors)), threads, bytes, stream()>>>(
          job);
  check_launch("wgmma_kernel");
}

/// Columns of tiles that C is computed with soonest.
inline int columns_for(const Job& job) {
  const int at_once = Context::get().multiprocessors;
  int best = 0;
  double least = 0;
  const auto consider = [&]<int Columns>() {
    // A tile sums the terms of its last column, so that it must not reach from one block on a triangle's
    // diagonal into the next; see Zeros.
    if (job.zeros == Zeros::below_right && split_depth % Columns != 0) return;
    const int rounds = (Tiles<Columns>(job).count() + at_once - 1) / at_once;
    const double time = double(rounds) * (Columns + 32);  // as measured
    if (best == 0 || time < least) {
      best = Columns;
      least = time;
    }
  };
  consider.operator()<192>();
  consider.operator()<128>();
  consider.operator()<64>();
  return best;
}

inline void multiply(const Job& job) {
  switch (columns_for(job)) {
    case 192:
      return launch<tuning::Sm90::wgmma<192>>(job);
    case 128:
      return launch<tuning::Sm90::wgmma<128>>(job);
    default:
      return launch<tuning::Sm90::wgmma<64>>(job);
  }
}

inline Job job_of(const Halves& left, const Halves& right, const Scales& scales, float beta,
                  index_t first, MatrixView<float> C) {
  Job job{};
  job.left = left.to;
  job.right = right.to;
  job.left_lines = left.lines;
  job.right_lines = right.lines;
  job.C = C;
  job.factor = scales.factors.data();
  job.beta = beta;
  job.blocks = left.blocks;
  job.first = first;
  job.by_rows = (beta == 0 || beta == 1) && C.stride % 4 == 0 && C.cols % 4 == 0 &&
                reinterpret_cast<std::uintptr_t>(C.data) % 16 == 0;
  return job;
}

/// C = alpha left right + beta C.
/// @param scales  with the largest numbers of both
inline void product(float alpha, const Source& left, const Source& right, float beta,
                    MatrixView<float> C, index_t depth, Zeros zeros, Scales& scales) {
  DeviceMatrix<std::uint16_t> of_left, of_right;
  for (index_t k = 0; k < depth; k += piece_terms) {
    const index_t many = std::min(piece_terms, depth - k);
    const Halves a = halves_of(left, k, many, of_left), b = halves_of(right, k, many, of_right);
    write_halves(a, b, 2, alpha, scales);
    Job job = job_of(a, b, scales, k == 0 ? beta : 1, k, C);
    job.zeros = zeros;
    multiply(job);
  }
}

/// C = alpha X^T X + C on and above the diagonal.
/// @param scales  with the largest number of X
inline void gram(float alpha, const Source& X, MatrixView<float> C, index_t depth, Scales& scales) {
  DeviceMatrix<std::uint16_t> room;
  for (index_t k = 0; k < depth; k += piece_terms) {
    const Halves x = halves_of(X, k, std::min(piece_terms, depth - k), room);
    write_halves(x, x, 1, alpha, scales);
    Job job = job_of(x, x, scales, 1, k, C);
    job.upper = true;
    multiply(job);
  }
}

}  // namespace wgmma_detail

}  // namespace pare::backend::cuda
