// Pieces of work of the packed product: how a warp finds, loads and multiplies them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "pare/backend/cuda/packed_digits.cuh"

namespace pare::inline PARE_TARGET::backend::cuda::packing {

/// Where a warp is in the work of its block: it takes a unit of all the block's tiles, or of some
/// where there are fewer units than warps, before it goes to another unit. Codes wider than 4 bits
/// without a mask are taken in halves of a unit, which fit the registers.
struct Cursor {
  int unit, turn, half, tile, tier;
  int first_turn;  ///< of the warps that share a unit each begins with a tile of its own

  __device__ __forceinline__ bool start(const PackedTilesView& p, int first) {
    unit = int(threadIdx.x / 32);
    first_turn = 0;
    for (; first_turn + 1 < p.sharing && unit >= p.units; ++first_turn) unit -= p.units;
    if (unit >= p.units) return false;
    begin(first);
    return settle(p, first);
  }
  template <int mask_bits>
  __device__ __forceinline__ bool advance(const PackedTilesView& p, int first) {
    if (mask_bits == 0 && half == 0 && p.tiers[tier].bits > 4) {
      half = 1;
      return true;
    }
    half = 0;
    turn += p.sharing;
    tile += p.sharing * int(gridDim.x);
    return settle(p, first);
  }

 private:
  __device__ __forceinline__ void begin(int first) {
    turn = first_turn;
    tile = first + turn * int(gridDim.x);
    half = 0;
    tier = 0;
  }
  __device__ __forceinline__ bool settle(const PackedTilesView& p, int first) {
    if (turn >= p.turns || tile >= p.tiles) {
      unit += warps;
      if (unit >= p.units) return false;
      begin(first);
    }
    if (p.slots == 1)
      while (tile >= p.tiers[tier].last_tile) ++tier;
    else
      while (unit >= p.tiers[tier].first_unit + p.tiers[tier].units()) ++tier;
    return true;
  }
};

/// Copies of a warp to its stage by the copy engine, one at a time. They do not stand in front of
/// the warps' own loads.
struct WarpCopy {
  std::uint32_t stage, barrier;  ///< shared addresses
  std::uint32_t phase = 0;

  __device__ __forceinline__ WarpCopy(const void* stage_memory, std::uint64_t* barrier_memory)
      : stage(std::uint32_t(__cvta_generic_to_shared(stage_memory))),
        barrier(std::uint32_t(__cvta_generic_to_shared(barrier_memory))) {
    if (threadIdx.x % 32 == 0) {
      asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
  }

  /// To be called when no lane reads the stage any more.
  /// @param bytes  a multiple of 16
  __device__ __forceinline__ void start(const void* from, std::uint32_t bytes) {
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    expect(bytes);
    fetch(stage, from, bytes);
  }
  /// The same from and to two places.
  /// @param first_to, to  shared addresses
  __device__ __forceinline__ void start(std::uint32_t first_to, const void* first_from,
                                        std::uint32_t first_bytes, std::uint32_t to,
                                        const void* from, std::uint32_t bytes) {
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    expect(first_bytes + bytes);
    fetch(first_to, first_from, first_bytes);
    fetch(to, from, bytes);
  }

  /// Waits for what was started last.
  __device__ __forceinline__ void wait() {
    std::uint32_t done = 0;
    while (done == 0)
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(barrier), "r"(phase)
          : "memory");
    phase ^= 1;
  }

 private:
  __device__ __forceinline__ void expect(std::uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
  }
  __device__ __forceinline__ void fetch(std::uint32_t to, const void* from, std::uint32_t bytes) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
  }
};

/// The codes of an item without a mask: up to 4 pieces of 16 bytes of the rows g and g + 8.
struct Pieces {
  std::uint32_t word[2][16];

