// The exact k smallest scores of a block: radix selection in one launch, nothing on the host.
#pragma once

#include <algorithm>
#include <cub/block/block_scan.cuh>
#include <span>
#include <vector>

#include "pare/backend/cuda/tuning.cuh"
#include "pare/core/backend.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

inline constexpr int select_digit_bits = 11, select_buckets = 1 << select_digit_bits;
inline constexpr int select_max_passes = 6;  ///< digits of a float64 key
/// Upper limit of the blocks of threads of one selection; no device has more multiprocessors.
inline constexpr int select_max_blocks = 256;

/// What the blocks of threads of a selection share. counts[0] is zero between selections.
struct SelectScratch {
  unsigned counts[select_max_passes][select_buckets];  ///< keys per digit, by pass
  unsigned long long ties[select_max_blocks];          ///< keys equal to the k-th, by block
  unsigned arrived;                                    ///< its highest bit flips at every meeting
};

/// Most runs of rows of one launch.
inline constexpr int select_max_runs = 8;

/// Runs of rows that are selected by themselves, each by the blocks of threads with its blockIdx.y.
struct SelectRuns {
  kernels::RowRun of[select_max_runs];
};

/// Waits until all blocks of threads of a cooperative launch with this blockIdx.y have come here, and sees
/// what they wrote.
__device__ inline void meet(unsigned* arrived) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned add = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
    __threadfence();
    const unsigned before = atomicAdd(arrived, add);
    unsigned now;
    do {
      asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(arrived) : "memory");
    } while (((before ^ now) & 0x80000000u) == 0);
  }
  __syncthreads();
}

/// Bits of a non-negative number without its sign; they order as the numbers do.
__device__ inline std::uint32_t select_key(float score) { return __float_as_uint(score); }
__device__ inline std::uint64_t select_key(double score) {
  return static_cast<std::uint64_t>(__double_as_longlong(score));
}

/// Width neighbouring numbers, read or written at once.
template <class T, int Width>
struct alignas(sizeof(T) * Width) SelectChunk {
  T of[Width];
};

/// Marks the smallest |w_ij| / d_j of some runs of rows of W, one at least of each; ties go to the lower
/// row-major index.
///
/// The k-th smallest key is found digit by digit: every block of threads counts its rows' keys, the
/// counts meet in `scratch`, and every block finds the digit for itself. Needs a cooperative launch.
/// @tparam Cut     a SelectCut
/// @tparam Width   neighbouring columns that a thread takes, a divisor of their number
/// @param scratch  (runs)
/// @param cached   whether the keys of a block's rows fit its dynamic shared memory; otherwise they are
///                computed anew in every pass
template <class Cut, int Width, class T>
__global__ void __launch_bounds__(Cut::threads)
    select_kernel(MatrixView<const T> all, const T* d, const __grid_constant__ SelectRuns runs,
                  MatrixView<std::uint8_t> all_marks, SelectScratch* scratch, bool cached) {
  using Key = decltype(select_key(T{}));
  using Keys = SelectChunk<Key, Width>;
  using Numbers = SelectChunk<T, Width>;
  constexpr int select_threads = Cut::threads, at_once = 4;
  using Scan = cub::BlockScan<unsigned long long, select_threads, cub::BLOCK_SCAN_WARP_SCANS>;
  constexpr int key_bits = int(sizeof(Key)) * 8 - 1;
  constexpr int passes = (key_bits + select_digit_bits - 1) / select_digit_bits;
  constexpr int per_thread = select_buckets / select_threads;
  __shared__ unsigned local[2][select_buckets];  // of this pass, and zeros for the next
  __shared__ typename Scan::TempStorage scan;
  __shared__ Key shared_prefix;
  __shared__ unsigned long long shared_wanted, shared_equal;
  extern __shared__ __align__(16) unsigned char memory[];
  Keys* const cache = reinterpret_cast<Keys*>(memory);

  const kernels::RowRun run = runs.of[blockIdx.y];
  const MatrixView<const T> W = all.block(run.begin, 0, run.rows, all.cols);
  const MatrixView<std::uint8_t> mask = all_marks.block(run.begin, 0, run.rows, all.cols);
  scratch += blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // Consecutive rows, so that ties of lower blocks come first.
  const index_t height = (W.rows + gridDim.x - 1) / gridDim.x;
  const index_t begin = min(W.rows, blockIdx.x * height), end = min(W.rows, begin + height);
  const unsigned across = unsigned(W.cols / Width), chunks = unsigned(end - begin) * across;
  // f(chunk, row, column, keys), several chunks read at a time.
  const auto compute_keys = [&](const auto& f) {
    for (unsigned first = threadIdx.x; first < chunks; first += at_once * select_threads) {
      Numbers w[at_once], divisor[at_once];
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        const unsigned chunk = min(first + i * select_threads, chunks - 1), r = chunk / across;
        const unsigned c = (chunk - r * across) * Width;
        w[i] = *reinterpret_cast<const Numbers*>(&W(begin + r, c));
        divisor[i] = *reinterpret_cast<const Numbers*>(d + c);
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        const unsigned chunk = first + i * select_threads;
        if (chunk >= chunks) break;
        Keys keys;
#pragma unroll
        for (int c = 0; c < Width; ++c)
          keys.of[c] = select_key(std::abs(w[i].of[c]) / divisor[i].of[c]);
        f(chunk, keys);
      }
    }
  };
  const auto for_each_chunk = [&](const auto& f) {
    if (!cached) return compute_keys(f);
    for (unsigned chunk = threadIdx.x; chunk < chunks; chunk += select_threads)
      f(chunk, cache[chunk]);
  };

  for (int b = threadIdx.x; b < select_buckets; b += select_threads) local[0][b] = 0;
  __syncthreads();
  Key prefix = 0;                            // leading digits of the k-th smallest key
  unsigned long long wanted = run.selected;  // of the keys with that prefix, still to be taken
  unsigned long long equal = 0;              // how many keys have that prefix
