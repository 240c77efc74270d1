// The product of packed linears with few tokens, as a forward pass on the GPU asks for it.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "pare/backend/cuda/elements.cuh"
#include "pare/backend/cuda/packed_product.cuh"
#include "pare/backend/cuda/storage.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Y = products, plus bias where there is one.
template <class N>
struct AddBias {
  MatrixView<N> Y;
  MatrixView<const float> products;
  MatrixView<const N> bias;  // (1, cols), or without rows
  __device__ void operator()(index_t r, index_t c) const {
    Y(r, c) = narrow<N>(products(r, c) + (bias.rows > 0 ? widen(bias(0, c)) : 0.0f));
  }
};

/// A packed linear in host memory, and in device memory from its first product on: a run over many
/// tokens never needs it there.
class PackedOnFirstUse {
 public:
  /// Keeps the linear; nothing goes to the device yet.
  /// @param packed  (out, in), indexed
  explicit PackedOnFirstUse(std::shared_ptr<const PackedLinear> packed)
      : packed_(std::move(packed)) {}

  /// Throws as PackedProduct. What is returned belongs to the host thread of the first call.
  template <class T>
  const PackedProduct<T>& product() {
    std::call_once(once_, [&] { product_.emplace(*packed_); });
    return *product_;
  }

 private:
  std::shared_ptr<const PackedLinear> packed_;
  std::once_flag once_;
  std::optional<PackedProduct<float>> product_;
};

/// What MultipliesPacked asks for, for float and for 16-bit storage. Models in double have their rows
/// unpacked: the product is not exact enough for them.
struct PackedOps {
  /// What is multiplied with; copies share it.
  using packed_linear = std::shared_ptr<PackedOnFirstUse>;
  /// Up to so many tokens take less time one after the other than unpacking the rows on the host; of
  /// large linears many more would.
  static constexpr index_t packed_tokens = 64;

  /// Every packed linear is multiplied from its bits.
  static packed_linear prepare(std::shared_ptr<const PackedLinear> packed) {
    return std::make_shared<PackedOnFirstUse>(std::move(packed));
  }

  /// Y = X W^T + bias from the packed bytes, rounded to S once; see PackedProduct for how exact it is.
  /// @param Y     (tokens, out)
  /// @param X     (tokens, in)
  /// @param W     (out, in)
  /// @param bias  (1, out), or without rows
  template <class S>
    requires std::is_same_v < compute_scalar<S>,
  float > static void packed_multiply(MatrixView<S> Y, MatrixView<const S> X,
                                      const packed_linear& W, MatrixView<const S> bias) {
    if (Y.size() == 0) return;
    const PackedProduct<float>& product = W->product<float>();
    if constexpr (std::is_same_v<S, float>) {
      product.multiply(X, Y);
      if (bias.rows > 0) Elements::for_each_element(Y.rows, Y.cols, AddBias<float>{Y, Y, bias});
    } else {
      DeviceMatrix<float> wide_x(X.rows, X.cols), wide_y(Y.rows, Y.cols);
      Elements::for_each_element(X.rows, X.cols,
                                 kernels::ConvertElement<S, float>{X, wide_x.view()});
      product.multiply(std::as_const(wide_x).view(), wide_y.view());
      using N = device_scalar<S>;
      Elements::for_each_element(Y.rows, Y.cols,
                                 AddBias<N>{native(Y), std::as_const(wide_y).view(), native(bias)});
    }
  }
};

}  // namespace pare::backend::cuda
