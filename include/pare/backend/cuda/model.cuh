// The operations of a model's forward pass.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "pare/backend/cuda/attention.cuh"
#include "pare/backend/cuda/elements.cuh"
#include "pare/backend/cuda/fused_product.cuh"
#include "pare/backend/cuda/norms.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// losses(0, t) = log(sum exp(row t)) - row t[target], 0 without a target. Sums are in double.
template <class N>
__global__ void __launch_bounds__(row_threads)
    cross_entropy_kernel(MatrixView<const N> logits, MatrixView<const std::int32_t> targets,
                         MatrixView<double> losses) {
  using A = wide<N>;
  const index_t t = blockIdx.x;
  const N* row = logits.row(t);
  const std::int32_t target = targets(0, t);
  A largest = -std::numeric_limits<A>::infinity();
  for (index_t j = threadIdx.x; j < logits.cols; j += row_threads) {
    const A x = widen(row[j]);
    largest = x > largest ? x : largest;
  }
  largest = block_combine(largest, [](A a, A b) { return a > b ? a : b; });
  double sum = 0;
  for (index_t j = threadIdx.x; j < logits.cols; j += row_threads)
    sum += double(exp(widen(row[j]) - largest));
  sum = block_sum(sum);
  if (threadIdx.x > 0) return;
  losses(0, t) = target < 0 ? 0 : log(sum) + double(largest) - double(widen(row[target]));
}

/// Row r of Y += row r % seqlen of a table.
template <class N>
struct AddPositions {
  MatrixView<N> Y;
  MatrixView<const N> table;
  index_t seqlen;
  __device__ void operator()(index_t r, index_t c) const {
    Y(r, c) = narrow<N>(widen(Y(r, c)) + widen(table(r % seqlen, c)));
  }
};

template <class N>
struct GatherRows {
  MatrixView<N> Y;
  MatrixView<const N> table;
  MatrixView<const std::int32_t> ids;  // (1, rows of Y)
  __device__ void operator()(index_t r, index_t c) const { Y(r, c) = table(index_t(ids(0, r)), c); }
};

/// What ModelBackend asks for, for float, double, and 16-bit storage computed with in float.
struct ModelOps : Attention {
  template <class S>
  static void linear(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> W,
                     MatrixView<const S> bias, const kernels::Epilogue<S>& then = {}) {
    using Type = DeviceScalar<S>;
    if (Y.size() == 0) return;
    if constexpr (is_storage_only<S>) {
      const bool relu = then.activation == kernels::Activation::relu;
      fused_product(Y, X, W, bias, then.addend, relu);
      if (relu) return;
    } else {
      // The product adds to what is there.
      const bool biased = bias.rows > 0, adds = then.addend.rows > 0;
      const MatrixView<const S> every_row(bias.data, Y.rows, Y.cols, 0);
      if (biased && adds)
        map_elements(Y, AddVectors{}, every_row, then.addend);
      else if (biased || adds)
        map_elements(Y, AddVectors{}, biased ? every_row : then.addend);
      const S one = 1, beta = biased || adds ? 1 : 0;
      if (std::is_same_v<S, float> && splits(Y.rows, Y.cols, X.cols)) {
        if constexpr (std::is_same_v<S, float>)
          split_product(1, {X, Lines::rows}, {W, Lines::rows}, beta, Y);
      } else {
        check(cublasGemmEx_64(Context::get().blas, CUBLAS_OP_T, CUBLAS_OP_N, Y.cols, Y.rows, X.cols,
                              &one, W.data, Type::data, W.stride, X.data, Type::data, X.stride,
                              &beta, Y.data, Type::data, Y.stride, Type::compute,
                              CUBLAS_GEMM_DEFAULT),
              "cublasGemmEx");
      }
    }
    if (then.activation)
      Elements::for_each_element(Y.rows, Y.cols, kernels::Activate<S>{Y, *then.activation});
  }

  template <class S>
  static void layer_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                         MatrixView<const S> bias, double epsilon = 1e-5) {
    using N = device_scalar<S>;
    norm_rows<N>(native(Y), native(X),
                 {native(weight), native(bias), wide<N>(epsilon), 0, /*centered=*/true});
  }

  template <class S>
  static void rms_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                       double epsilon, double offset) {
    using N = device_scalar<S>;
    norm_rows<N>(native(Y), native(X),
                 {native(weight), {}, wide<N>(epsilon), wide<N>(offset), /*centered=*/false});
  }

  template <class S>
  static void add(MatrixView<S> Y, MatrixView<const S> X) {
    map_elements(native(Y), AddVectors{}, native(Y), native(X));
  }

  template <class S>
  static void embed_tokens(MatrixView<S> Y, MatrixView<const S> table,
                           MatrixView<const std::int32_t> ids) {
    Elements::for_each_element(Y.rows, Y.cols,
                               GatherRows<device_scalar<S>>{native(Y), native(table), ids});
  }

  template <class S>
  static void add_positions(MatrixView<S> Y, MatrixView<const S> table, index_t seqlen) {
    Elements::for_each_element(Y.rows, Y.cols,
                               AddPositions<device_scalar<S>>{native(Y), native(table), seqlen});
  }

  template <class S>
  static double cross_entropy(MatrixView<const S> logits, MatrixView<const std::int32_t> targets) {
    if (logits.size() == 0) return 0;
    DeviceMatrix<double> losses(1, logits.rows);
    cross_entropy_kernel<<<unsigned(logits.rows), row_threads, 0, stream()>>>(native(logits),
                                                                              targets,
                                                                              losses.view());
    check_launch("cross_entropy_kernel");
    const Matrix<double> host = DeviceMemory::to_host(std::as_const(losses).view());
    double total = 0;
    for (index_t t = 0; t < host.size(); ++t) total += host(0, t);
    return total;
  }
};

}  // namespace pare::backend::cuda