#pragma unroll
  for (int pass = 0; pass < passes; ++pass) {
    const int above = key_bits - pass * select_digit_bits,
              shift = max(0, above - select_digit_bits);
    const unsigned digit_mask = (1u << (above - shift)) - 1;
    const auto count = [&](const Keys& keys) {
#pragma unroll
      for (int c = 0; c < Width; ++c)
        if (pass == 0 || (keys.of[c] >> above) == (prefix >> above))
          atomicAdd(&local[pass % 2][unsigned(keys.of[c] >> shift) & digit_mask], 1u);
    };
    if (pass == 0)
      compute_keys([&](unsigned chunk, const Keys& keys) {
        if (cached) cache[chunk] = keys;
        count(keys);
      });
    else
      for_each_chunk([&](unsigned, const Keys& keys) { count(keys); });
    __syncthreads();
    for (int b = threadIdx.x; b < select_buckets; b += select_threads) {
      if (local[pass % 2][b] != 0) atomicAdd(&scratch->counts[pass][b], local[pass % 2][b]);
      local[(pass + 1) % 2][b] = 0;
    }
    if (pass == 0)  // later passes' counts may be left from the last selection
      for (int b = blockIdx.x * select_threads + threadIdx.x;
           b < (select_max_passes - 1) * select_buckets; b += gridDim.x * select_threads)
        scratch->counts[1][b] = 0;
    meet(&scratch->arrived);
    if (pass == 1)  // everyone has read these
      for (int b = blockIdx.x * select_threads + threadIdx.x; b < select_buckets;
           b += gridDim.x * select_threads)
        scratch->counts[0][b] = 0;

    unsigned counts[per_thread];
    unsigned long long sum = 0, before = 0;
    for (int i = 0; i < per_thread; ++i)
      sum += counts[i] = __ldcg(&scratch->counts[pass][threadIdx.x * per_thread + i]);
    Scan(scan).ExclusiveSum(sum, before);
    if (before < wanted && wanted <= before + sum)  // true for one thread
      for (int i = 0; i < per_thread; ++i) {
        if (wanted <= before + counts[i]) {
          shared_prefix = prefix | (Key(threadIdx.x * per_thread + i) << shift);
          shared_wanted = wanted - before;
          shared_equal = counts[i];
          break;
        }
        before += counts[i];
      }
    __syncthreads();
    prefix = shared_prefix;
    wanted = shared_wanted;
    equal = shared_equal;
  }

  const bool take_all = wanted == equal;
  unsigned mine = 0;
  for_each_chunk([&](unsigned chunk, const Keys& keys) {
    const unsigned r = chunk / across;
    SelectChunk<std::uint8_t, Width> marks;
#pragma unroll
    for (int c = 0; c < Width; ++c) {
      marks.of[c] = keys.of[c] < prefix || (take_all && keys.of[c] == prefix);
      mine += keys.of[c] == prefix;
    }
    *reinterpret_cast<SelectChunk<std::uint8_t, Width>*>(
        &mask(begin + r, (chunk - r * across) * Width)) = marks;
  });
  if (take_all) return;  // alike in all blocks of threads

  __syncthreads();  // shared_equal has been read
  if (threadIdx.x == 0) shared_equal = 0;
  __syncthreads();
  if (mine > 0) atomicAdd(&shared_equal, static_cast<unsigned long long>(mine));
  __syncthreads();
  if (threadIdx.x == 0) scratch->ties[blockIdx.x] = shared_equal;
  meet(&scratch->arrived);
  if (warp > 0) return;
  for (unsigned b = 0; b < blockIdx.x; ++b) {
    const unsigned long long lower = __ldcg(&scratch->ties[b]);
    wanted -= min(wanted, lower);
  }
  for (index_t r = begin; r < end && wanted > 0; ++r)
    for (index_t first = 0; first < W.cols && wanted > 0; first += 32) {
      const index_t c = first + lane;
      const bool tie = c < W.cols && select_key(std::abs(W(r, c)) / d[c]) == prefix;
      const unsigned votes = __ballot_sync(~0u, tie);
      if (tie && unsigned(__popc(votes & ((1u << lane) - 1))) < wanted) mask(r, c) = 1;
      wanted -= min(wanted, static_cast<unsigned long long>(__popc(votes)));
    }
}

