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

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/packed_arrange.hpp"
#include "pare/backend/cuda/packed_items.cuh"
#include "pare/backend/cuda/packed_values.cuh"
#include "pare/backend/cuda/rotate.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace packing {

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

}  // namespace packing

/// A quantized packed linear in device memory, ready to be multiplied by vectors.
class PackedTilesProduct {
 public:
  /// Rearranges and uploads the linear. Throws shape_error when the sums of its units
  /// do not fit the shared memory of a multiprocessor (from some 600,000 columns on),
  /// out_of_memory_error.
  explicit PackedTilesProduct(const PackedLinear& packed) {
    const PackedTiles tiles = arrange_tiles(packed);
    bytes_ = tiles.bytes();
    mask_bits_ = tiles.mask_bits;
    codes_ = upload(tiles.codes);
    masks_ = upload(tiles.masks);
    unit_begin_ = upload(tiles.unit_begin);
    column_of_ = upload(tiles.column_of);
    row_ends_ = upload(tiles.row_ends);
    view_.columns = int(tiles.columns);
    view_.tiles = tiles.tiles;
    view_.units = tiles.units;
    view_.sharing = std::max(1, packing::warps / view_.units);
    view_.slots = tiles.tiers_of_columns ? int(tiles.tiers.size()) : 1;
    run_steps_ = tiles.run_steps;
    view_.run_shift = run_steps_ / 2;  // of 1, 2 and 4
    view_.grid_words = tiles.grid_words();
    std::copy(tiles.tiers.begin(), tiles.tiers.end(), view_.tiers);
    view_.stage_words = packing::piece_words + 2 * view_.grid_words;
    if (mask_bits_ != 0) {
      selectors_ = upload(packing::selectors_of(tiles.kept_of));
      view_.kept_of_eight = tiles.kept_of_eight;
      // A window reads up to two words more.
      view_.stage_words = 32 * (tiles.longest_stream + 3) + view_.grid_words;
    }
    with_kernel([&](auto* kernel) { prepare(kernel); });
  }

  /// Bytes of device memory that a product reads, x aside.
  std::uint64_t bytes() const { return bytes_; }

  /// Queues y = W x.
  /// @param x  (in), device memory
  /// @param y  (out), device memory; must not overlap x
  void multiply(const float* x, float* y) const {
    PackedTilesView view = view_;
    view.codes = codes_.data();
    view.masks = masks_.data();
    view.unit_begin = unit_begin_.data();
    view.selectors = selectors_.data();
    view.column_of = column_of_.data();
    view.row_ends = row_ends_.data();
    with_kernel([&](auto* kernel) {
      packing::launch_early(kernel, blocks_, dim3(packing::threads), shared_bytes_,
                            "packed_product_kernel", view, x, y);
    });
  }

 private:
  template <class F>
  void with_kernel(const F& f) const {
    const bool gathered_columns = column_of_.size() > 0;
    switch (mask_bits_) {
      case 0:
        if (run_steps_ == 4) return f(&packing::packed_product_kernel<0, false, 4>);
        if (run_steps_ > 0) return f(&packing::packed_product_kernel<0, false, 1>);
        return gathered_columns ? f(&packing::packed_product_kernel<0, true, 0>)
                                : f(&packing::packed_product_kernel<0, false, 0>);
      case 4:
        return run_steps_ > 0 ? f(&packing::packed_product_kernel<4, false, 1>)
                              : f(&packing::packed_product_kernel<4, false, 0>);
      case 6:
        return run_steps_ > 0 ? f(&packing::packed_product_kernel<6, false, 1>)
                              : f(&packing::packed_product_kernel<6, false, 0>);
      default:
        if (run_steps_ > 0) return f(&packing::packed_product_kernel<8, false, 1>);
        return gathered_columns ? f(&packing::packed_product_kernel<8, true, 0>)
                                : f(&packing::packed_product_kernel<8, false, 0>);
    }
  }

  std::size_t shared_bytes(int turns) const {
    const bool grouped = run_steps_ > 0;
    const int sums = turns * view_.units * tile_rows;
    const int words = packing::digit_words + (grouped ? packing::run_sum_words : 0);
    return 4 * std::size_t(packing::warps) * std::size_t(view_.stage_words + words) +
           8 * std::size_t(sums +
                           (grouped           ? 0
                            : mask_bits_ == 0 ? view_.units
                                              : sums) +
                           turns * (grouped ? 1 : view_.slots) * tile_rows + packing::warps);
  }

