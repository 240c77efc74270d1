// Handles of cuBLAS and cuSOLVER, one set per host thread and GPU, and the GPU's measures.
#pragma once

#include "pare/backend/cuda/memory.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// What every call needs; made on first use by a host thread, for each GPU that becomes current.
class Context {
 public:
  /// That of the current GPU.
  static Context& get() { return per_device<Context>(); }

  cublasHandle_t blas = nullptr;
  cusolverDnHandle_t solver = nullptr;
  int multiprocessors = 0;
  int compute_capability = 0;  ///< 10 * major + minor
  int shared_bytes = 0;        ///< of shared memory that a block can have

  /// Of the current GPU; get() makes it.
  Context() {
    const int device = current_device();
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
          "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
          "cudaDeviceGetAttribute");
    compute_capability = 10 * major + minor;
    check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "cudaDeviceGetAttribute");
    check(cublasCreate(&blas), "cublasCreate");
    check(cublasSetStream(blas, stream()), "cublasSetStream");
    // Sums in another order on every run would break "same input, same bytes".
    check(cublasSetAtomicsMode(blas, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
    // Partial sums of 16-bit products stay in float.
    check(cublasSetMathMode(blas, cublasMath_t(CUBLAS_DEFAULT_MATH |
                                               CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
          "cublasSetMathMode");
    check(cusolverDnCreate(&solver), "cusolverDnCreate");
    check(cusolverDnSetStream(solver, stream()), "cusolverDnSetStream");
  }
  ~Context() {
    cusolverDnDestroy(solver);
    cublasDestroy(blas);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
};

}  // namespace pare::backend::cuda
