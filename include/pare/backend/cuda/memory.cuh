// Device memory: an owning matrix on the stream-ordered pool, and copies to and from the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "pare/backend/cuda/device.cuh"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// The stream all work of this host thread runs on. The runtime owns it.
inline cudaStream_t stream() { return cudaStreamPerThread; }

/// The current device's pool, which keeps what is given back, so that an allocation costs
/// microseconds. Without it every synchronisation returns unused memory to the driver.
struct Pool {
  cudaMemPool_t pool = nullptr;
  Pool() {
    check(cudaDeviceGetDefaultMemPool(&pool, current_device()), "cudaDeviceGetDefaultMemPool");
    std::uint64_t threshold = std::numeric_limits<std::uint64_t>::max();
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold),
          "cudaMemPoolSetAttribute");
  }
};

/// Device memory, ordered on the thread's stream; nullptr for 0 bytes.
/// Throws out_of_memory_error saying how much was wanted and how much was free.
inline void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  per_device<Pool>();
  void* memory = nullptr;
  const cudaError_t status = cudaMallocAsync(&memory, bytes, stream());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw out_of_memory_error("cudaMallocAsync: wanted " + std::to_string(bytes) +
                              " bytes of device memory, " + std::to_string(free) + " of " +
                              std::to_string(total) + " were free");
  }
  check(status, "cudaMallocAsync");
  return memory;
}

/// Gives memory back once the work queued before is done. Errors are not reported: this runs in
/// destructors, and at the end of a program the driver may already be gone.
inline void release(void* memory) noexcept {
  if (memory != nullptr && cudaFreeAsync(memory, stream()) != cudaSuccess) cudaGetLastError();
}

/// Waits for all work of this host thread and reports what failed in it.
inline void synchronize() { check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }

/// Copies a matrix onto another of the same shape, in either memory; in order with the stream.
template <class T>
void copy_async(MatrixView<const T> from, MatrixView<T> to, cudaMemcpyKind kind) {
  if (from.size() == 0) return;
  if (from.rows == 1 || (from.stride == from.cols && to.stride == to.cols)) {
    check(cudaMemcpyAsync(to.data, from.data, std::size_t(from.size()) * sizeof(T), kind, stream()),
          "cudaMemcpyAsync");
    return;
  }
  check(cudaMemcpy2DAsync(to.data, std::size_t(to.stride) * sizeof(T), from.data,
                          std::size_t(from.stride) * sizeof(T), std::size_t(from.cols) * sizeof(T),
                          std::size_t(from.rows), kind, stream()),
        "cudaMemcpy2DAsync");
}

/// A row-major matrix in device memory. Belongs to the host thread and the GPU that made it, which must
/// be current when it is used, resized or destroyed. Elements are not initialised.
template <class T>
class DeviceMatrix {
 public:
  using value_type = T;

  DeviceMatrix() = default;
  /// A matrix of shape (rows, cols). Throws shape_error, out_of_memory_error.
  DeviceMatrix(index_t rows, index_t cols) { resize(rows, cols); }
  DeviceMatrix(const DeviceMatrix& other) : DeviceMatrix(other.rows(), other.cols()) {
    copy_async(other.view(), view(), cudaMemcpyDeviceToDevice);
  }
  DeviceMatrix(DeviceMatrix&& other) noexcept { swap(other); }
  DeviceMatrix& operator=(DeviceMatrix other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMatrix() { release(data_); }

  index_t rows() const { return rows_; }
  index_t cols() const { return cols_; }
  index_t size() const { return rows_ * cols_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  MatrixView<T> view() { return {data_, rows_, cols_, cols_}; }
  MatrixView<const T> view() const { return {data_, rows_, cols_, cols_}; }

  /// Changes the shape. Memory is kept when it is large enough; the content is unspecified.
  void resize(index_t rows, index_t cols) {
    if (rows < 0 || cols < 0)
      throw shape_error("matrix: both sides must be >= 0, got " + shape_text(rows, cols));
    if (rows * cols > capacity_) {
      release(std::exchange(data_, nullptr));
      rows_ = cols_ = capacity_ = 0;
      data_ = static_cast<T*>(allocate(std::size_t(rows * cols) * sizeof(T)));
      capacity_ = rows * cols;
    }
    rows_ = rows;
    cols_ = cols;
  }

  void swap(DeviceMatrix& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(rows_, other.rows_);
    std::swap(cols_, other.cols_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  T* data_ = nullptr;
  index_t rows_ = 0, cols_ = 0, capacity_ = 0;
};

/// Memory for Thrust's own buffers, from the same pool.
struct PoolAllocator {
  using value_type = char;
  char* allocate(std::ptrdiff_t bytes) {
    return static_cast<char*>(cuda::allocate(std::size_t(bytes)));
  }
  void deallocate(char* memory, std::size_t) { release(memory); }
};

/// What a Backend asks of its memory.
struct DeviceMemory {
  template <class T>
  using matrix = DeviceMatrix<T>;

  template <class T>
  static DeviceMatrix<T> from_host(MatrixView<const T> v) {
    DeviceMatrix<T> result(v.rows, v.cols);
    // Pageable memory has been read when the call returns.
    copy_async(v, result.view(), cudaMemcpyHostToDevice);
    return result;
  }
  template <class T>
  static DeviceMatrix<T> from_host(MatrixView<T> v) {
    return from_host(MatrixView<const T>(v));
  }
  /// Waits for the work queued before.
  template <class T>
  static Matrix<T> to_host(MatrixView<const T> v) {
    Matrix<T> result;
    result.resize(v.rows, v.cols);
    copy_async(v, result.view(), cudaMemcpyDeviceToHost);
    synchronize();
    return result;
  }
  /// The most memory of the current device's pool that was in use at a time, bytes.
  static std::size_t peak_bytes() {
    std::uint64_t bytes = 0;
    check(cudaMemPoolGetAttribute(per_device<Pool>().pool, cudaMemPoolAttrUsedMemHigh, &bytes),
          "cudaMemPoolGetAttribute");
    return std::size_t(bytes);
  }
  /// Copies a matrix onto another of the same shape.
  template <class T>
  static void copy(MatrixView<const T> from, MatrixView<T> to) {
    require_shape("copy", {to.rows, to.cols}, {from.rows, from.cols});
    copy_async(from, to, cudaMemcpyDeviceToDevice);
  }
};

/// A row of these values in device memory.
template <class T>
DeviceMatrix<T> upload(const std::vector<T>& values) {
  return DeviceMemory::from_host(MatrixView<const T>(values.data(), 1, index_t(values.size())));
}

}  // namespace pare::backend::cuda