  /// Starts copying the item's pieces to the warp's stage. Grids of runs come before them there, twice:
  /// those of an item are read while the next item is copied.
  template <bool grouped>
  static __device__ __forceinline__ void copy(const PackedTilesView& p, const Cursor& at,
                                              WarpCopy& copy) {
    const PackedTier& tier = p.tiers[at.tier];
    const int unit = at.unit - tier.first_unit;
    const int lanes = tier.lanes(unit);
    // Of an odd number of pieces the middle one belongs to both halves.
    const int first = at.half * (tier.bits / 2);
    const int count = tier.bits > 4 ? (tier.bits + 1) / 2 : tier.bits;
    const int grids = grouped ? p.grid_words / 4 : 0;  // pieces
    const uint4* const from = reinterpret_cast<const uint4*>(p.codes) +
                              (tier.base + std::uint32_t(at.tile - tier.first_tile) * tier.stride +
                               std::uint32_t(unit * (16 * unit_chunks * tier.bits + grids)));
    const std::uint32_t bytes = std::uint32_t(count * 16 * lanes) * 16;
    if constexpr (grouped) {
      const int half = at.half * (grids / 2);
      copy.start(copy.stage + (copy.phase * std::uint32_t(grids) + std::uint32_t(half)) * 16,
                 from + half, std::uint32_t(tier.bits > 4 ? grids / 2 : grids) * 16,
                 copy.stage + std::uint32_t(2 * grids) * 16, from + grids + first * 16 * lanes,
                 bytes);
    } else {
      copy.start(from + first * 16 * lanes, bytes);
    }
  }

  template <int count>
  __device__ __forceinline__ void read(const PackedTilesView& p, const Cursor& at,
                                       const uint4* stage) {
    const PackedTier& tier = p.tiers[at.tier];
    const int lanes = tier.lanes(at.unit - tier.first_unit);
    const int lane = threadIdx.x % 32;
    // Of absent columns the digits are zero: any codes will do.
    const uint4* mine = stage + lane / 4 * lanes + min(lane % 4, lanes - 1);
#pragma unroll
    for (int j = 0; j < count; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint4 piece = mine[(2 * j + h) * 8 * lanes];
        word[h][4 * j] = piece.x;
        word[h][4 * j + 1] = piece.y;
        word[h][4 * j + 2] = piece.z;
        word[h][4 * j + 3] = piece.w;
      }
  }

  /// acc[0] + acc[1] += codes times digits.
  /// @tparam skipped  bits of the first piece that belong to the other half
  template <int bits, int skipped, int steps>
  __device__ __forceinline__ void multiply(const DigitReader& digits, int (&acc)[2][4]) const {
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t a[4];
      codes<bits, skipped>(0, step, a[0], a[2]);
      codes<bits, skipped>(1, step, a[1], a[3]);
      multiply_add(acc[step % 2], a[0], a[1], a[2], a[3], digits(step));
    }
  }

  /// Adds codes times digits to the totals, run by run.
  /// @tparam run_steps  steps of a run, or 1 where p.run_shift says how many
  /// @param half  of the unit, which the first of its steps is in
  template <int bits, int skipped, int steps, int run_steps>
  __device__ __forceinline__ void multiply(const PackedTilesView& p, const DigitReader& digits,
                                           int half, RunTotals& totals) const {
    constexpr int none[4] = {};
    int acc[4] = {};
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t a[4];
      codes<bits, skipped>(0, step, a[0], a[2]);
      codes<bits, skipped>(1, step, a[1], a[3]);
      multiply_add(acc, a[0], a[1], a[2], a[3], digits(step));
      const int shift = run_steps > 1 ? run_steps / 2 : p.run_shift;  // of 4 steps it is 2
      if (((step + 1) & ((1 << shift) - 1)) != 0) continue;
      totals.add((half * steps + step) >> shift, acc, none);
#pragma unroll
      for (int& sum : acc) sum = 0;
    }
  }

 private:
  /// Codes of a step, a byte each.
  template <int bits, int skipped>
  __device__ __forceinline__ void codes(int h, int step, std::uint32_t& low,
                                        std::uint32_t& high) const {
    if constexpr (bits == 2 || bits == 4) {
      const std::uint32_t w = word[h][step * bits / 4] >> (bits == 2 ? step % 2 * 4 : 0);
      constexpr std::uint32_t mask = ((1u << bits) - 1) * ones;
      low = w & mask;
      high = w >> bits & mask;
    } else {
      low = spread_four<bits>(four<bits>(h, skipped + step * 8 * bits));
      high = spread_four<bits>(four<bits>(h, skipped + step * 8 * bits + 4 * bits));
    }
  }

  template <int bits>
  __device__ __forceinline__ std::uint32_t four(int h, int at) const {
    const int shift = at % 32;
    if (shift + 4 * bits <= 32) return word[h][at / 32] >> shift;
    return __funnelshift_r(word[h][at / 32], word[h][at / 32 + 1], shift);
  }
};

