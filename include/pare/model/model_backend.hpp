// What a model's forward pass may ask of the place where it computes.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "pare/core/backend.hpp"
#include "pare/kernels/attention.hpp"
#include "pare/storage/packed.hpp"

namespace pare::inline PARE_TARGET {

/// Static functions on views of memory that the backend can reach. A bias, weight or other row
/// that a model lacks is a view without rows. Outputs do not overlap inputs unless it says so.
///
/// T is what weights and activations are stored in. Where that has 16 bits, sums and everything
/// between the reading of the inputs and the writing of the output are in float.
///
/// - `matrix<U>`, `from_host(view)`, `to_host(view)`, `copy(from, to)`, `find_non_finite(A)`, and X
///   of `column_moments` and `gram_accumulate`: as in Backend, for U = T.
/// - `for_each_element(rows, cols, f)`: as in Backend.
/// - `linear(Y, X, W, bias)`: Y = X W^T + bias; X (tokens, in), W (out, in), bias (1, out).
///   A backend may have `linear(Y, X, W, bias, then)` with a kernels::Epilogue, and round to T once for
///   all of it.
/// - `layer_norm(Y, X, weight, bias, epsilon)`: each row to mean 0 and variance 1, then times
///   weight (1, cols) plus bias (1, cols). Y may be X.
/// - `rms_norm(Y, X, weight, epsilon, offset)`: each row divided by sqrt(mean of its squares +
///   epsilon), then times offset + weight (1, cols). Y may be X.
/// - `attention(out, q, k, v, slopes, shape)`: softmax(scores) v for every window and head, a
///   position seeing itself and those before it; see kernels::AttentionShape. out (windows * seqlen,
///   heads * head_dim), q (windows * seqlen, (heads - 1) q_step + head_dim), k and v (windows *
///   seqlen, (kv_heads - 1) kv_step + head_dim). slopes (1, heads): after scale and cap a head's
///   slope * (key position - query position) is added to a score.
/// - `add(Y, X)`: Y += X.
/// - `embed_tokens(Y, table, ids)`: row t of Y = row ids(0, t) of table; ids (1, tokens) in range.
/// - `add_positions(Y, table, seqlen)`: row t of Y += row t % seqlen of table.
/// - `cross_entropy(logits, targets)`: sum over the rows with a target >= 0 of
///   log(sum exp(row)) - row[target], in double; logits (tokens, vocab), targets (1, tokens).
template <class B, class T>
concept ModelBackend = detail::stores_scalar<B, T> && detail::HoldsMatrices<B, T> &&
    detail::HoldsMatrices<B, std::int32_t> &&
    requires(MatrixView<T> a, MatrixView<const T> c, MatrixView<const std::int32_t> ids,
             MatrixView<compute_scalar<T>> gram, MatrixView<double> moments,
             MatrixView<const compute_scalar<T>> slopes, const kernels::AttentionShape& shape) {
  { B::name } -> std::convertible_to<std::string_view>;
  B::for_each_element(index_t{}, index_t{}, detail::NoOpElement{});
  { B::find_non_finite(c) } -> std::same_as<index_t>;
  B::column_moments(c, moments);
  B::gram_accumulate(gram, c);
  B::template linear<T>(a, c, c, c);
  B::template layer_norm<T>(a, c, c, c, 1e-5);
  B::template rms_norm<T>(a, c, c, 1e-5, 0.0);
  B::template attention<T>(a, c, c, c, slopes, shape);
  B::template add<T>(a, c);
  B::template embed_tokens<T>(a, c, ids);
  B::template add_positions<T>(a, c, index_t{});
  { B::template cross_entropy<T>(c, ids) } -> std::same_as<double>;
};

/// A backend with a product of packed linears of its own, which the forward pass uses for few
/// tokens. Any other backend, scalar or number of tokens has the rows unpacked and `linear`.
///
/// - `packed_linear`: what it multiplies with, in its memory; copies share it.
/// - `prepare(packed)`: makes one of an indexed std::shared_ptr<const PackedLinear>; or nothing,
///   std::nullopt, of one that it had better leave to `linear`.
/// - `packed_tokens`: up to how many tokens this takes less time than unpacking.
/// - `packed_multiply(Y, X, W, bias)`: Y = X W^T + bias; X (tokens, in), W a packed_linear
///   (out, in), bias (1, out) or without rows. Where inputs are rotated it rotates X. The weights
///   are s (c - z), which may not be rounded to the type of the checkpoint.
template <class B, class T>
concept MultipliesPacked = requires(MatrixView<T> Y, MatrixView<const T> X,
                                    const typename B::packed_linear& W,
                                    std::shared_ptr<const PackedLinear> packed) {
  { B::prepare(packed) } -> std::convertible_to<std::optional<typename B::packed_linear>>;
  { B::packed_tokens } -> std::convertible_to<index_t>;
  B::template packed_multiply<T>(Y, X, W, X);
};

namespace detail {

/// A linear as B::packed_multiply takes it; empty before it is prepared.
template <class B>
struct PreparedLinear {
  struct type {};
};
template <class B>
  requires requires { typename B::packed_linear; }
struct PreparedLinear<B> {
  using type = std::optional<typename B::packed_linear>;
};

/// What every template over a model's backend asserts first; always true.
template <class B, class T>
constexpr bool check_model_backend() {
  using Compute = compute_scalar<T>;
  static_assert(check_backend<B, Compute>());
  if constexpr (Backend<B, Compute>) {
    static_assert(stores_scalar<B, T>,
                  "pare: a model in a type that the backend does not store: Backend::stores<T> is "
                  "false; write float or double, or use a backend that stores 16-bit types");
    if constexpr (stores_scalar<B, T>)
      static_assert(ModelBackend<B, T>,
                    "pare: a backend without the operations of a model: the type models Backend "
                    "but not ModelBackend; write every operation listed in "
                    "pare/model/model_backend.hpp, or use pare::backend::Eigen");
  }
  return true;
}

}  // namespace detail
}  // namespace pare
