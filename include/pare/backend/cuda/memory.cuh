// Device memory: an owning matrix on the stream-ordered pool, and copies to and from the host.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <list>
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

/// Pinned host memory through which small copies go: a copy from or to other host memory makes the host
/// thread or the GPU wait. Kept by each host thread for each GPU.
class Staging {
 public:
  static constexpr std::size_t most = std::size_t{1}
                                      << 20;  ///< bytes of the largest copy that is staged

  /// A piece of it and the event after which it is free.
  struct Piece {
    void* memory = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t done = nullptr;
    bool taken = false;
  };

  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    for (const Piece& piece : pieces_) {
      cudaEventDestroy(piece.done);
      cudaFreeHost(piece.memory);
    }
  }
  /// That of this host thread for the current GPU.
  static Staging& get() { return per_device<Staging>(); }

  /// A piece of at least so many bytes that no copy uses, marked as taken.
  /// @throws device_error, out_of_memory_error
  Piece& take(std::size_t bytes) {
    for (Piece& piece : pieces_) {
      if (piece.taken || piece.bytes < bytes) continue;
      if (cudaEventQuery(piece.done) == cudaSuccess) {
        piece.taken = true;
        return piece;
      }
      cudaGetLastError();  // clears "not ready", which the next launch would report otherwise
    }
    Piece& piece = pieces_.emplace_back();
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(bytes, 4096));
    check(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming),
          "cudaEventCreateWithFlags");
    check(cudaMallocHost(&piece.memory, size), "cudaMallocHost");
    piece.bytes = size;  // only now it may be taken
    piece.taken = true;
    return piece;
  }

 private:
  std::list<Piece> pieces_;
};

/// A copy to host memory that may still be on its way.
template <class T>
class Download {
 public:
  /// Begins it, in order with the stream; a copy of more than Staging::most bytes ends here.
  /// @throws device_error, out_of_memory_error
  explicit Download(MatrixView<const T> from) {
    result_.resize(from.rows, from.cols);
    const std::size_t bytes = std::size_t(from.size()) * sizeof(T);
    if (bytes == 0) return;
    if (bytes <= Staging::most) {
      piece_ = &Staging::get().take(bytes);
      copy_async(from, MatrixView<T>(static_cast<T*>(piece_->memory), from.rows, from.cols),
                 cudaMemcpyDeviceToHost);
      check(cudaEventRecord(piece_->done, stream()), "cudaEventRecord");
    } else {
      copy_async(from, result_.view(), cudaMemcpyDeviceToHost);
      synchronize();
    }
  }
  Download(Download&& other) noexcept
      : result_(std::move(other.result_)), piece_(std::exchange(other.piece_, nullptr)) {}
  Download& operator=(Download&&) = delete;
  ~Download() {
    if (piece_ != nullptr) piece_->taken = false;
  }
  /// Waits for the copy.
  /// @return the numbers, which this object owns
  /// @throws device_error
  Matrix<T>& get() {
    if (piece_ == nullptr) return result_;
    check(cudaEventSynchronize(piece_->done), "cudaEventSynchronize");
    std::memcpy(result_.data(), piece_->memory, std::size_t(result_.size()) * sizeof(T));
    std::exchange(piece_, nullptr)->taken = false;
    return result_;
  }

 private:
  Matrix<T> result_;
  Staging::Piece* piece_ = nullptr;  // of this host thread and the current GPU
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
    const std::size_t bytes = std::size_t(v.size()) * sizeof(T);
    // Fewer bytes travel with the command.
    if (bytes > 64 * 1024 && bytes <= Staging::most && (v.rows == 1 || v.stride == v.cols)) {
      Staging::Piece& piece = Staging::get().take(bytes);
      piece.taken = false;
      std::memcpy(piece.memory, v.data, bytes);
      const T* const staged = static_cast<const T*>(piece.memory);
      copy_async(MatrixView<const T>(staged, v.rows, v.cols), result.view(),
                 cudaMemcpyHostToDevice);
      check(cudaEventRecord(piece.done, stream()), "cudaEventRecord");
    } else {
      // Pageable memory has been read when the call returns.
      copy_async(v, result.view(), cudaMemcpyHostToDevice);
    }
    return result;
  }
  template <class T>
  static DeviceMatrix<T> from_host(MatrixView<T> v) {
    return from_host(MatrixView<const T>(v));
  }
  /// Waits for the work queued before.
  template <class T>
  static Matrix<T> to_host(MatrixView<const T> v) {
    return std::move(Download<T>(v).get());
  }
  /// The same, which waits in get() only.
  template <class T>
  static Download<T> start_to_host(MatrixView<const T> v) {
    return Download<T>(v);
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
