// y = W x on the GPU where W was pruned but not quantized: its values, those that stay.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "pare/backend/cuda/memory.cuh"
#include "pare/storage/packed_rows.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

namespace packing {

__device__ inline float value_of(std::uint16_t bits, bool bfloat) {
  return bfloat ? bfloat_to_float(bits) : half_to_float(bits);
}
__device__ inline float value_of(float value, bool) { return value; }

/// A warp per row, a word of the mask per lane.
template <class V>
__global__ void values_product_kernel(int rows, int columns, bool bfloat, const V* values,
                                      const std::uint32_t* kept, const std::int64_t* row_begin,
                                      const float* x, float* y) {
  const int row = int(blockIdx.x * blockDim.y + threadIdx.y), lane = int(threadIdx.x);
  if (row >= rows) return;
  const int words = (columns + 31) / 32;
  const V* from = values + row_begin[row];
  float sum = 0;
  for (int first = 0; first < words; first += 32) {
    const int word = first + lane;
    std::uint32_t mask = word < words ? kept[std::int64_t(row) * words + word] : 0;
    const int count = __popc(mask);
    int before = count;  // of this lane and those below it
    for (int step = 1; step < 32; step *= 2) {
      const int lower = __shfl_up_sync(~0u, before, step);
      if (lane >= step) before += lower;
    }
    const V* at = from + (before - count);
    for (; mask != 0; mask &= mask - 1)
      sum += value_of(*at++, bfloat) * x[word * 32 + __ffs(int(mask)) - 1];
    from += __shfl_sync(~0u, before, 31);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (lane == 0) y[row] = sum;
}

}  // namespace packing

/// A packed linear without a quantizer in device memory; float64 values become float32.
class PackedValuesProduct {
 public:
  explicit PackedValuesProduct(const PackedLinear& packed)
      : rows_(int(packed.layout.rows)),
        columns_(int(packed.layout.columns)),
        bfloat_(packed.dtype == DType::bf16) {
    const int words = (columns_ + 31) / 32;
    const bool wide = packed.layout.value_bits > 16;
    std::vector<std::uint32_t> kept(std::size_t(rows_) * std::size_t(words), 0);
    std::vector<std::int64_t> row_begin(1, 0);
    std::vector<float> values;
    std::vector<std::uint16_t> halves;
    std::vector<std::uint8_t> pruned(std::size_t(columns_), 0);
    for (int i = 0; i < rows_; ++i) {
      detail::read_mask_row(packed, i, pruned.data());
      std::uint32_t* mask = kept.data() + std::size_t(i) * std::size_t(words);
      detail::for_each_code(packed, i, pruned.data(), [&](index_t j, index_t, std::uint64_t bits) {
        mask[j / 32] |= 1u << j % 32;
        if (wide)
          values.push_back(detail::value_of_bits(bits, packed.dtype));
        else
          halves.push_back(std::uint16_t(bits));
      });
      row_begin.push_back(std::int64_t(values.size() + halves.size()));
    }
    values_ = upload(values);
    halves_ = upload(halves);
    kept_ = upload(kept);
    row_begin_ = upload(row_begin);
  }

  /// Bytes of device memory that a product reads, x aside.
  std::uint64_t bytes() const {
    return std::uint64_t(4 * values_.size() + 2 * halves_.size() + 4 * kept_.size() +
                         8 * row_begin_.size());
  }

  /// Queues y = W x.
  /// @param x  (in), device memory
  /// @param y  (out), device memory
  void multiply(const float* x, float* y) const {
    if (values_.size() > 0)
      launch(values_.data(), x, y);
    else
      launch(halves_.data(), x, y);
  }

 private:
  template <class V>
  void launch(const V* values, const float* x, float* y) const {
    constexpr int rows_per_block = 8;
    packing::values_product_kernel<<<(rows_ + rows_per_block - 1) / rows_per_block,
                                     dim3(32, rows_per_block), 0, stream()>>>(
        rows_, columns_, bfloat_, values, kept_.data(), row_begin_.data(), x, y);
    check_launch("values_product_kernel");
  }

  int rows_, columns_;
  bool bfloat_;
  DeviceMatrix<float> values_;
  DeviceMatrix<std::uint16_t> halves_;
  DeviceMatrix<std::uint32_t> kept_;
  DeviceMatrix<std::int64_t> row_begin_;
};

}  // namespace pare::backend::cuda
