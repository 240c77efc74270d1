// Every status of CUDA, cuBLAS and cuSOLVER becomes a typed error with the call's name.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <string>

#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

/// A CUDA, cuBLAS or cuSOLVER call that failed. The message begins with the call's name.
class device_error : public error {
 public:
  using error::error;
};

/// Device memory that could not be had. The message says how much was wanted and how much was free.
class out_of_memory_error : public device_error {
 public:
  using device_error::device_error;
};

}  // namespace pare

namespace pare::inline PARE_TARGET::backend::cuda {

/// Throws device_error "<call>: <what CUDA says>" unless the status is success.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a failed call must not be reported again by the next launch
  throw device_error(std::string(call) + ": " + cudaGetErrorName(status) + ", " +
                     cudaGetErrorString(status));
}

/// The same for cuBLAS.
inline void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw device_error(std::string(call) + ": " + cublasGetStatusName(status));
}

/// The same for cuSOLVER.
inline void check(cusolverStatus_t status, const char* call) {
  if (status == CUSOLVER_STATUS_SUCCESS) return;
  throw device_error(std::string(call) + ": cuSOLVER status " + std::to_string(int(status)));
}

/// To be called after every kernel launch, with the kernel's name.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace pare::backend::cuda
