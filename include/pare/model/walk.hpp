// The one way through a model: embeddings, layer by layer with taps, head.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/decoder.hpp"

namespace pare::inline PARE_TARGET {

/// What compress_model, measure_sensitivities and perplexity ask of a model: its types, its layers'
/// linears, and these functions, found in the namespace of the model:
/// - `embed(model, ids, seqlen, workspace, hidden)`: resizes hidden to (ids, width of the residual
///   stream) and writes what enters the first layer; ids are windows of seqlen tokens;
/// - `forward_layer(model, layer, hidden, seqlen, workspace, tap, stop_at)`: runs a layer in place
///   and calls tap(input, X) with what the linears of that Linear::input read, before they do;
///   returns after the tap of `stop_at`, with hidden as it was.
///
/// LanguageModel is one; examples/custom_decoder has another.
template <class M>
concept LayeredModel = requires {
  typename M::backend_type;
  typename M::scalar_type;
  typename M::layer_type;
  typename M::workspace_type;
}
&&requires(const M& model, typename M::layer_type& layer, const typename M::layer_type& given,
           typename M::workspace_type& workspace, std::span<const std::int32_t> ids,
           typename M::backend_type::template matrix<typename M::scalar_type>& hidden,
           MatrixView<typename M::scalar_type> rows) {
  {
    *layer.linears().front()
    } -> std::same_as<Linear<typename M::backend_type, typename M::scalar_type>&>;
  {
    *given.linears().front()
    } -> std::same_as<const Linear<typename M::backend_type, typename M::scalar_type>&>;
  embed(model, ids, index_t{}, workspace, hidden);
  forward_layer(model, given, rows, index_t{}, workspace, NoTap{}, whole_layer);
};

namespace detail {

/// Tokens of a forward batch: large enough for fast products, small enough to stay small.
template <class B>
inline constexpr index_t batch_tokens = 4096;
template <class B>
  requires requires { B::batch_tokens; }
inline constexpr index_t batch_tokens<B> = B::batch_tokens;

template <class M>
constexpr bool check_layered_model() {
  static_assert(LayeredModel<M>,
                "pare: not a model of layers: write the types and functions that are listed at "
                "pare::LayeredModel in pare/model/walk.hpp");
  return true;
}

/// Inputs of a layer that its linears read.
template <class Layer>
index_t inputs_of(const Layer& layer) {
  index_t inputs = 0;
  for (const auto* linear : layer.linears()) inputs = std::max(inputs, linear->input + 1);
  return inputs;
}

}  // namespace detail

/// Token windows on their way through a model, in batches.
template <class M>
class Walk {
  static_assert(detail::check_layered_model<M>());
  using B = typename M::backend_type;
  using S = typename M::scalar_type;

 public:
  /// Owner of the states.
  using States = typename B::template matrix<S>;

  /// @param model   needed as long as the walk
  /// @param ids     whole windows of `seqlen`, one after the other; needed as long as the walk
  /// @param seqlen  tokens of a window
  /// @param batch   tokens that go through a layer together, in whole windows, one at least
  Walk(const M& model, std::span<const std::int32_t> ids, index_t seqlen,
       index_t batch = detail::batch_tokens<B>)
      : model_(&model),
        ids_(ids),
        seqlen_(seqlen),
        windows_(seqlen > 0 ? index_t(ids.size()) / seqlen : 0),
        together_(std::max<index_t>(1, batch / std::max<index_t>(1, seqlen))) {}

  /// Goes on with other windows of the same length. The states are then those of the ones before.
  void restart(std::span<const std::int32_t> ids) {
    ids_ = ids;
    windows_ = index_t(ids.size()) / std::max<index_t>(1, seqlen_);
  }

  /// Number of windows.
  index_t windows() const { return windows_; }
  /// Number of batches.
  index_t batches() const { return (windows_ + together_ - 1) / together_; }
  /// Windows of batch `b`.
  index_t size(index_t b) const { return std::min(together_, windows_ - b * together_); }
  /// First window of batch `b`.
  index_t first(index_t b) const { return b * together_; }
  /// What enters the next layer, (windows * seqlen, width).
  States& states() { return states_; }
  /// Their rows that belong to batch `b`.
  MatrixView<S> rows(index_t b) {
    return states_.view().block(first(b) * seqlen_, 0, size(b) * seqlen_, states_.cols());
  }
  /// Its ids.
  std::span<const std::int32_t> ids(index_t b) const {
    return ids_.subspan(std::size_t(first(b) * seqlen_), std::size_t(size(b) * seqlen_));
  }

  /// Makes the states those that enter the first layer.
  void embed_all() {
    if (batches() == 1) return embed(*model_, ids_, seqlen_, workspace_, states_);
    for (index_t b = 0; b < batches(); ++b) {
      embed(*model_, ids(b), seqlen_, workspace_, embedded_);
      if (b == 0) states_.resize(windows_ * seqlen_, embedded_.cols());
      B::copy(detail::as_const(embedded_.view()), rows(b));
    }
  }

  /// Runs a layer on one batch; see LayeredModel for the tap and where it stops.
  template <class Tap = NoTap>
  void run(const typename M::layer_type& layer, index_t b, Tap&& tap = {},
           index_t stop_at = whole_layer) {
    forward_layer(*model_, layer, rows(b), seqlen_, workspace_, tap, stop_at);
  }

  /// Calls use(first, logits) with logits (tokens, vocab) of the tokens from `first` of batch `b` on.
  template <class Use>
  void head_of(index_t b, Use&& use) {
    head(*model_, detail::as_const(rows(b)), workspace_, use);
  }

 private:
  const M* model_;
  std::span<const std::int32_t> ids_;
  index_t seqlen_, windows_, together_;
  typename M::workspace_type workspace_;
  States states_, embedded_;  // (tokens, width) of all, of a batch
};

}  // namespace pare
