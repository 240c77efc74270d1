// The forward pass of a decoder-only language model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/activations.hpp"
#include "pare/kernels/attention.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/language_model.hpp"
#include "pare/model/rotary.hpp"

namespace pare::inline PARE_TARGET {

/// A tap that takes nothing.
struct NoTap {
  /// Takes the activation of one input of a layer and does nothing.
  template <class T>
  void operator()(index_t, MatrixView<const T>) const {}
};

/// Where forward_layer ends when it runs to the end of the layer.
inline constexpr index_t whole_layer = std::numeric_limits<index_t>::max();

namespace detail {

/// Y = norm of the rows of X; Y may be X.  (tokens, width)
template <class B, class T>
void apply(const Architecture& config, const Norm<B, T>& norm, MatrixView<const T> X,
           MatrixView<T> Y) {
  if (config.norm == NormKind::layer)
    B::template layer_norm<T>(Y, X, norm.weight.view(), norm.bias.view(), config.norm_epsilon);
  else
    B::template rms_norm<T>(Y, X, norm.weight.view(), config.norm_epsilon, config.norm_offset);
}

/// The rows of contiguous X (tokens, heads * width) as (tokens * heads, width).
template <class T>
MatrixView<T> by_head(MatrixView<T> X, index_t width) {
  return {X.data, X.rows * (X.cols / width), width};
}

/// Queries, keys and values of a layer: where they lie, and how far their heads are apart.
template <class T>
struct Heads {
  MatrixView<T> q, k, v;  // (tokens, columns from the first to the last head's end)
  index_t q_step = 0, kv_step = 0;
};

/// What the linears in front of the attention make of X (tokens, hidden).
template <class B, class T>
Heads<T> make_heads(const Architecture& config, const DecoderLayer<B, T>& layer,
                    MatrixView<const T> X, ModelWorkspace<B, T>& workspace) {
  const index_t wide = config.query_size(), narrow = config.key_value_size();
  const index_t head = config.head_dim;
  const Linear<B, T>* fused = layer.find(LinearRole::qkv);
  if (fused == nullptr) {
    workspace.q.resize(X.rows, wide);
    workspace.k.resize(X.rows, narrow);
    workspace.v.resize(X.rows, narrow);
    Heads<T> heads{workspace.q.view(), workspace.k.view(), workspace.v.view(), head, head};
    apply(layer.at(LinearRole::q), X, heads.q, workspace.rows);
    apply(layer.at(LinearRole::k), X, heads.k, workspace.rows);
    apply(layer.at(LinearRole::v), X, heads.v, workspace.rows);
    return heads;
  }
  workspace.qkv.resize(X.rows, wide + 2 * narrow);
  const MatrixView<T> all = workspace.qkv.view();
  apply(*fused, X, all, workspace.rows);
  if (config.fused_order == FusedOrder::in_one)
    return {all.columns(0, wide), all.columns(wide, narrow), all.columns(wide + narrow, narrow),
            head, head};
  const index_t span = all.cols - 2 * head;
  return {all.columns(0, span), all.columns(head, span), all.columns(2 * head, span), 3 * head,
          3 * head};
}

/// Turns queries and keys by their positions.
template <class B, class T>
void rotate(const Architecture& config, index_t kind, const Heads<T>& heads, index_t seqlen,
            ModelWorkspace<B, T>& workspace) {
  using A = compute_scalar<T>;
  workspace.turns.resize(config.rotaries.size());
  auto& turns = workspace.turns[std::size_t(kind)];
  const Rotary& rotary = config.rotaries[std::size_t(kind)];
  if (turns.seqlen != seqlen || turns.rotary != rotary) {
    const RotaryTables<A> tables = rotary_tables<A>(rotary, seqlen);
    turns.rotary = rotary;
    turns.cosines = B::from_host(as_const(tables.cosines.view()));
    turns.sines = B::from_host(as_const(tables.sines.view()));
    turns.seqlen = seqlen;
  }
  const index_t half = turns.cosines.cols();
  const auto turn = [&](MatrixView<T> X, index_t count, index_t step) {
    B::for_each_element(X.rows, count * half,
                        kernels::RotatePairs<T>{X, turns.cosines.view(), turns.sines.view(), step,
                                                half, seqlen});
  };
  turn(heads.q, config.num_attention_heads, heads.q_step);
  turn(heads.k, config.num_key_value_heads, heads.kv_step);
}

/// What the attention of a layer makes of X (tokens, hidden): workspace.attended.
template <class B, class T>
MatrixView<const T> attend(const Architecture& config, const DecoderLayer<B, T>& layer,
                           MatrixView<const T> X, index_t seqlen, ModelWorkspace<B, T>& workspace) {
  using A = compute_scalar<T>;
  const Heads<T> heads = make_heads(config, layer, X, workspace);
  const index_t head = config.head_dim;
  if (!config.names.query_norm.empty()) {
    const MatrixView<T> q = by_head(heads.q, head), k = by_head(heads.k, head);
    apply<B, T>(config, layer.query_norm, q, q);
    apply<B, T>(config, layer.key_norm, k, k);
  }
  const LayerSpec& spec = config.layers[std::size_t(layer.index)];
  if (config.positions == PositionKind::rotary)
    rotate<B, T>(config, spec.rotary, heads, seqlen, workspace);
  const bool alibi = config.positions == PositionKind::alibi;
  if (alibi && workspace.slopes.cols() != config.num_attention_heads) {
    const std::vector<double> slopes = alibi_slopes(config.num_attention_heads);
    const std::vector<A> rounded(slopes.begin(), slopes.end());
    workspace.slopes =
        B::from_host(MatrixView<const A>(rounded.data(), 1, index_t(rounded.size())));
  }
  double scale = config.attention_scale > 0 ? config.attention_scale : 1 / std::sqrt(double(head));
  if (config.scale_by_layer) scale /= double(layer.index + 1);
  workspace.attended.resize(X.rows, config.query_size());
  B::template attention<T>(workspace.attended.view(), heads.q, heads.k, heads.v,
                           alibi ? workspace.slopes.view() : MatrixView<const A>{},
                           {.heads = config.num_attention_heads,
                            .kv_heads = config.num_key_value_heads,
                            .head_dim = head,
                            .seqlen = seqlen,
                            .q_step = heads.q_step,
                            .kv_step = heads.kv_step,
                            .scale = scale,
                            .soft_cap = config.attention_soft_cap,
                            .window = spec.window});
  return workspace.attended.view();
}

/// What the first half of a feed-forward part makes of X (tokens, hidden): what `down` reads.
template <class B, class T>
MatrixView<const T> widen(const Architecture& config, const DecoderLayer<B, T>& layer,
                          MatrixView<const T> X, ModelWorkspace<B, T>& workspace) {
  const index_t width = config.intermediate_size;
  workspace.up.resize(X.rows, width);
  const MatrixView<T> up = workspace.up.view();
  if (!config.gated) {
    apply(layer.at(LinearRole::up), X, up, workspace.rows, {.activation = config.activation});
    return up;
  }
  MatrixView<T> gate, factor = up;
  if (const Linear<B, T>* fused = layer.find(LinearRole::gate_up)) {
    workspace.gate.resize(X.rows, 2 * width);
    apply(*fused, X, workspace.gate.view(), workspace.rows);
    gate = workspace.gate.view().columns(0, width);
    factor = workspace.gate.view().columns(width, width);
  } else {
    workspace.gate.resize(X.rows, width);
    gate = workspace.gate.view();
    apply(layer.at(LinearRole::gate), X, gate, workspace.rows);
    apply(layer.at(LinearRole::up), X, up, workspace.rows);
  }
  B::for_each_element(up.rows, up.cols,
                      kernels::GatedProduct<T>{gate, factor, up, config.activation});
  return up;
}

inline void require_window(const Architecture& config, index_t seqlen, const char* who,
                           index_t least) {
  const index_t most = config.extrapolates() ? 0 : config.max_position_embeddings;
  if (seqlen >= least && (most == 0 || seqlen <= most)) return;
  const std::string expected = most == 0 ? "at least " + std::to_string(least)
                                         : std::to_string(least) + " to " + std::to_string(most) +
                                               " (max_position_embeddings)";
  throw argument_error(std::string(who) + ": seqlen: expected " + expected + ", got " +
                       std::to_string(seqlen));
}

}  // namespace detail

/// Writes the embeddings of `ids`, windows of `seqlen` one after the other, to `hidden`, which is
/// resized to (ids.size(), hidden_size). Throws argument_error if the ids are not whole windows, a
/// window is longer than the model's positions, or an id is not in the vocabulary.
template <class B, class T>
void embed(const LanguageModel<B, T>& model, std::span<const std::int32_t> ids, index_t seqlen,
           ModelWorkspace<B, T>& workspace, typename B::template matrix<T>& hidden) {
  const Architecture& config = model.config;
  const index_t tokens = index_t(ids.size());
  detail::require_window(config, seqlen, "embed", 1);
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
    workspace.words.resize(tokens, config.embedding_size);
    B::template embed_tokens<T>(workspace.words.view(), model.embed_tokens.view(),
                                device_ids.view());
    detail::apply<B, T>(*model.project_in, workspace.words.view(), hidden.view(), workspace.rows);
  } else {
    B::template embed_tokens<T>(hidden.view(), model.embed_tokens.view(), device_ids.view());
  }
  if (config.embedding_scale != 1) {
    // As transformers has it: the factor is rounded to the type of the embeddings, too.
    const auto scale = double(T(compute_scalar<T>(config.embedding_scale)));
    B::for_each_element(tokens, config.hidden_size, kernels::ScaleElement<T>{hidden.view(), scale});
  }
  if (config.positions == PositionKind::learned)
    B::template add_positions<T>(hidden.view(),
                                 detail::as_const(model.embed_positions.view())
                                     .block(config.position_offset, 0, seqlen, config.hidden_size),
                                 seqlen);
  if (model.embedding_norm)
    detail::apply<B, T>(config, *model.embedding_norm, hidden.view(), hidden.view());
}