/// The part of a lane in an item with a mask.
template <int mask_bits>
struct Streams {
  static constexpr int words = (chunk_steps * mask_bits + 31) / 32;
  std::uint32_t mask[2][words];
  std::uint32_t begin, end;  ///< words of the unit's codes

  /// Loads masks.
  __device__ __forceinline__ void load(const PackedTilesView& p, const Cursor& at) {
    const PackedTier& tier = p.tiers[at.tier];
    const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    const int unit = at.unit - tier.first_unit;
    const int lanes = tier.lanes(unit);
    const std::uint32_t* masks =
        p.masks +
        (tier.base + std::uint32_t(at.tile - tier.first_tile) * tier.stride +
         std::uint32_t(unit * (8 * unit_chunks * 2 * words))) +
        (g * lanes + c) * words;
    const std::uint32_t* place = p.unit_begin + (at.tile * p.units + at.unit);
    begin = place[0];
    end = place[1];
    struct alignas(words == 3 ? 4 : 4 * words) Words {
      std::uint32_t word[words];
    };
#pragma unroll
    for (int h = 0; h < 2; ++h, masks += 8 * lanes * words) {
      Words loaded{};
      if (c < lanes) loaded = *reinterpret_cast<const Words*>(masks);
#pragma unroll
      for (int w = 0; w < words; ++w) mask[h][w] = loaded.word[w];
    }
  }

