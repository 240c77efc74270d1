// The configuration of an OPT model.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// The shape of an OPT model. Defaults are those of Hugging Face for absent fields.
struct OptConfig {
  /// Width of the residual stream.
  index_t hidden_size = 0;
  /// Inner width of the feed-forward part: fc1 (ffn, hidden), fc2 (hidden, ffn).
  index_t ffn_dim = 0;
  /// Number of decoder layers.
  index_t num_hidden_layers = 0;
  /// Attention heads of a layer; divides hidden_size.
  index_t num_attention_heads = 0;
  /// Rows of the embedding table.
  index_t vocab_size = 0;
  /// Longest window, in tokens.
  index_t max_position_embeddings = 0;
  index_t word_embed_proj_dim = 0;  ///< hidden_size, or else project_in and project_out exist
  /// Layer norms stand in front of attention and feed-forward, not behind them.
  bool do_layer_norm_before = true;
  /// There is no layer norm behind the last layer.
  bool remove_final_layer_norm = false;
  /// Linears have biases.
  bool enable_bias = true;
  /// Layer norms have weights and biases.
  bool layer_norm_elementwise_affine = true;
  /// Logits are made by the embedding table.
  bool tie_word_embeddings = true;
  std::int32_t bos_token_id = 2;  ///< put in front of every text; -1: nothing is

  /// Width of one head.
  index_t head_dim() const { return hidden_size / num_attention_heads; }
  /// Whether project_in and project_out exist.
  bool projects_embeddings() const { return word_embed_proj_dim != hidden_size; }
  /// Whether there is a layer norm behind the last layer.
  bool has_final_layer_norm() const { return do_layer_norm_before && !remove_final_layer_norm; }
};

}  // namespace pare
