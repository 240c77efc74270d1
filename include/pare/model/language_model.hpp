// The weights of a decoder-only language model, and what its forward pass needs beside them.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/linear.hpp"
#include "pare/model/model_backend.hpp"

namespace pare::inline PARE_TARGET {

/// Weight and bias of a norm; empty where it has none.
template <class B, class T>
struct Norm {
  typename B::template matrix<T> weight;  // (1, width), or empty
  typename B::template matrix<T> bias;    // (1, width), or empty
};

/// One decoder layer.
template <class B, class T>
struct DecoderLayer {
  index_t index = 0;                             ///< from 0
  std::vector<Linear<B, T>> weights;             ///< its linears, in the order of compression
  Norm<B, T> attention_norm, feed_forward_norm;  ///< see Architecture::norm_place
  Norm<B, T> after_attention_norm, after_feed_forward_norm;  ///< where norms stand around
  Norm<B, T> query_norm, key_norm;                           ///< of each head, (1, head_dim)

  /// Its linears, in the order of compression.
  std::vector<Linear<B, T>*> linears() {
    std::vector<Linear<B, T>*> all;
    for (Linear<B, T>& linear : weights) all.push_back(&linear);
    return all;
  }
  /// The same of a layer that is not changed.
  std::vector<const Linear<B, T>*> linears() const {
    std::vector<const Linear<B, T>*> all;
    for (const Linear<B, T>& linear : weights) all.push_back(&linear);
    return all;
  }
  /// The linear of a role; null where the layer has none.
  const Linear<B, T>* find(LinearRole role) const {
    const auto found = std::ranges::find(weights, role, &Linear<B, T>::role);
    return found == weights.end() ? nullptr : &*found;
  }
  /// The linear of a role. Throws argument_error where the layer has none.
  const Linear<B, T>& at(LinearRole role) const {
    if (const Linear<B, T>* linear = find(role)) return *linear;
    throw argument_error("layer " + std::to_string(index) + ": has no linear of role " +
                         std::to_string(int(role)));
  }
  /// The same of a layer that may be changed.
  Linear<B, T>& at(LinearRole role) {
    return const_cast<Linear<B, T>&>(std::as_const(*this).at(role));
  }
};

/// Buffers of a forward pass. They grow on first use and are reused by every later call.
template <class B, class T>
struct ModelWorkspace {
  typename B::template matrix<T> mixed;     // (tokens, hidden) what a linear reads
  typename B::template matrix<T> q, k, v;   // (tokens, width of all heads)
  typename B::template matrix<T> qkv;       // (tokens, the three of them)
  typename B::template matrix<T> attended;  // (tokens, width of all query heads)
  typename B::template matrix<T> sum;       // (tokens, hidden) residual stream
  typename B::template matrix<T> up;        // (tokens, intermediate)
  typename B::template matrix<T> gate;      // (tokens, intermediate, or twice that)
  typename B::template matrix<T> words;     // (tokens, embedding)
  typename B::template matrix<T> logits;    // (tokens of a chunk, vocab)
  UnpackedRows<B, T> rows;                  ///< of the packed linear at work

  /// Cosines and sines of a kind of layers, for windows of one length.
  struct Turns {
    Rotary rotary;                                                  ///< whose they are
    index_t seqlen = 0;                                             ///< 0: not made yet
    typename B::template matrix<compute_scalar<T>> cosines, sines;  // (seqlen, pairs)
  };
  std::vector<Turns> turns;                               ///< by Architecture::rotaries
  typename B::template matrix<compute_scalar<T>> slopes;  // (1, heads) of ALiBi, or empty
};

/// A whole model in the memory of backend B.
template <class B, class T>
struct LanguageModel {
  static_assert(detail::check_model_backend<B, T>());

  /// Where the model lies.
  using backend_type = B;
  /// What its numbers are stored in.
  using scalar_type = T;
  /// One of its layers.
  using layer_type = DecoderLayer<B, T>;
  /// What its forward pass needs beside it.
  using workspace_type = ModelWorkspace<B, T>;

  /// Its shape and mathematics.
  Architecture config;
  typename B::template matrix<T> embed_tokens;     // (vocab, embedding)
  typename B::template matrix<T> embed_positions;  // (positions + offset, hidden), or empty
  std::optional<Norm<B, T>> embedding_norm;        ///< of the embeddings (BLOOM)
  std::optional<Linear<B, T>> project_in;          // (hidden, embedding)
  /// The decoder, from the input to the output.
  std::vector<DecoderLayer<B, T>> layers;
  /// After the last layer; none in the shapes that have none.
  std::optional<Norm<B, T>> final_norm;
  std::optional<Linear<B, T>> project_out;     // (embedding, hidden)
  typename B::template matrix<T> untied_head;  // (vocab, embedding), empty if tied

  /// The matrix that turns embeddings into logits, (vocab, embedding).
  MatrixView<const T> lm_head() const {
    return config.tie_word_embeddings ? embed_tokens.view() : untied_head.view();
  }
};

namespace detail {

/// A linear as the architecture describes it, still without numbers.
/// @param prefix  in front of every tensor's name
/// @param within  in front of its name in a layer: "layers.3."
template <class B, class T>
Linear<B, T> described_linear(const LinearSpec& spec, const std::string& prefix,
                              const std::string& within) {
  Linear<B, T> linear;
  linear.name = within + spec.name;
  linear.tensor = prefix + linear.name + ".weight";
  linear.role = spec.role;
  linear.input = input_of(spec.role);
  linear.transposed = spec.transposed;
  return linear;
}

/// A layer whose numbers come from elsewhere.
/// @param linear  linear(spec, within, out, in) gives a linear
/// @param norm    norm(name, width) gives a norm, by its name within the model
template <class B, class T, class MakeLinear, class MakeNorm>
DecoderLayer<B, T> build_layer(const Architecture& architecture, index_t index,
                               const MakeLinear& linear, const MakeNorm& norm) {
  const TensorNames& names = architecture.names;
  const std::string within = names.layers + std::to_string(index) + ".";
  DecoderLayer<B, T> layer;
  layer.index = index;
  for (const LinearSpec& spec : architecture.linears)
    layer.weights.push_back(linear(spec, within, rows_of(architecture, spec.role),
                                   columns_of(architecture, spec.role)));
  const auto named = [&](const std::string& name, index_t width) {
    return name.empty() ? Norm<B, T>{} : norm(within + name, width);
  };
  const index_t hidden = architecture.hidden_size;
  layer.attention_norm = named(names.attention_norm, hidden);
  layer.feed_forward_norm = named(names.feed_forward_norm, hidden);
  layer.after_attention_norm = named(names.after_attention_norm, hidden);
  layer.after_feed_forward_norm = named(names.after_feed_forward_norm, hidden);
  layer.query_norm = named(names.query_norm, architecture.head_dim);
  layer.key_norm = named(names.key_norm, architecture.head_dim);
  return layer;
}

}  // namespace detail
}  // namespace pare
