// Linears of models stored in 16 bits, with what follows the product.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <type_traits>

#include "pare/backend/cuda/elements.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Frees what cublasLt makes.
struct LtDelete {
  void operator()(cublasLtHandle_t p) const { cublasLtDestroy(p); }
  void operator()(cublasLtMatmulDesc_t p) const { cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayout_t p) const { cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreference_t p) const { cublasLtMatmulPreferenceDestroy(p); }
};
template <class Handle>
using LtOwner = std::unique_ptr<std::remove_pointer_t<Handle>, LtDelete>;

/// A row-major matrix as cublasLt sees it, column by column.
template <class S>
LtOwner<cublasLtMatrixLayout_t> lt_layout(MatrixView<S> A) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, DeviceScalar<std::remove_const_t<S>>::data,
                                   std::uint64_t(A.cols), std::uint64_t(A.rows), A.stride),
        "cublasLtMatrixLayoutCreate");
  return LtOwner<cublasLtMatrixLayout_t>(layout);
}

/// The largest power of two up to 256 that divides an address.
inline std::uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return std::uint32_t(std::min<std::uintptr_t>(256, address & (~address + 1)));
}

/// A handle of cublasLt and the algorithms that it chose, by shape, strides and alignments.
template <class S>
struct LtChoices {
  /// An algorithm of cublasLt and the bytes of memory that it works with.
  struct Algorithm {
    cublasLtMatmulAlgo_t algorithm;  ///< as cublasLt describes it
    std::size_t workspace;           ///< bytes
  };
  using Key = std::array<std::int64_t, 14>;
  LtOwner<cublasLtHandle_t> handle;  ///< of the device current when this was made
  std::map<Key, Algorithm> chosen;   ///< so far
  LtChoices() {
    cublasLtHandle_t created = nullptr;
    check(cublasLtCreate(&created), "cublasLtCreate");
    handle.reset(created);
  }
};

/// Adds bias and addend to sums in float, applies relu and rounds.
template <class N>
struct RoundSums {
  MatrixView<N> Y;               // (tokens, out)
  MatrixView<const float> sums;  // (tokens, out)
  MatrixView<const N> bias;      // (1, out) or no rows
  MatrixView<const N> addend;    // (tokens, out) or no rows
  bool relu;
  __device__ void operator()(index_t t, index_t j) const {
    float y = sums(t, j);
    if (bias.rows > 0) y += widen(bias(0, j));
    if (addend.rows > 0) y += widen(addend(t, j));
    Y(t, j) = narrow<N>(relu && y < 0 ? 0.0f : y);  // keeps a NaN
  }
};

/// fused_product() in two passes, with the product in float between them.
template <class S>
void product_and_rounding(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> W,
                          MatrixView<const S> bias, MatrixView<const S> addend, bool relu) {
  constexpr auto type = DeviceScalar<S>::data;
  DeviceMatrix<float> sums(Y.rows, Y.cols);
  const float one = 1, none = 0;
  check(cublasGemmEx_64(Context::get().blas, CUBLAS_OP_T, CUBLAS_OP_N, Y.cols, Y.rows, X.cols, &one,
                        W.data, type, W.stride, X.data, type, X.stride, &none, sums.data(),
                        CUDA_R_32F, sums.cols(), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
  Elements::for_each_element(Y.rows, Y.cols,
                             RoundSums<device_scalar<S>>{native(Y), sums.view(), native(bias),
                                                         native(addend), relu});
}

/// Y = X W^T + bias + addend, or relu of it, in 16 bits, rounded once. X (tokens, in), W (out, in),
/// bias (1, out) or no rows, addend (tokens, out) or no rows.
///
/// cublasGemmEx rounds the product before it adds a C of 16 bits, so this goes through cublasLt,
/// whose epilogue works in float. The choice of its algorithm is kept per shape. Where rows do not lie at
/// multiples of 16 bytes, its algorithms round the sum of bias and product before they add the addend; there,
/// and where it has none, the product is stored in float.
template <class S>
  requires is_storage_only<S>
void fused_product(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> W,
                   MatrixView<const S> bias, MatrixView<const S> addend, bool relu) {
  const bool biased = bias.rows > 0, adds = addend.rows > 0;
  if (biased && adds &&
      !(whole_vectors(Y) && whole_vectors(X) && whole_vectors(W) && whole_vectors(addend)))
    return product_and_rounding(Y, X, W, bias, addend, relu);
  using Choices = LtChoices<S>;
  auto& [handle, chosen] = per_device<Choices>();
  const auto set = [](cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                      const auto& value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
  };
  cublasLtMatmulDesc_t created = nullptr;
  check(cublasLtMatmulDescCreate(&created, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "cublasLtMatmulDescCreate");
  const LtOwner<cublasLtMatmulDesc_t> operation(created);
  set(created, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  const cublasLtEpilogue_t epilogue =
      relu ? (biased ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU)
           : (biased ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
  set(created, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  if (biased) set(created, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.data);
  const MatrixView<const S> Z = adds ? addend : MatrixView<const S>(Y);
  const auto w = lt_layout(W), x = lt_layout(X), y = lt_layout(Y), z = lt_layout(Z);

  constexpr std::size_t most_workspace = std::size_t{32} << 20;
  const std::array<std::uint32_t, 4> aligned{alignment(W.data), alignment(X.data),
                                             alignment(Z.data), alignment(Y.data)};
  const typename Choices::Key key{Y.rows,     Y.cols,     X.cols,     Y.stride,
                                  X.stride,   W.stride,   Z.stride,   aligned[0],
                                  aligned[1], aligned[2], aligned[3], alignment(bias.data),
                                  epilogue,   adds};
  auto found = chosen.find(key);
  if (found == chosen.end()) {
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    const LtOwner<cublasLtMatmulPreference_t> preference(made);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof(value)),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned[0]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned[1]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned[2]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned[3]);
    // Partial sums of a split product are added in float.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           std::uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle.get(), created, w.get(), x.get(), z.get(), y.get(),
                                         made, 1, &result, &count),
          "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) return product_and_rounding(Y, X, W, bias, addend, relu);
    check(result.state, "cublasLtMatmulAlgoGetHeuristic");
    found =
        chosen.emplace(key, typename Choices::Algorithm{result.algo, result.workspaceSize}).first;
  }
  DeviceMatrix<std::uint8_t> workspace(1, index_t(found->second.workspace));
  const float one = 1, beta = adds ? 1 : 0;
  check(cublasLtMatmul(handle.get(), created, &one, W.data, w.get(), X.data, x.get(), &beta, Z.data,
                       z.get(), Y.data, y.get(), &found->second.algorithm, workspace.data(),
                       found->second.workspace, stream()),
        "cublasLtMatmul");
}

}  // namespace pare::backend::cuda