/// Runs one layer on `hidden` (windows * seqlen, hidden_size), in place.
/// @param model      whose configuration counts
/// @param layer      one of its layers
/// @param hidden     (windows * seqlen, hidden_size)
/// @param seqlen     tokens of a window
/// @param workspace  buffers
/// @param tap      tap(input, X) is called with what the linears read, X (windows * seqlen, in),
///                 before they do, once for all that read the same; input is that of input_of(); X
///                 is valid during the call only
/// @param stop_at  the input after whose tap the pass ends, with `hidden` left as it was, or
///                 whole_layer
/// @throws shape_error if `hidden` does not fit
template <class B, class T, class Tap = NoTap>
void forward_layer(const LanguageModel<B, T>& model, const DecoderLayer<B, T>& layer,
                   std::type_identity_t<MatrixView<T>> hidden, index_t seqlen,
                   ModelWorkspace<B, T>& workspace, Tap&& tap = {}, index_t stop_at = whole_layer) {
  const Architecture& config = model.config;
  if (seqlen < 1 || hidden.rows % seqlen != 0 || hidden.cols != config.hidden_size)
    throw shape_error("forward_layer: hidden: expected shape (windows * " + std::to_string(seqlen) +
                      ", " + std::to_string(config.hidden_size) + "), got " +
                      shape_text(hidden.rows, hidden.cols));
  using View = MatrixView<const T>;
  const bool norm_first = config.norm_place != NormPlace::after;
  const bool around = config.norm_place == NormPlace::around;
  workspace.mixed.resize(hidden.rows, hidden.cols);
  workspace.sum.resize(hidden.rows, hidden.cols);
  const MatrixView<T> mixed = workspace.mixed.view();
  const MatrixView<T> sum = workspace.sum.view();  // `hidden` is written at the very end only

  View input = hidden;
  if (norm_first) {
    detail::apply<B, T>(config, layer.attention_norm, hidden, mixed);
    input = mixed;
  }
  tap(attention_input, input);
  if (stop_at == attention_input) return;
  const View attended = detail::attend(config, layer, input, seqlen, workspace);
  tap(out_input, attended);
  if (stop_at == out_input) return;
  // The residual; a norm that stands around the part comes before it.
  const auto add_after = [&](LinearRole role, View X, MatrixView<T> Y, View residual,
                             const Norm<B, T>& norm) {
    const kernels::Epilogue<T> then{.addend = around ? View{} : residual};
    detail::apply(layer.at(role), X, Y, workspace.rows, then);
    if (!around) return;
    detail::apply<B, T>(config, norm, Y, Y);
    B::template add<T>(Y, residual);
  };
  add_after(LinearRole::out, attended, sum, config.residual_after_norm ? input : View(hidden),
            layer.after_attention_norm);
  if (!norm_first) detail::apply<B, T>(config, layer.attention_norm, sum, sum);

  input = sum;
  if (norm_first) {
    detail::apply<B, T>(config, layer.feed_forward_norm,
                        config.parallel_residual ? View(hidden) : View(sum), mixed);
    input = mixed;
  }
  tap(feed_forward_input, input);
  if (stop_at == feed_forward_input) return;
  const View wide = detail::widen(config, layer, input, workspace);
  tap(down_input, wide);
  if (stop_at == down_input) return;

  add_after(LinearRole::down, wide, hidden, config.residual_after_norm ? input : View(sum),
            layer.after_feed_forward_norm);
  if (!norm_first) detail::apply<B, T>(config, layer.feed_forward_norm, hidden, hidden);
}

