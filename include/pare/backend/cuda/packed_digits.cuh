// x as signed 8-bit digits, and what turns codes into operands of the matrix units.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "pare/backend/cuda/packed_tiles.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// What the kernel reads: PackedTiles in device memory.
struct PackedTilesView {
  int columns = 0, tiles = 0, units = 0;
  int slots = 1;        ///< tiers of a tile
  int sharing = 1;      ///< warps that share a unit, where there are fewer units than warps
  int turns = 1;        ///< tiles that a block works on between two barriers
  int stage_words = 0;  ///< of a warp, for the codes of an item
  int run_shift = 0;    ///< logarithm of PackedTiles::run_steps, where there are runs
  int grid_words = 0;   ///< of a unit's runs
  int kept_of_eight = 0;
  PackedTier tiers[most_tiers];
  const std::uint32_t *codes = nullptr, *masks = nullptr, *unit_begin = nullptr;
  const std::uint32_t* selectors = nullptr;  // (2, 256): linear, even and odd apart
  const std::int32_t* column_of = nullptr;
  const PackedRow* row_ends = nullptr;  // (slots, tiles * 16); with runs (tiles * 16)
};

namespace packing {

inline constexpr int warps = 8;
inline constexpr int threads = 32 * warps;
/// Words of the digits of a unit's columns.
inline constexpr int digit_words = unit_columns;
/// Words of the sums of a unit's runs.
inline constexpr int run_sum_words = 2 * chunk_steps;
/// Words that the codes of a warp's item without a mask take, at most: 8 pieces per lane.
inline constexpr int piece_words = 8 * 32 * 4;

inline constexpr std::uint32_t ones = 0x01010101u;

/// acc += A B with A (16, 32) unsigned bytes, B (32, 8) signed bytes.
__device__ __forceinline__ void multiply_add(int (&acc)[4], std::uint32_t a0, std::uint32_t a1,
                                             std::uint32_t a2, std::uint32_t a3, uint2 b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y));
}

/// The same with A taken as signed bytes.
__device__ __forceinline__ void multiply_add_signed(int (&acc)[4], std::uint32_t a0,
                                                    std::uint32_t a1, std::uint32_t a2,
                                                    std::uint32_t a3, uint2 b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y));
}

/// Bytes of the 8 of `low` and `high` by the lower four digits of `selector`; a digit of 15 takes
/// the sign of the last of them, 0 or 255.
__device__ __forceinline__ std::uint32_t select_bytes(std::uint32_t low, std::uint32_t high,
                                                      std::uint32_t selector) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selector));
  return bytes;
}

__device__ __forceinline__ std::uint32_t load_shared(std::uint32_t address) {
  std::uint32_t word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
  return word;
}

/// Four codes of `bits` bits, the lowest of `v`, to a byte each.
template <int bits>
__device__ __forceinline__ std::uint32_t spread_four(std::uint32_t v) {
  if constexpr (bits == 8) {
    return v;
  } else {
    constexpr std::uint32_t pair = (1u << 2 * bits) - 1, one = (1u << bits) - 1;
    v = (v & pair) | ((v << (16 - 2 * bits)) & pair << 16);
    if constexpr (bits <= 4)  // what the shift leaves behind lies outside of the mask
      return (v | v << (8 - bits)) & one * ones;
    else
      return (v & one * 0x00010001u) | ((v << (8 - bits)) & one * 0x01000100u);
  }
}

/// Where the digits of x lie: for every step of a unit 16 pairs of words, of a digit and a chunk
/// each; digits are turned from step to step so that neither writing nor reading meets a bank
/// twice.
__device__ __forceinline__ int digit_place(int step, int digit, int chunk) {
  return step * 32 + ((digit + step) % 4 * 4 + chunk) * 2;
}

/// What a lane needs to find its part of the digits.
struct DigitReader {
  const std::uint32_t* digits;
  int digit, chunk;
  __device__ __forceinline__ uint2 operator()(int step) const {
    return *reinterpret_cast<const uint2*>(digits + digit_place(step, digit, chunk));
  }
};

/// x at 8 neighbouring places.
struct EightNumbers {
  float value[step_columns];

