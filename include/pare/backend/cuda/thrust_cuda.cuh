// The CUDA backend: device memory, Thrust, cuBLAS and cuSOLVER, tuned kernels. Needs nvcc.
#pragma once

#include "pare/backend/cuda/elements.cuh"
#include "pare/backend/cuda/factor.cuh"
#include "pare/backend/cuda/model.cuh"
#include "pare/backend/cuda/packed_ops.cuh"
#include "pare/backend/cuda/product.cuh"
#include "pare/backend/cuda/rotate.cuh"
#include "pare/backend/cuda/select.cuh"
#include "pare/backend/cuda/sweep.cuh"
#include "pare/backend/system.hpp"

namespace pare::inline PARE_TARGET::backend {

/// Computes on the GPU that is current for the host thread, where its arguments must lie; handles and
/// scratch memory are kept for each. All work of a host thread on one GPU is ordered on one stream;
/// only what returns to the host waits for it. Deterministic.
template <>
struct Thrust<system::cuda> : cuda::DeviceMemory,
                              cuda::Elements,
                              cuda::Products,
                              cuda::Factorization,
                              cuda::Selection,
                              cuda::Rotations,
                              cuda::ModelOps,
                              cuda::PackedOps {
  /// @name Operations of pare::Backend
  /// @{

  /// The concept pare::Backend says what each operation does.
  static constexpr std::string_view name = "cuda";
  template <class T>
  static constexpr bool supports = std::is_same_v<T, float> || std::is_same_v<T, double>;
  template <class S>
  static constexpr bool stores = supports<S> || is_storage_only<S>;
  static constexpr index_t batch_tokens = 16384;  ///< of a forward pass: fills the GPU

  /// Whether large products of float32, and those of its attention, are split in parts for the tensor
  /// cores, which is the default, or computed in float32, in this process.
  static void split_products(bool split) {
    cuda::set_precision(split ? cuda::Precision::split : cuda::Precision::float32);
  }

  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    cuda::run_sweep(sweep, [](index_t rows, const Sweep& f) { for_each_row(rows, f); });
  }
  /// @}
};

}  // namespace pare::backend