/// Tokens whose logits `head` computes together.
inline index_t head_chunk(const Architecture& config) {
  // 64 MiB of floats at most, as long as a chunk is not too small to be a fast product.
  return std::clamp<index_t>((index_t{1} << 24) / config.vocab_size, 256, 1024);
}

/// Final norm, project_out and the head on `hidden` (tokens, hidden_size), which is not changed.
/// Calls use(first, logits) chunk by chunk: logits (head_chunk or fewer tokens, vocab) of the tokens
/// from `first` on, valid during the call only.
template <class B, class T, class Use>
void head(const LanguageModel<B, T>& model, std::type_identity_t<MatrixView<const T>> hidden,
          ModelWorkspace<B, T>& workspace, Use&& use) {
  const Architecture& config = model.config;
  if (hidden.cols != config.hidden_size)
    throw shape_error("head: hidden: expected " + std::to_string(config.hidden_size) +
                      " columns, got shape " + shape_text(hidden.rows, hidden.cols));
  const index_t chunk = head_chunk(config);
  for (index_t first = 0; first < hidden.rows; first += chunk) {
    const index_t tokens = std::min(chunk, hidden.rows - first);
    MatrixView<const T> rows = hidden.block(first, 0, tokens, hidden.cols);
    if (model.final_norm) {
      workspace.mixed.resize(tokens, hidden.cols);
      detail::apply<B, T>(config, *model.final_norm, rows, workspace.mixed.view());
      rows = workspace.mixed.view();
    }
    if (model.project_out) {
      workspace.words.resize(tokens, config.embedding_size);
      detail::apply<B, T>(*model.project_out, rows, workspace.words.view(), workspace.rows);
      rows = workspace.words.view();
    }
    workspace.logits.resize(tokens, config.vocab_size);
    const MatrixView<T> logits = workspace.logits.view();
    B::template linear<T>(logits, rows, model.lm_head(), MatrixView<const T>{});
    if (config.logit_soft_cap > 0)
      B::for_each_element(tokens, config.vocab_size,
                          kernels::SoftCap<T>{logits, config.logit_soft_cap});
    use(first, MatrixView<const T>(logits));
  }
}

}  // namespace pare
