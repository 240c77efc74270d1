// The configuration of an OPT model.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"

namespace pare {

/// The shape of an OPT model. Defaults are those of Hugging Face for absent fields.
struct OptConfig {
  index_t hidden_size = 0;
  index_t ffn_dim = 0;
  index_t num_hidden_layers = 0;
  index_t num_attention_heads = 0;
  index_t vocab_size = 0;
  index_t max_position_embeddings = 0;
  index_t word_embed_proj_dim = 0;  ///< hidden_size, or else project_in and project_out exist
  bool do_layer_norm_before = true;
  bool remove_final_layer_norm = false;
  bool enable_bias = true;
  bool layer_norm_elementwise_affine = true;
  bool tie_word_embeddings = true;
  std::int32_t bos_token_id = 2;  ///< put in front of every text

  index_t head_dim() const { return hidden_size / num_attention_heads; }
  bool projects_embeddings() const { return word_embed_proj_dim != hidden_size; }
  bool has_final_layer_norm() const { return do_layer_norm_before && !remove_final_layer_norm; }
};

}  // namespace pare