  template <bool gathered_columns>
  __device__ __forceinline__ void load(const PackedTilesView& p, const float* x, int first) {
    if constexpr (gathered_columns) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int4 columns = reinterpret_cast<const int4*>(p.column_of + first)[half];
        value[4 * half] = number(x, columns.x);
        value[4 * half + 1] = number(x, columns.y);
        value[4 * half + 2] = number(x, columns.z);
        value[4 * half + 3] = number(x, columns.w);
      }
    } else if (first + step_columns <= p.columns && reinterpret_cast<std::uintptr_t>(x) % 16 == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 four = reinterpret_cast<const float4*>(x + first)[half];
        value[4 * half] = four.x;
        value[4 * half + 1] = four.y;
        value[4 * half + 2] = four.z;
        value[4 * half + 3] = four.w;
      }
    } else {
#pragma unroll
      for (int k = 0; k < step_columns; ++k)
        value[k] = number(x, first + k < p.columns ? first + k : -1);
    }
  }

  /// The bits of the largest |x|: they order as the numbers do, NaN last.
  __device__ __forceinline__ unsigned largest() const {
    float most = 0;
#pragma unroll
    for (int k = 0; k < step_columns; ++k)
      asm("max.NaN.f32 %0, %0, %1;" : "+f"(most) : "f"(fabsf(value[k])));
    return __float_as_uint(most) & 0x7fffffffu;
  }

  /// Writes the four digits of each and adds them to `sums`.
  __device__ __forceinline__ void write(float scale, std::uint32_t* digits, int step, int chunk,
                                        int (&sums)[4]) const {
    std::uint32_t of_digit[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t w[4];  // the digits, the lower three plus 128
#pragma unroll
      for (int k = 0; k < 4; ++k)
        w[k] = std::uint32_t(__float2int_rn(value[4 * half + k] * scale)) + 0x00808080u;
      const std::uint32_t low01 = __byte_perm(w[0], w[1], 0x5140);
      const std::uint32_t low23 = __byte_perm(w[2], w[3], 0x5140);
      const std::uint32_t high01 = __byte_perm(w[0], w[1], 0x7362);
      const std::uint32_t high23 = __byte_perm(w[2], w[3], 0x7362);
      of_digit[half][0] = __byte_perm(low01, low23, 0x5410) ^ 128 * ones;
      of_digit[half][1] = __byte_perm(low01, low23, 0x7632) ^ 128 * ones;
      of_digit[half][2] = __byte_perm(high01, high23, 0x5410) ^ 128 * ones;
      of_digit[half][3] = __byte_perm(high01, high23, 0x7632);
    }
#pragma unroll
    for (int d = 0; d < 4; ++d) {
      *reinterpret_cast<uint2*>(digits + digit_place(step, d, chunk)) =
          make_uint2(of_digit[0][d], of_digit[1][d]);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        sums[d] = __dp4a(int(of_digit[half][d]), int(ones), sums[d]);
    }
  }

 private:
  static __device__ __forceinline__ float number(const float* x, int column) {
    return column >= 0 ? x[column] : 0;
  }
};

/// Reads a unit's numbers, lets the next kernel launch, and writes the digits for the warp. Returns
/// what the sums count in, NaN when a number is not finite.
/// @tparam grouped  there are runs: the sums of their numbers, (runs, 2), each of two digits, are written
///                  after the digits
/// @param sum  receives the sum of the numbers as the digits say them, where there are no runs
template <bool gathered_columns, bool grouped>
__device__ __forceinline__ double write_digits(const PackedTilesView& p, const float* x, int unit,
                                               std::uint32_t* digits, double& sum) {
  const int lane = threadIdx.x % 32, chunk = lane % unit_chunks;
  constexpr int eights = chunk_steps / lane_steps;
  const auto step = [&](int e) { return lane / unit_chunks + e * lane_steps; };
  EightNumbers numbers[eights];
#pragma unroll
  for (int e = 0; e < eights; ++e) {
    const int place = (unit * unit_chunks + chunk) * chunk_columns + step(e) * step_columns;
    if constexpr (!grouped) {
      numbers[e].load<gathered_columns>(p, x, place);
    } else if (p.column_of != nullptr) {
      numbers[e].load<true>(p, x, place);
    } else {  // as place_groups places neighbours
      const int lanes = p.tiers[0].lanes(unit);
      numbers[e].load<false>(p, x,
                             chunk < lanes
                                 ? unit * unit_columns + (step(e) * lanes + chunk) * step_columns
                                 : p.columns);
    }
  }
  // The next kernel may start to load its weights, which depend on nothing before, behind the loads
  // of x.
  cudaTriggerProgrammaticLaunchCompletion();
  unsigned largest = 0;
#pragma unroll
  for (int e = 0; e < eights; ++e) largest = max(largest, numbers[e].largest());
  largest = __reduce_max_sync(~0u, largest);
  // |x| < 2^exponent; below 2^-96 numbers keep an absolute accuracy only.
  const int exponent = max(int(largest >> 23) - 126, -96);
  const bool finite = largest < 0x7f800000u;
  const float scale = finite ? __uint_as_float(unsigned(127 + 30 - exponent) << 23) : 0.0f;
  const double unit_of_x = __hiloint2double(finite ? (1023 + exponent - 30) << 20 : 0x7ff80000, 0);
  if constexpr (grouped) {
#pragma unroll
    for (int e = 0; e < eights; ++e) {
      int sums[4] = {};
      numbers[e].write(scale, digits, step(e), chunk, sums);
      int low = sums[0] + 256 * sums[1], high = sums[2] + 256 * sums[3];
      for (int lanes = 1; lanes < unit_chunks << p.run_shift; lanes *= 2) {
        low += __shfl_xor_sync(~0u, low, lanes);
        high += __shfl_xor_sync(~0u, high, lanes);
      }
      if (chunk == 0)  // every step of a run has its sums
        *reinterpret_cast<int2*>(digits + digit_words + 2 * (step(e) >> p.run_shift)) =
            make_int2(low, high);
    }
    __syncwarp();
  } else {
    int sums[4] = {};
#pragma unroll
    for (int e = 0; e < eights; ++e) numbers[e].write(scale, digits, step(e), chunk, sums);
    const int low = __reduce_add_sync(~0u, sums[0] + 256 * sums[1]);
    const int high = __reduce_add_sync(~0u, sums[2] + 256 * sums[3]);
    __syncwarp();
    sum = (double(low) + 65536 * double(high)) * unit_of_x;
  }
  return unit_of_x;
}

