// y = W x from the packed bits of W, on the GPU: integer sums on the matrix units.
//
// 512 numbers of x at a time become whole numbers, multiples of 2^-30 of the power of two above the
// largest, and each of these four signed 8-bit digits. A code is at most 8 bits, so all products
// and sums of a unit are integers that fit 32 bits: no rounding. The digits are four of the eight
// columns that a matrix instruction multiplies anyway. Units are added in double, in their order.
//
// Where a row has several grids, an instruction multiplies columns of one grid only, and after every
// run of steps on one grid its integers, still exact, are multiplied by the scale and added in double.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/packed_items.cuh"

namespace pare::inline PARE_TARGET::backend::cuda::packing {

/// y = W x.
/// @tparam mask_bits         as in PackedTiles
/// @tparam gathered_columns  x is read in the order of `column_of`, where there are no runs
/// @tparam run_steps         steps of a run, or 1 where p.run_shift says how many; 0: no runs
template <int mask_bits, bool gathered_columns, int run_steps>
__global__ void __launch_bounds__(threads, 4)
    packed_product_kernel(const __grid_constant__ PackedTilesView p, const float* x, float* y) {
  extern __shared__ __align__(128) uint4 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  std::uint32_t* const stages = reinterpret_cast<std::uint32_t*>(shared);
  std::uint32_t* const stage = stages + warp * p.stage_words;
  std::uint32_t* const all_digits = stages + warps * p.stage_words;
  constexpr bool grouped = run_steps > 0;
  constexpr int warp_words = digit_words + (grouped ? run_sum_words : 0);
  std::uint32_t* const digits = all_digits + warp * warp_words;
  // Sums of codes times numbers, (turns, units, 16), and of the numbers that are kept: with a mask
  // for every row, without one (units); with runs both are one, and times scales.
  double* const sums = reinterpret_cast<double*>(all_digits + warps * warp_words);
  double* const kept_sums = sums + p.turns * p.units * tile_rows;
  PackedRow* const ends = reinterpret_cast<PackedRow*>(
      kept_sums + (grouped ? 0 : p.units * (mask_bits == 0 ? 1 : p.turns * tile_rows)));
  const int slots = grouped ? 1 : p.slots;  // of the ends, (turns, slots, 16)
  std::uint64_t* const barriers =
      reinterpret_cast<std::uint64_t*>(ends + p.turns * slots * tile_rows);
  __shared__ std::uint32_t selectors[mask_bits == 0 ? 1 : 512];

  WarpCopy copy(stage, barriers + warp);
  for (int first = blockIdx.x; first < p.tiles; first += p.turns * int(gridDim.x)) {
    Cursor cursor;
    bool busy = cursor.start(p, first);
    [[maybe_unused]] Streams<mask_bits == 0 ? 8 : mask_bits> streams;
    if (busy) {
      if constexpr (mask_bits == 0) {
        Pieces::copy<grouped>(p, cursor, copy);
      } else {
        streams.load(p, cursor);
        streams.copy(p, copy);
      }
    }
    for (int i = threadIdx.x; i < p.turns * slots * tile_rows; i += threads) {
      const int tile = first + i / (slots * tile_rows) * int(gridDim.x);
      if (tile >= p.tiles) break;
      const PackedRow* from = p.row_ends + i / tile_rows % slots * (p.tiles * tile_rows) +
                              tile * tile_rows + i % tile_rows;
      asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(
                       std::uint32_t(__cvta_generic_to_shared(ends + i))),
                   "l"(from)
                   : "memory");
    }
    if (first == int(blockIdx.x)) {
      if constexpr (mask_bits != 0) {
        for (int i = threadIdx.x; i < 512; i += threads) selectors[i] = p.selectors[i];
        __syncthreads();
      }
      cudaGridDependencySynchronize();
    }

    const DigitReader all{digits, lane / 4 % 4, lane % 4};
    int unit = -1;
    double unit_of_x = 0, sum_of_x = 0;
    while (busy) {
      if (cursor.unit != unit) {
        __syncwarp();
        unit = cursor.unit;
        unit_of_x = write_digits<gathered_columns, grouped>(p, x, unit, digits, sum_of_x);
        if (!grouped && mask_bits == 0 && lane == 0) kept_sums[unit] = sum_of_x;
      }
      const Cursor at = cursor;
      const int bits = p.tiers[at.tier].bits;
      busy = cursor.advance<mask_bits>(p, first);
      const int place = (at.turn * p.units + unit) * tile_rows + lane / 4;
      [[maybe_unused]] RunTotals totals{stage, digits + digit_words};
      if constexpr (mask_bits == 0) {
        [[maybe_unused]] int acc[2][4] = {};
        DigitReader reader = all;
        reader.digits += at.half * (digit_words / 2);
        pare::detail::with_code_bits(bits, [&](auto width) {
          constexpr int bits = decltype(width)::value;
          constexpr int count = bits > 4 ? (bits + 1) / 2 : bits;
          constexpr int steps = bits > 4 ? chunk_steps / 2 : chunk_steps;
          Pieces pieces;
          if constexpr (grouped) totals.grids = stage + copy.phase * std::uint32_t(p.grid_words);
          copy.wait();
          pieces.read<count>(p, at,
                             reinterpret_cast<const uint4*>(grouped ? stage + 2 * p.grid_words
                                                                    : stage));
          if (busy) Pieces::copy<grouped>(p, cursor, copy);
          const auto multiply = [&](auto skipped) {
            if constexpr (grouped)
              pieces.multiply<bits, decltype(skipped)::value, steps, run_steps>(p, reader, at.half,
                                                                                totals);
            else
              pieces.multiply<bits, decltype(skipped)::value, steps>(reader, acc);
          };
          if (bits > 4 && bits % 2 != 0 && at.half != 0)
            multiply(std::integral_constant<int, 64>{});
          else
            multiply(std::integral_constant<int, 0>{});
        });
        double2 sum;
        if constexpr (grouped) {
          sum = join_digits(totals.total, unit_of_x);
        } else {
#pragma unroll
          for (int k = 0; k < 4; ++k) acc[0][k] += acc[1][k];
          sum = join_digits(acc[0], unit_of_x);
        }
        if (lane % 4 == 0) {
          if (at.half != 0) {
            sum.x += sums[place];
            sum.y += sums[place + 8];
          }
          sums[place] = sum.x;
          sums[place + 8] = sum.y;
        }
      } else {
        Streams<mask_bits> next;
        if (busy) {
          next.load(p, cursor);
          next.prefetch(p);
        }
        int acc[4] = {}, pruned[4] = {};
        copy.wait();
        pare::detail::with_code_bits(bits, [&](auto width) {
          constexpr int width_bits = decltype(width)::value;
          if constexpr (grouped)
            streams.template multiply<width_bits>(p, all, selectors,
                                                  copy.stage + 4 * std::uint32_t(p.grid_words), acc,
                                                  pruned, &totals);
          else
            streams.template multiply<width_bits>(p, all, selectors, copy.stage, acc, pruned,
                                                  nullptr);
        });
        streams = next;
        if (busy) streams.copy(p, copy);
        if constexpr (grouped) {
          const double2 sum = join_digits(totals.total, unit_of_x);
          if (lane % 4 == 0) {
            sums[place] = sum.x;
            sums[place + 8] = sum.y;
          }
        } else {
          const double2 sum = join_digits(acc, unit_of_x), without = join_digits(pruned, unit_of_x);
          if (lane % 4 == 0) {
            sums[place] = sum.x;
            sums[place + 8] = sum.y;
            kept_sums[place] = sum_of_x - without.x;
            kept_sums[place + 8] = sum_of_x - without.y;
          }
        }
      }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();

    for (int i = threadIdx.x; i < p.turns * tile_rows; i += threads) {
      const int turn = i / tile_rows, row = i % tile_rows;
      if (first + turn * int(gridDim.x) >= p.tiles) break;
      double result = 0;
      int to = -1;
      if constexpr (grouped) {
        to = ends[turn * tile_rows + row].row;
        for (int u = 0; u < p.units; ++u) result += sums[(turn * p.units + u) * tile_rows + row];
      }
      for (int s = 0; !grouped && s < slots; ++s) {
        const PackedRow end = ends[(turn * slots + s) * tile_rows + row];
        to = end.row;
        double sum = 0, kept = 0;
        const int first_unit = p.tiers[s].first_unit;
        for (int u = first_unit; u < first_unit + p.tiers[s].units(); ++u) {
          const int place = (turn * p.units + u) * tile_rows + row;
          sum += sums[place];
          kept += kept_sums[mask_bits == 0 ? u : place];
        }
        result += double(half_to_float(end.scale)) * (sum - double(end.zero) * kept);
      }
      if (to >= 0) y[to] = float(result);
    }
    if (first + p.turns * int(gridDim.x) < p.tiles) __syncthreads();
  }
}

/// Launches so that the kernel may begin while the one before it in the stream ends; it waits for
/// that one's results itself.
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), int blocks, dim3 threads_per_block,
                  std::size_t shared_bytes, const char* name, Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = threads_per_block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream();
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

/// For every index of 8 columns, from which byte each takes its code: of codes in order, and of
/// codes whose even ranks come before the odd ones. Pruned columns take the sign of the last byte.
inline std::vector<std::uint32_t> selectors_of(const std::vector<std::uint8_t>& kept_of) {
  std::vector<std::uint32_t> selectors(512, 0xffffffffu);
  for (std::size_t index = 0; index < kept_of.size(); ++index) {
    std::uint32_t linear = 0, apart = 0, rank = 0;
    for (int k = 0; k < step_columns; ++k) {
      const bool kept = (kept_of[index] >> k & 1) != 0;
      linear |= (kept ? rank : 15u) << 4 * k;
      apart |= (kept ? rank % 2 * 4 + rank / 2 : 15u) << 4 * k;
      rank += kept;
    }
    selectors[index] = linear;
    selectors[256 + index] = apart;
  }
  return selectors;
}

}  // namespace pare::backend::cuda::packing
