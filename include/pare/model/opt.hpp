// An OPT language model: its weights and its forward pass.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/activations.hpp"
#include "pare/model/linear.hpp"
#include "pare/model/model_backend.hpp"
#include "pare/model/opt_config.hpp"

namespace pare::inline PARE_TARGET {

/// Weight and bias of a layer norm; both empty when it has none.
template <class B, class T>
struct LayerNorm {
  typename B::template matrix<T> weight;  // (1, hidden), or empty
  typename B::template matrix<T> bias;    // (1, hidden), or empty
};

/// One decoder layer.
template <class B, class T>
struct OptLayer {
  Linear<B, T> q_proj, k_proj, v_proj, out_proj;  // (hidden, hidden)
  Linear<B, T> fc1;                               // (ffn, hidden)
  Linear<B, T> fc2;                               // (hidden, ffn)
  /// In front of the attention and of fc1, or behind them; see OptConfig::do_layer_norm_before.
  LayerNorm<B, T> self_attn_layer_norm, final_layer_norm;

  /// The six in the order in which the published implementation compresses them.
  std::array<Linear<B, T>*, 6> linears() {
    return {&k_proj, &v_proj, &q_proj, &out_proj, &fc1, &fc2};
  }
  /// The same of a layer that is not changed.
  std::array<const Linear<B, T>*, 6> linears() const {
    return {&k_proj, &v_proj, &q_proj, &out_proj, &fc1, &fc2};
  }
};

/// A whole model in the memory of backend B.
template <class B, class T>
struct OptModel {
  static_assert(detail::check_model_backend<B, T>());

  /// Where the model lies.
  using backend_type = B;
  /// What its numbers are stored in.
  using scalar_type = T;

  /// Its shape.
  OptConfig config;
  typename B::template matrix<T> embed_tokens;     // (vocab, word_embed_proj_dim)
  typename B::template matrix<T> embed_positions;  // (max_position_embeddings + 2, hidden)
  std::optional<Linear<B, T>> project_in;          // (hidden, word_embed_proj_dim)
  /// The decoder, from the input to the output.
  std::vector<OptLayer<B, T>> layers;
  /// Behind the last layer; none in the shapes that have none.
  std::optional<LayerNorm<B, T>> final_layer_norm;
  std::optional<Linear<B, T>> project_out;     // (word_embed_proj_dim, hidden)
  typename B::template matrix<T> untied_head;  // (vocab, word_embed_proj_dim), empty if tied