  /// Has the codes fetched from memory; the stage is still in use.
  __device__ __forceinline__ void prefetch(const PackedTilesView& p) const {
    if (threadIdx.x % 32 == 0)
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p.codes + begin),
                   "r"((end - begin) * 4)
                   : "memory");
  }

  /// Starts copying the codes to the warp's stage.
  __device__ __forceinline__ void copy(const PackedTilesView& p, WarpCopy& copy) const {
    copy.start(p.codes + begin, (end - begin) * 4);
  }

  /// Adds codes times digits to `acc`, and the digits of what is pruned to `pruned`.
  /// @param stage   shared address of the codes
  /// @param totals  what both go to after every run, or nullptr
  template <int width, class Totals>
  __device__ __forceinline__ void multiply(const PackedTilesView& p, const DigitReader& digits,
                                           const std::uint32_t (&selectors)[512],
                                           std::uint32_t stage, int (&acc)[4], int (&pruned)[4],
                                           Totals totals) const {
    const std::uint32_t column = threadIdx.x % 32 * 4;
    const auto table = std::uint32_t(__cvta_generic_to_shared(selectors + (width == 4 ? 256 : 0)));
    // A pruned column takes the sign of the last of 8 bytes, which is no code where one is pruned:
    // made negative it gives 255. Not a constant, so that one instruction masks and sets.
    const std::uint32_t last_byte = p.kept_of_eight < 8 ? 0x80000000u : 0;
    std::uint32_t at[2] = {0, kept_of_first_row(p) * width};  // bits
#pragma unroll
    for (int step = 0; step < chunk_steps; ++step) {
      const uint2 b = digits(step);
      std::uint32_t codes[4], pruned_ones[4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const std::uint32_t index = index_of(h, step);
        const std::uint32_t selector = load_shared(table + index * 4);
        const std::uint32_t count = mask_bits == 8 ? __popc(index) : std::uint32_t(p.kept_of_eight);
        std::uint32_t low, high;
        eight<width>(stage, column, at[h], low, high);
        at[h] += count * width;
        if constexpr (width < 8) high |= last_byte;
        // Where none is pruned the last byte is a code, and the sign goes. Up to 4 bits a sum,
        // which another unit of the processor forms, reaches it only then.
        if constexpr (width <= 4 && mask_bits == 8)
          high += count << 28;
        else if constexpr (width < 8 && mask_bits == 8)
          high ^= count << 28 & 0x80000000u;
        codes[h] = select_bytes(low, high, selector);
        codes[h + 2] = select_bytes(low, high, selector >> 16);
        if constexpr (width == 8) {
          const std::uint32_t kept_ones[2] = {select_bytes(ones, ones, selector),
                                              select_bytes(ones, ones, selector >> 16)};
          codes[h] &= kept_ones[0] * 255u;
          codes[h + 2] &= kept_ones[1] * 255u;
          pruned_ones[h] = kept_ones[0] ^ ones;
          pruned_ones[h + 2] = kept_ones[1] ^ ones;
        }
      }
      multiply_add(acc, codes[0], codes[1], codes[2], codes[3], b);
      if constexpr (width == 8)
        multiply_add(pruned, pruned_ones[0], pruned_ones[1], pruned_ones[2], pruned_ones[3], b);
      else
        multiply_add_signed(pruned, codes[0], codes[1], codes[2], codes[3], b);
      if constexpr (!std::is_null_pointer_v<Totals>) {
        if (((step + 1) & ((1 << p.run_shift) - 1)) != 0) continue;
        part<width>(acc, pruned);
        totals->add(step >> p.run_shift, acc, pruned);
#pragma unroll
        for (int k = 0; k < 4; ++k) acc[k] = pruned[k] = 0;
      }
    }
    if constexpr (std::is_null_pointer_v<Totals>) part<width>(acc, pruned);
  }

 private:
  /// Takes what is pruned out of the sums of codes.
  template <int width>
  static __device__ __forceinline__ void part(int (&acc)[4], int (&pruned)[4]) {
    if constexpr (width < 8) {
      // Codes are the same as unsigned and as signed bytes, pruned weights 255 and -1.
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int as_signed = pruned[k];
        pruned[k] = (acc[k] - as_signed) >> 8;
        acc[k] = as_signed + pruned[k];
      }
    }
  }

  /// Weights of the row g that the lane's chunk keeps.
  __device__ __forceinline__ std::uint32_t kept_of_first_row(const PackedTilesView& p) const {
    if constexpr (mask_bits < 8) return std::uint32_t(chunk_steps * p.kept_of_eight);
    int count = 0;
#pragma unroll
    for (int w = 0; w < words; ++w) count += __popc(mask[0][w]);
    return std::uint32_t(count);
  }

  /// Which of the 8 columns of a step are kept.
  __device__ __forceinline__ std::uint32_t index_of(int h, int step) const {
    const int at = step * mask_bits, shift = at % 32;
    if constexpr (mask_bits == 8)
      return select_bytes(mask[h][at / 32], 0, 0x4440u + unsigned(shift / 8));
    constexpr std::uint32_t bits = (1u << mask_bits) - 1;
    if (shift + mask_bits > 32)
      return __funnelshift_r(mask[h][at / 32], mask[h][at / 32 + 1], shift) & bits;
    return mask[h][at / 32] >> shift & bits;
  }

  /// The 8 codes from bit `at` of the lane's stream on, a byte each; of 4 bits first those of even
  /// rank.
  template <int width>
  static __device__ __forceinline__ void eight(std::uint32_t stage, std::uint32_t column,
                                               std::uint32_t at, std::uint32_t& low,
                                               std::uint32_t& high) {
    // Words of a lane are 128 bytes apart, and so much is the stage aligned to.
    const std::uint32_t word = ((stage + at * 4) & ~127u) | column;
    const std::uint32_t next = load_shared(word + 128);
    const std::uint32_t first = __funnelshift_r(load_shared(word), next, at);
    if constexpr (width == 4) {
      low = first & 0x0f0f0f0fu;
      high = first >> 4 & 0x0f0f0f0fu;
    } else if constexpr (width < 4) {
      low = spread_four<width>(first);
      high = spread_four<width>(first >> 4 * width);
    } else {
      const std::uint32_t second = __funnelshift_r(next, load_shared(word + 256), at);
      low = spread_four<width>(first);
      high = spread_four<width>(width == 8 ? second : __funnelshift_r(first, second, 4 * width));
    }
  }
};

}  // namespace pare::backend::cuda::packing