  template <class Kernel>
  void prepare(Kernel* kernel) {
    int device = 0, limit = 0, resident = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "cudaDeviceGetAttribute");
    limit -= mask_bits_ == 0 ? 4 : 4 * 512;  // the selectors
    if (shared_bytes(1) > std::size_t(limit))
      throw shape_error("packed product: columns: expected what fits " + std::to_string(limit) +
                        " bytes of shared memory, got " + std::to_string(view_.columns) +
                        ", which take " + std::to_string(shared_bytes(1)));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit),
          "cudaFuncSetAttribute");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          "cudaFuncSetAttribute");
    const auto blocks_of = [&](int turns) {
      check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, packing::threads,
                                                          shared_bytes(turns)),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
      return std::max(1, resident * Context::get().multiprocessors);
    };
    // All tiles of a block between two barriers if its sums fit 8 KiB; every block as many tiles.
    const int tiles_of_block = (view_.tiles + blocks_of(1) - 1) / blocks_of(1);
    view_.turns = std::clamp(64 / view_.units, 1, tiles_of_block);
    blocks_ = std::min(blocks_of(view_.turns), (view_.tiles + tiles_of_block - 1) / tiles_of_block);
    shared_bytes_ = shared_bytes(view_.turns);
  }

  PackedTilesView view_;  // without the pointers
  DeviceMatrix<std::uint32_t> codes_, masks_, unit_begin_, selectors_;
  DeviceMatrix<std::int32_t> column_of_;
  DeviceMatrix<PackedRow> row_ends_;
  std::uint64_t bytes_ = 0;
  int mask_bits_ = 0, run_steps_ = 0, blocks_ = 0;
  std::size_t shared_bytes_ = 0;
};

/// A packed linear in device memory, ready to be multiplied by vectors: the GPU reads its packed
/// bits only, rearranged once when it is made.
///
/// A weight is s (c - z), not rounded to the checkpoint's type as unpack_row does. Quantized
/// linears are multiplied in integer arithmetic, exact per 512 columns: y differs from W x by at
/// most 2^-30 max|x| sum_j |w_ij| (max|x| taken as at least 2^-96) and one rounding to float; the
/// same input gives the same bytes on every GPU. Linears that were only pruned are summed in float.
class PackedProduct {
 public:
  /// Throws as PackedTilesProduct.
  explicit PackedProduct(const PackedLinear& packed)
      : rows_(packed.layout.rows), columns_(packed.layout.columns), rotation_(packed.rotation) {
    if (packed.layout.quantized())
      tiles_.emplace(packed);
    else
      values_.emplace(packed);
  }

  index_t rows() const { return rows_; }
  index_t columns() const { return columns_; }
  /// Bytes of device memory that a product reads, x aside.
  std::uint64_t bytes() const { return tiles_ ? tiles_->bytes() : values_->bytes(); }

  /// Queues y = W x on the thread's stream; where inputs are rotated x is rotated first. A number in x
  /// that is not finite makes every y NaN.
  /// @param x  (1, in), device memory
  /// @param y  (1, out), device memory; must not overlap x
  /// @throws shape_error, device_error
  void multiply(MatrixView<const float> x, MatrixView<float> y) const {
    require_shape("packed product: x", {1, columns_}, {x.rows, x.cols});
    require_shape("packed product: y", {1, rows_}, {y.rows, y.cols});
    DeviceMatrix<float> turned;  // (1, in)
    if (rotation_) {
      turned.resize(1, columns_);
      Rotations::rotate_rows<float>(turned.view(), x, *rotation_, false);
      x = std::as_const(turned).view();
    }
    if (tiles_)
      tiles_->multiply(x.data, y.data);
    else
      values_->multiply(x.data, y.data);
  }

 private:
  index_t rows_, columns_;
  std::optional<kernels::HadamardRotation> rotation_;
  std::optional<PackedTilesProduct> tiles_;
  std::optional<PackedValuesProduct> values_;
};

}  // namespace pare::backend::cuda
