// The product of a packed linear with few tokens on host backends, where there is Highway.
#pragma once

// A program that has Highway defines PARE_HIGHWAY; without it packed rows are unpacked to be
// multiplied, which is right on every backend.
#if defined(PARE_HIGHWAY)

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "pare/core/matrix.hpp"
#include "pare/storage/packed.hpp"
#if !defined(PARE_EXTERN_KERNELS)
#include "pare/backend/packed_product.hpp"
#endif

namespace pare::inline PARE_TARGET::backend {

namespace host_detail {

#if defined(PARE_EXTERN_KERNELS)
/// pare::packed_product, compiled once: the file that has the other kernels of a program has it.
void multiply_packed(const PackedLinear& packed, std::span<const float> x, std::span<float> y);
/// pare::detail::has_fast_product.
bool multiplies_fast(const PackedLinear& packed);
#else
inline void multiply_packed(const PackedLinear& packed, std::span<const float> x,
                            std::span<float> y) {
  packed_product(packed, x, y);
}
inline bool multiplies_fast(const PackedLinear& packed) {
  return pare::detail::has_fast_product(packed);
}
#endif

}  // namespace host_detail

/// What MultipliesPacked asks for.
struct HostPackedOps {
  /// A packed linear is multiplied as it is.
  using packed_linear = std::shared_ptr<const PackedLinear>;
  /// Up to so many tokens take less time one after the other than unpacking the rows.
  static constexpr index_t packed_tokens = 8;

  /// Nothing has to be made; nothing is returned where packed_product is not fast.
  static std::optional<packed_linear> prepare(packed_linear packed) {
    if (!host_detail::multiplies_fast(*packed)) return std::nullopt;
    return packed;
  }

  /// Y = X W^T + bias from the packed bytes; see packed_product for how exact it is.
  /// @param Y     (tokens, out)
  /// @param X     (tokens, in), finite
  /// @param W     (out, in)
  /// @param bias  (1, out), or without rows
  /// @throws non_finite_error when X is not finite
  template <std::same_as<float> T>
  static void packed_multiply(MatrixView<T> Y, MatrixView<const T> X, const packed_linear& W,
                              MatrixView<const T> bias) {
    for (index_t t = 0; t < X.rows; ++t) {
      const std::span<T> y(Y.row(t), std::size_t(Y.cols));
      host_detail::multiply_packed(*W, std::span(X.row(t), std::size_t(X.cols)), y);
      if (bias.rows > 0) std::transform(y.begin(), y.end(), bias.row(0), y.begin(), std::plus<>());
    }
  }
};

}  // namespace pare::backend

#else

#include "pare/core/target.hpp"

namespace pare::inline PARE_TARGET::backend {

/// Nothing: there is no Highway.
struct HostPackedOps {};

}  // namespace pare::backend

#endif