  /// The matrix that turns embeddings into logits, (vocab, word_embed_proj_dim).
  MatrixView<const T> lm_head() const {
    return config.tie_word_embeddings ? embed_tokens.view() : untied_head.view();
  }
};

/// Rows of the position table in front of that of the first position.
inline constexpr index_t opt_position_offset = 2;

namespace detail {

/// Y = norm of the rows of X; Y may be X.  (tokens, hidden)
template <class B, class T>
void apply(const LayerNorm<B, T>& norm, MatrixView<const T> X, MatrixView<T> Y) {
  B::template layer_norm<T>(Y, X, norm.weight.view(), norm.bias.view(), 1e-5);
}

}  // namespace detail

/// Buffers of a forward pass. They grow on first use and are reused by every later call.
template <class B, class T>
struct OptWorkspace {
  typename B::template matrix<T> mixed;    // (tokens, hidden) what a linear reads
  typename B::template matrix<T> q, k, v;  // (tokens, hidden)
  typename B::template matrix<T> ffn;      // (tokens, ffn)
  typename B::template matrix<T> words;    // (tokens, word_embed_proj_dim)
  typename B::template matrix<T> logits;   // (tokens of a chunk, vocab)
  UnpackedRows<B, T> rows;                 ///< of the packed linear at work
};

/// Which linears of a layer read an activation.
enum class LayerInput : std::uint8_t { qkv, out_proj, fc1, fc2 };

/// How far forward_layer goes: to an input of its linears, with `hidden` left as it was, or to the
/// end.
enum class LayerRun : std::uint8_t { to_qkv, to_out_proj, to_fc1, to_fc2, whole };

/// A tap that takes nothing.
struct NoTap {
  /// Takes the activation of one input of a layer and does nothing.
  template <class T>
  void operator()(LayerInput, MatrixView<const T>) const {}
};

/// Writes the embeddings of `ids`, windows of `seqlen` one after the other, to `hidden`, which is
/// resized to (ids.size(), hidden_size). Throws argument_error if the ids are not whole windows, a
/// window is longer than the model's positions, or an id is not in the vocabulary.
template <class B, class T>
void embed(const OptModel<B, T>& model, std::span<const std::int32_t> ids, index_t seqlen,
           OptWorkspace<B, T>& workspace, typename B::template matrix<T>& hidden) {
  const OptConfig& config = model.config;
  const index_t tokens = index_t(ids.size());
  if (seqlen < 1 || seqlen > config.max_position_embeddings)
    throw argument_error("embed: seqlen: expected 1 to " +
                         std::to_string(config.max_position_embeddings) +
                         " (max_position_embeddings), got " + std::to_string(seqlen));
  if (tokens % seqlen != 0)
    throw argument_error("embed: ids: expected whole windows of " + std::to_string(seqlen) +
                         " tokens, got " + std::to_string(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config.vocab_size)
      throw argument_error("embed: ids: expected 0 to " + std::to_string(config.vocab_size - 1) +
                           ", got " + std::to_string(ids[i]) + " at " + std::to_string(i));

  const auto device_ids = B::from_host(MatrixView<const std::int32_t>(ids.data(), 1, tokens));
  hidden.resize(tokens, config.hidden_size);
  if (model.project_in) {
    workspace.words.resize(tokens, config.word_embed_proj_dim);
    B::template embed_tokens<T>(workspace.words.view(), model.embed_tokens.view(),
                                device_ids.view());
    detail::apply<B, T>(*model.project_in, workspace.words.view(), hidden.view(), workspace.rows);
  } else {
    B::template embed_tokens<T>(hidden.view(), model.embed_tokens.view(), device_ids.view());
  }
  const MatrixView<const T> positions = model.embed_positions.view();
  B::template add_positions<T>(hidden.view(),
                               positions.block(opt_position_offset, 0, seqlen, config.hidden_size),
                               seqlen);
}

/// Runs one layer on `hidden` (windows * seqlen, hidden_size), in place. `tap(LayerInput, X)` is
/// called with what the linears read, X (windows * seqlen, in), before they do, once for q, k and
/// v together; X is valid during the call only. Throws shape_error if `hidden` does not fit.
template <class B, class T, class Tap = NoTap>
void forward_layer(const OptModel<B, T>& model, const OptLayer<B, T>& layer,
                   std::type_identity_t<MatrixView<T>> hidden, index_t seqlen,
                   OptWorkspace<B, T>& workspace, Tap&& tap = {}, LayerRun run = LayerRun::whole) {
  const OptConfig& config = model.config;
  if (seqlen < 1 || hidden.rows % seqlen != 0 || hidden.cols != config.hidden_size)
    throw shape_error("forward_layer: hidden: expected shape (windows * " + std::to_string(seqlen) +
                      ", " + std::to_string(config.hidden_size) + "), got " +
                      shape_text(hidden.rows, hidden.cols));
  using View = MatrixView<const T>;
  const bool norm_first = config.do_layer_norm_before;
  const index_t tokens = hidden.rows;
  for (auto* buffer : {&workspace.mixed, &workspace.q, &workspace.k, &workspace.v})
    buffer->resize(tokens, config.hidden_size);
  workspace.ffn.resize(tokens, config.ffn_dim);
  const MatrixView<T> mixed = workspace.mixed.view(), ffn = workspace.ffn.view();
  const MatrixView<T> q = workspace.q.view(), k = workspace.k.view(), v = workspace.v.view();

  View input = hidden;
  if (norm_first) {
    detail::apply<B, T>(layer.self_attn_layer_norm, hidden, mixed);
    input = mixed;
  }
  tap(LayerInput::qkv, input);
  if (run == LayerRun::to_qkv) return;
  detail::apply<B, T>(layer.q_proj, input, q, workspace.rows);
  detail::apply<B, T>(layer.k_proj, input, k, workspace.rows);
  detail::apply<B, T>(layer.v_proj, input, v, workspace.rows);
  const index_t heads = config.num_attention_heads, head_dim = config.hidden_size / heads;
  B::template attention<T>(mixed, q, k, v, {},
                           {.heads = heads,
                            .kv_heads = heads,
                            .head_dim = head_dim,
                            .seqlen = seqlen,
                            .q_step = head_dim,
                            .kv_step = head_dim,
                            .scale = 1 / std::sqrt(double(head_dim))});
  tap(LayerInput::out_proj, View(mixed));
  if (run == LayerRun::to_out_proj) return;

  const MatrixView<T> sum = q;  // free by now; `hidden` itself is written at the very end only
  detail::apply<B, T>(layer.out_proj, mixed, sum, workspace.rows);
  B::template add<T>(sum, hidden);
  if (!norm_first) detail::apply<B, T>(layer.self_attn_layer_norm, sum, sum);
  input = sum;
  if (norm_first) {
    detail::apply<B, T>(layer.final_layer_norm, sum, mixed);
    input = mixed;
  }
  tap(LayerInput::fc1, input);
  if (run == LayerRun::to_fc1) return;
  detail::apply<B, T>(layer.fc1, input, ffn, workspace.rows);
  B::for_each_element(ffn.rows, ffn.cols, kernels::Activate<T>{ffn, kernels::Activation::relu});
  tap(LayerInput::fc2, View(ffn));
  if (run == LayerRun::to_fc2) return;

  detail::apply<B, T>(layer.fc2, ffn, hidden, workspace.rows);
  B::template add<T>(hidden, sum);
  if (!norm_first) detail::apply<B, T>(layer.final_layer_norm, hidden, hidden);
}

/// Tokens whose logits `head` computes together.
inline index_t head_chunk(const OptConfig& config) {
  // 64 MiB of floats at most, as long as a chunk is not too small to be a fast product.
  return std::clamp<index_t>((index_t{1} << 24) / config.vocab_size, 256, 1024);
}

/// Final layer norm, project_out and the head on `hidden` (tokens, hidden_size), which is not
/// changed. Calls use(first, logits) chunk by chunk: logits (head_chunk or fewer tokens, vocab) of
/// the tokens from `first` on, valid during the call only.
template <class B, class T, class Use>
void head(const OptModel<B, T>& model, std::type_identity_t<MatrixView<const T>> hidden,
          OptWorkspace<B, T>& workspace, Use&& use) {
  const OptConfig& config = model.config;
  if (hidden.cols != config.hidden_size)
    throw shape_error("head: hidden: expected " + std::to_string(config.hidden_size) +
                      " columns, got shape " + shape_text(hidden.rows, hidden.cols));
  const index_t chunk = head_chunk(config);
  for (index_t first = 0; first < hidden.rows; first += chunk) {
    const index_t tokens = std::min(chunk, hidden.rows - first);
    MatrixView<const T> rows = hidden.block(first, 0, tokens, hidden.cols);
    if (model.final_layer_norm) {
      workspace.mixed.resize(tokens, hidden.cols);
      detail::apply<B, T>(*model.final_layer_norm, rows, workspace.mixed.view());
      rows = workspace.mixed.view();
    }
    if (model.project_out) {
      workspace.words.resize(tokens, config.word_embed_proj_dim);
      detail::apply<B, T>(*model.project_out, rows, workspace.words.view(), workspace.rows);
      rows = workspace.words.view();
    }
    workspace.logits.resize(tokens, config.vocab_size);
    B::template linear<T>(workspace.logits.view(), rows, model.lm_head(), MatrixView<const T>{});
    use(first, MatrixView<const T>(workspace.logits.view()));
  }
}

}  // namespace pare
