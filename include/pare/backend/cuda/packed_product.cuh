// Packed linears in device memory and their products with vectors. The classes are templates so that
// only programs that multiply compile the kernels, which takes nvcc longer than all the rest.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <concepts>
#include <optional>
#include <string>
#include <utility>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/packed_arrange.hpp"
#include "pare/backend/cuda/packed_kernel.cuh"
#include "pare/backend/cuda/packed_values.cuh"
#include "pare/backend/cuda/rotate.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// A quantized packed linear in device memory, ready to be multiplied by vectors.
/// @tparam T  of x and y
template <std::same_as<float> T>
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
  void multiply(const T* x, T* y) const {
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
    int limit = Context::get().shared_bytes, resident = 0;
    limit -= mask_bits_ == 0 ? 4 : 4 * 512;  // the selectors
    if (shared_bytes(1) > std::size_t(limit))
      throw shape_error("packed product: columns: expected what fits " + std::to_string(limit) +
                        " bytes of shared memory, got " + std::to_string(view_.columns) +
                        ", which take " + std::to_string(shared_bytes(1)));
    allow_shared(kernel, limit);
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
/// @tparam T  of x and y
template <std::same_as<float> T = float>
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

  /// Queues Y = X W^T on the thread's stream, a product for every token; where inputs are rotated X is
  /// rotated first. A number that is not finite makes every y of its token NaN.
  /// @param X  (tokens, in), device memory
  /// @param Y  (tokens, out), device memory; must not overlap X
  /// @throws shape_error, device_error
  void multiply(MatrixView<const T> X, MatrixView<T> Y) const {
    require_shape("packed product: x", {X.rows, columns_}, {X.rows, X.cols});
    require_shape("packed product: y", {X.rows, rows_}, {Y.rows, Y.cols});
    DeviceMatrix<T> turned;  // (tokens, in)
    if (rotation_) {
      turned.resize(X.rows, columns_);
      Rotations::rotate_rows<T>(turned.view(), X, *rotation_, false);
      X = std::as_const(turned).view();
    }
    for (index_t t = 0; t < X.rows; ++t) {
      if (tiles_)
        tiles_->multiply(X.row(t), Y.row(t));
      else
        values_->multiply(X.row(t), Y.row(t));
    }
  }

 private:
  index_t rows_, columns_;
  std::optional<kernels::HadamardRotation> rotation_;
  std::optional<PackedTilesProduct<T>> tiles_;
  std::optional<PackedValuesProduct> values_;
};

}  // namespace pare::backend::cuda
