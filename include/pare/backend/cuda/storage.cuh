// The 16-bit storage types as the device and its libraries know them.
#pragma once

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// The device's own type of a scalar, and the names cuBLAS has for it and for what it computes in.
template <class S>
struct DeviceScalar;
template <>
struct DeviceScalar<float> {
  using type = float;
  static constexpr cudaDataType_t data = CUDA_R_32F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;  // without TF32
};
template <>
struct DeviceScalar<double> {
  using type = double;
  static constexpr cudaDataType_t data = CUDA_R_64F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_64F;
};
template <>
struct DeviceScalar<float16> {
  using type = __half;
  static constexpr cudaDataType_t data = CUDA_R_16F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};
template <>
struct DeviceScalar<bfloat16> {
  using type = __nv_bfloat16;
  static constexpr cudaDataType_t data = CUDA_R_16BF;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};
static_assert(sizeof(float16) == sizeof(__half) && sizeof(bfloat16) == sizeof(__nv_bfloat16));

template <class S>
using device_scalar = typename DeviceScalar<std::remove_const_t<S>>::type;

/// The same memory seen as the device's own type: one instruction converts it.
template <class S>
auto native(MatrixView<S> v) {
  using N = std::conditional_t<std::is_const_v<S>, const device_scalar<S>, device_scalar<S>>;
  return MatrixView<N>(reinterpret_cast<N*>(v.data), v.rows, v.cols, v.stride);
}

/// A number as it is computed with.
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }

/// What a device's type is computed with.
template <class N>
using wide = std::conditional_t<std::is_same_v<N, double>, double, float>;

/// A number rounded to nearest as it is stored.
template <class N>
__device__ N narrow(wide<N> x) {
  if constexpr (std::is_same_v<N, __half>)
    return __float2half_rn(x);
  else if constexpr (std::is_same_v<N, __nv_bfloat16>)
    return __float2bfloat16_rn(x);
  else
    return x;
}

}  // namespace pare::backend::cuda