/// Sums of four digits as one number, for the rows g and g + 8; right in the lanes of chunk 0.
__device__ __forceinline__ double2 join_digits(const int (&acc)[4], double unit_of_x) {
  const double weight = threadIdx.x % 4 == 1 ? unit_of_x * 65536 : unit_of_x;
  double low = (double(acc[0]) + 256 * double(acc[1])) * weight;
  double high = (double(acc[2]) + 256 * double(acc[3])) * weight;
  low += __shfl_xor_sync(~0u, low, 1);
  high += __shfl_xor_sync(~0u, high, 1);
  return make_double2(low, high);
}

/// The same of sums that are joined by two already.
__device__ __forceinline__ double2 join_digits(const double (&total)[2], double unit_of_x) {
  const double weight = threadIdx.x % 4 == 1 ? unit_of_x * 65536 : unit_of_x;
  const double first = total[0] * weight, second = total[1] * weight;
  return make_double2(first + __shfl_xor_sync(~0u, first, 1),
                      second + __shfl_xor_sync(~0u, second, 1));
}

/// Sums over runs, each on a grid of its own, of a lane's two digits and its rows g and g + 8.
struct RunTotals {
  const std::uint32_t* grids;     ///< of the unit, shared memory, (runs, 16), see grid_word
  const std::uint32_t* run_sums;  ///< of the unit, shared memory, (runs, 2)
  double total[2] = {};

  /// Adds s (codes - z (x - pruned)). Of 128 columns that is below 2^31 without s.
  /// @param run     of the unit
  /// @param codes   sums of codes times digits
  /// @param pruned  sums of the digits of what is pruned
  __device__ __forceinline__ void add(int run, const int (&codes)[4], const int (&pruned)[4]) {
    const int lane = threadIdx.x % 32;
    const int x = int(run_sums[2 * run + lane % 2]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::uint32_t grid = grids[run * tile_rows + 8 * h + lane / 4];
      const int kept = x - (pruned[2 * h] + 256 * pruned[2 * h + 1]);
      const int sum = codes[2 * h] + 256 * codes[2 * h + 1] - int(grid & 255) * kept;
      total[h] = fma(scale_of(grid), wide(sum), total[h]);
    }
  }

 private:
  /// The scale of a grid_word: bits are moved, which takes less time than to convert a float.
  static __device__ __forceinline__ double scale_of(std::uint32_t grid) {
    return __hiloint2double(int((grid >> 4 & 0x0ffffff0u) + (896u << 20)), 0);
  }
  /// double(v): 2^52 + 2^31 + v has v in its lower word. A conversion takes four times as long.
  static __device__ __forceinline__ double wide(int v) {
    return __hiloint2double(0x43300000, v ^ int(0x80000000u)) - 4503601774854144.0;
  }
};

}  // namespace packing
}  // namespace pare::backend::cuda
