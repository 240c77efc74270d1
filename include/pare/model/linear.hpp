// A linear of a model, dense or packed, and its product.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/activations.hpp"
#include "pare/kernels/rotate.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/model_backend.hpp"
#include "pare/storage/packed_rows.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

/// y = W x + b, and where W came from. T is what it is stored in, here and in all of a model: what
/// the backend computes in, or 16 bits where the backend stores these.
template <class B, class T>
struct Linear {
  static_assert(detail::check_model_backend<B, T>());

  std::string name;    ///< "layers.0.self_attn.q_proj"
  std::string tensor;  ///< name of the weight in the files, "model.decoder.layers.0....weight"
  LinearRole role = LinearRole::up;  ///< what it does in a DecoderLayer
  /// Which input of its layer it reads, from 0, in the order in which a forward pass makes them.
  /// Linears that read the same one share a calibration.
  index_t input = 0;
  bool transposed = false;                     ///< the files hold the weight as (in, out)
  DType dtype = DType::f32;                    ///< type the weight is stored in
  typename B::template matrix<T> weight;       // (out, in), empty when packed
  typename B::template matrix<T> bias;         // (1, out), or empty
  std::shared_ptr<const PackedLinear> packed;  ///< in place of weight, in host memory; or null
  /// `packed` for B::packed_multiply, where B has one; see prepare_packed().
  typename detail::PreparedLinear<B>::type prepared;
};

/// Gives a linear packed weights, ready for products of few tokens where the backend has such.
/// @param linear  whose dense weights go
/// @param packed  (out, in), indexed
template <class B, class T>
void prepare_packed(Linear<B, T>& linear, std::shared_ptr<const PackedLinear> packed) {
  linear.weight = {};
  if constexpr (MultipliesPacked<B, T>) linear.prepared = B::prepare(packed);
  linear.packed = std::move(packed);
}

/// Rows of a packed linear while they are multiplied. Grows to one block of the widest linear.
template <class B, class T>
struct UnpackedRows {
  /// Rows of a block: as many as one task of the host backends multiplies, so that products of more
  /// than 256 tokens are the same, bit by bit, as those of the whole; fewer are cut into other tasks.
  static constexpr index_t block = 512;

  Matrix<T> host;                         // (block, in)
  typename B::template matrix<T> copy;    // (block, in) where the backend computes elsewhere
  typename B::template matrix<T> turned;  // (tokens, in) where inputs are rotated
};

namespace detail {

/// Y = X W^T + b.  X (tokens, in), Y (tokens, out)
template <class B, class T>
void apply(const Linear<B, T>& linear, MatrixView<const T> X, MatrixView<T> Y,
           UnpackedRows<B, T>& rows) {
  const MatrixView<const T> bias = linear.bias.view();
  if (!linear.packed) {
    B::template linear<T>(Y, X, linear.weight.view(), bias);
    return;
  }
  if constexpr (MultipliesPacked<B, T>)
    if (X.rows <= B::packed_tokens && linear.prepared)
      return B::template packed_multiply<T>(Y, X, *linear.prepared, bias);
  const PackedLayout& layout = linear.packed->layout;
  if (linear.packed->rotation) {
    rows.turned.resize(X.rows, X.cols);
    rotate_rows<B, T>(X, rows.turned.view(), *linear.packed->rotation);
    X = rows.turned.view();
  }
  for (index_t first = 0; first < layout.rows; first += rows.block) {
    const index_t count = std::min(rows.block, layout.rows - first);
    rows.host.resize(count, layout.columns);
    unpack_rows(*linear.packed, first, rows.host.view());
    MatrixView<const T> W = rows.host.view();
    if constexpr (!std::is_same_v<typename B::template matrix<T>, Matrix<T>>) {
      rows.copy = B::from_host(W);
      W = rows.copy.view();
    }
    B::template linear<T>(Y.columns(first, count), X, W,
                          bias.rows > 0 ? bias.columns(first, count) : bias);
  }
}

/// Y = X W^T + b with what follows, in one pass over Y where the backend has that.
template <class B, class T>
void apply(const Linear<B, T>& linear, MatrixView<const T> X, MatrixView<T> Y,
           UnpackedRows<B, T>& rows, const kernels::Epilogue<T>& then) {
  if constexpr (requires { B::template linear<T>(Y, X, X, X, then); })
    if (!linear.packed)
      return B::template linear<T>(Y, X, linear.weight.view(), linear.bias.view(), then);
  apply(linear, X, Y, rows);
  if (then.addend.rows > 0) B::template add<T>(Y, then.addend);
  if (then.activation)
    B::for_each_element(Y.rows, Y.cols, kernels::Activate<T>{Y, *then.activation});
}

/// The weights of a linear as its checkpoint stores them.
template <class B, class S>
std::vector<std::byte> stored_weights(const Linear<B, S>& linear) {
  const Matrix<S> W = B::to_host(as_const(linear.weight.view()));  // (out, in)
  std::vector<float> values(std::size_t(W.size()));
  for (index_t i = 0; i < W.rows(); ++i)
    for (index_t j = 0; j < W.cols(); ++j)
      values[std::size_t(linear.transposed ? j * W.rows() + i : i * W.cols() + j)] = float(W(i, j));
  return encode_floats(values, linear.dtype);
}

/// Throws argument_error for a packed linear, whose weights cannot be changed.
template <class B, class T>
void require_dense(const Linear<B, T>& linear) {
  if (linear.packed)
    throw argument_error(linear.name +
                         ": expected dense weights, got packed ones; unpack the "
                         "model first");
}

}  // namespace detail
}  // namespace pare