/// The selection of a Backend.
struct Selection {
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    const kernels::RowRun run{0, W.rows, k};
    select_smallest_of(W, d, std::span(&run, 1), mask);
  }

  template <class T>
  static void select_smallest_of(MatrixView<const T> W, MatrixView<const T> d,
                                 std::span<const kernels::RowRun> runs,
                                 MatrixView<std::uint8_t> mask) {
    std::vector<kernels::RowRun> some;  // with something to select
    for (const kernels::RowRun& run : runs)
      if (run.selected > 0)
        some.push_back(run);
      else
        check(cudaMemset2DAsync(mask.row(run.begin), std::size_t(mask.stride), 0,
                                std::size_t(mask.cols), std::size_t(run.rows), stream()),
              "cudaMemset2DAsync");
    with_tuning(Context::get().compute_capability, [&]<class Tuning>(Tuning) {
      const std::size_t most =
          std::size_t(std::min(select_max_runs, Context::get().multiprocessors));
      for (std::size_t first = 0; first < some.size(); first += most)
        launch<typename Tuning::select>(
            W, d.data, std::span(some).subspan(first, std::min(most, some.size() - first)), mask);
    });
  }

 private:
  using Runs = std::span<const kernels::RowRun>;

  template <class Cut, class T>
  static void launch(MatrixView<const T> W, const T* d, Runs runs, MatrixView<std::uint8_t> mask) {
    constexpr int wide = int(16 / sizeof(T));
    const auto lies_at = [](const void* data, index_t stride, std::size_t bytes) {
      return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 && stride % wide == 0;
    };
    if (W.cols % wide == 0 && lies_at(W.data, W.stride, 16) && lies_at(d, 0, 16) &&
        lies_at(mask.data, mask.stride, wide))
      launch<Cut, wide>(W, d, runs, mask);
    else
      launch<Cut, 1>(W, d, runs, mask);
  }

  template <class Cut, int Width, class T>
  static void launch(MatrixView<const T> W, const T* d, Runs given, MatrixView<std::uint8_t> mask) {
    constexpr index_t keys = Cut::keys * Cut::threads;  // of a block
    SelectRuns runs;
    std::copy(given.begin(), given.end(), runs.of);
    index_t rows = 0;  // of the longest run
    for (const kernels::RowRun& run : given) rows = std::max(rows, run.rows);
    // All blocks of a cooperative launch are on the GPU at the same time.
    const Context& context = Context::get();
    const index_t share = std::max<index_t>(1, context.multiprocessors / index_t(given.size()));
    const index_t blocks =
        std::min({(rows * W.cols + keys - 1) / keys, rows, share, index_t(select_max_blocks)});
    const auto kernel = select_kernel<Cut, Width, T>;
    constexpr index_t most = Cut::key_bytes;
    index_t bytes = (rows + blocks - 1) / blocks * W.cols * index_t(sizeof(T));
    bool cached = bytes <= most;
    if (!cached) bytes = 0;
    if (cached) allow_shared(kernel, int(most));
    SelectScratch* scratch = per_device<Scratch>().memory.data();
    void* arguments[] = {&W, &d, &runs, &mask, &scratch, &cached};
    check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel),
                                      dim3(unsigned(blocks), unsigned(given.size())),
                                      dim3(Cut::threads), arguments, std::size_t(bytes), stream()),
          "select_kernel");
  }

  /// One per device, zero at first.
  struct Scratch {
    DeviceMatrix<SelectScratch> memory{1, select_max_runs};
    Scratch() {
      check(cudaMemsetAsync(memory.data(), 0, select_max_runs * sizeof(SelectScratch), stream()),
            "cudaMemsetAsync");
    }
  };
};

}  // namespace pare::inline PARE_TARGET::backend::cuda
