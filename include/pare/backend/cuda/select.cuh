// The exact k smallest scores of a block: radix selection in one launch, nothing on the host.
#pragma once

#include <cooperative_groups.h>

#include <algorithm>
#include <cub/block/block_scan.cuh>

#include "pare/backend/cuda/tuning.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

inline constexpr int select_digit_bits = 11, select_buckets = 1 << select_digit_bits;
inline constexpr int select_max_passes = 6;  ///< digits of a float64 key
/// Upper limit of the blocks of threads of one selection; no device has more multiprocessors.
inline constexpr int select_max_blocks = 256;

/// What the blocks of threads of a selection share. counts[0] is zero between selections.
struct SelectScratch {
  unsigned counts[select_max_passes][select_buckets];  ///< keys per digit, by pass
  unsigned long long ties[select_max_blocks];          ///< keys equal to the k-th, by block
};

/// Bits of a non-negative number without its sign; they order as the numbers do.
__device__ inline std::uint32_t select_key(float score) { return __float_as_uint(score); }
__device__ inline std::uint64_t select_key(double score) {
  return static_cast<std::uint64_t>(__double_as_longlong(score));
}

/// Marks the k smallest |w_ij| / d_j of W, k >= 1; ties go to the lower row-major index.
///
/// The k-th smallest key is found digit by digit: every block of threads counts its rows' keys, the
/// counts meet in `scratch`, and every block finds the digit for itself. Keys are computed anew in
/// every pass; a block of columns lies in the L2 cache. Needs a cooperative launch.
/// @tparam Cut  a SelectCut
template <class Cut, class T>
__global__ void __launch_bounds__(Cut::threads)
    select_kernel(MatrixView<const T> W, const T* d, unsigned long long k,
                  MatrixView<std::uint8_t> mask, SelectScratch* scratch) {
  using Key = decltype(select_key(T{}));
  constexpr int select_threads = Cut::threads;
  using Scan = cub::BlockScan<unsigned long long, select_threads>;
  constexpr int key_bits = int(sizeof(Key)) * 8 - 1;
  constexpr int per_thread = select_buckets / select_threads;
  __shared__ unsigned local[select_buckets];
  __shared__ typename Scan::TempStorage scan;
  __shared__ Key shared_prefix;
  __shared__ unsigned long long shared_wanted, shared_equal;

  const auto grid = cooperative_groups::this_grid();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = select_threads / 32;
  // Consecutive rows, so that ties of lower blocks come first.
  const index_t height = (W.rows + gridDim.x - 1) / gridDim.x;
  const index_t begin = min(W.rows, blockIdx.x * height), end = min(W.rows, begin + height);
  const auto key_of = [&](index_t r, index_t c) { return select_key(std::abs(W(r, c)) / d[c]); };
  const auto for_each_key = [&](const auto& f) {
    for (index_t r = begin + warp; r < end; r += warps)
#pragma unroll 4
      for (index_t c = lane; c < W.cols; c += 32) f(r, c, key_of(r, c));
  };

  Key prefix = 0;                 // leading digits of the k-th smallest key
  unsigned long long wanted = k;  // how many of the keys with that prefix are still to be taken
  unsigned long long equal = 0;   // how many keys have that prefix
  for (int above = key_bits, pass = 0; above > 0; ++pass) {
    const int shift = max(0, above - select_digit_bits);
    const unsigned digit_mask = (1u << (above - shift)) - 1;
    for (int b = threadIdx.x; b < select_buckets; b += select_threads) local[b] = 0;
    __syncthreads();
    for_each_key([&](index_t, index_t, Key key) {
      if ((key >> above) == (prefix >> above))
        atomicAdd(&local[unsigned(key >> shift) & digit_mask], 1u);
    });
    __syncthreads();
    for (int b = threadIdx.x; b < select_buckets; b += select_threads)
      if (local[b] != 0) atomicAdd(&scratch->counts[pass][b], local[b]);
    if (pass == 0)  // later passes' counts may be left from the last selection
      for (int b = blockIdx.x * select_threads + threadIdx.x;
           b < (select_max_passes - 1) * select_buckets; b += gridDim.x * select_threads)
        scratch->counts[1][b] = 0;
    grid.sync();
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
    above = shift;
  }

  const bool take_all = wanted == equal;
  unsigned mine = 0;
  for_each_key([&](index_t r, index_t c, Key key) {
    mask(r, c) = key < prefix || (take_all && key == prefix);
    mine += key == prefix;
  });
  if (take_all) return;  // alike in all blocks of threads

  __syncthreads();  // shared_equal has been read
  if (threadIdx.x == 0) shared_equal = 0;
  __syncthreads();
  if (mine > 0) atomicAdd(&shared_equal, static_cast<unsigned long long>(mine));
  __syncthreads();
  if (threadIdx.x == 0) scratch->ties[blockIdx.x] = shared_equal;
  grid.sync();
  if (warp > 0) return;
  for (unsigned b = 0; b < blockIdx.x; ++b) {
    const unsigned long long lower = __ldcg(&scratch->ties[b]);
    wanted -= min(wanted, lower);
  }
  for (index_t r = begin; r < end && wanted > 0; ++r)
    for (index_t first = 0; first < W.cols && wanted > 0; first += 32) {
      const index_t c = first + lane;
      const bool tie = c < W.cols && key_of(r, c) == prefix;
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
    if (k == 0) {
      check(cudaMemset2DAsync(mask.data, std::size_t(mask.stride), 0, std::size_t(mask.cols),
                              std::size_t(mask.rows), stream()),
            "cudaMemset2DAsync");
      return;
    }
    with_tuning(Context::get().compute_capability, [&]<class Tuning>(Tuning) {
      launch<typename Tuning::select>(W, d.data, static_cast<unsigned long long>(k), mask);
    });
  }

 private:
  template <class Cut, class T>
  static void launch(MatrixView<const T> W, const T* d, unsigned long long k,
                     MatrixView<std::uint8_t> mask) {
    constexpr index_t keys = Cut::keys * Cut::threads;  // of a block
    const index_t blocks =
        std::min({(W.size() + keys - 1) / keys, W.rows, index_t(Context::get().multiprocessors),
                  index_t(select_max_blocks)});
    SelectScratch* scratch = per_device<Scratch>().memory.data();
    void* arguments[] = {&W, &d, &k, &mask, &scratch};
    check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(select_kernel<Cut, T>),
                                      dim3(unsigned(blocks)), dim3(Cut::threads), arguments, 0,
                                      stream()),
          "select_kernel");
  }

  /// One per device, zero at first.
  struct Scratch {
    DeviceMatrix<SelectScratch> memory{1, 1};
    Scratch() {
      check(cudaMemsetAsync(memory.data(), 0, sizeof(SelectScratch), stream()), "cudaMemsetAsync");
    }
  };
};

}  // namespace pare::backend::cuda
