// What is kept for each GPU: a host thread may go from one to another.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "pare/backend/cuda/error.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// The GPU that is current for this host thread.
inline int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

/// One T per GPU, each destroyed while its own is current.
template <class T>
class DeviceCache {
 public:
  DeviceCache() = default;
  DeviceCache(const DeviceCache&) = delete;
  DeviceCache& operator=(const DeviceCache&) = delete;
  ~DeviceCache() {
    int before = 0;
    // Errors are not reported: at the end of a program the driver may already be gone.
    if (cudaGetDevice(&before) != cudaSuccess) return;
    for (auto& [device, value] : values_)
      if (device == before || cudaSetDevice(device) == cudaSuccess) {
        value.reset();
        if (device != before) cudaSetDevice(before);
      }
  }
  /// That of the current GPU, made by its default constructor the first time.
  T& get() {
    std::unique_ptr<T>& value = values_[current_device()];
    if (!value) value = std::make_unique<T>();
    return *value;
  }

 private:
  std::map<int, std::unique_ptr<T>> values_;
};

/// This host thread's T of the current GPU, default-constructed on first use there.
/// @throws device_error, and what the constructor throws
template <class T>
T& per_device() {
  thread_local DeviceCache<T> cache;
  return cache.get();
}

/// Lets a kernel be launched with up to `bytes` of dynamic shared memory on the current GPU.
template <class Kernel>
void allow_shared(Kernel* kernel, int bytes) {
  // The limit is the process's, and only ever raised: another thread may count on it.
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int> allowed;
  const std::lock_guard lock(mutex);
  int& limit = allowed[{current_device(), reinterpret_cast<const void*>(kernel)}];
  if (bytes <= limit) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
  limit = bytes;
}

}  // namespace pare::backend::cuda
