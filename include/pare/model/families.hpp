// The families of models that are known: each a row of data.
#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/config_reader.hpp"

namespace pare::inline PARE_TARGET {

/// A field of config.json that decides whether linears have biases.
struct BiasField {
  /// Its name.
  std::string name;
  /// Whose.
  std::vector<LinearRole> linears;
};

/// What config.json calls the numbers of a model.
struct FieldNames {
  std::string hidden_size = "hidden_size";  ///< width of the residual stream
  std::string older_hidden_size = {};       ///< goes first where it is there
  std::string intermediate_size =
      "intermediate_size";  ///< inner width of the feed-forward part; empty: no field says it
  std::string layers = "num_hidden_layers";             ///< decoder layers
  std::string heads = "num_attention_heads";            ///< query heads
  std::string key_value_heads = "num_key_value_heads";  ///< empty: as many as query heads
  std::string head_dim = "head_dim";                    ///< empty: hidden_size / query heads
  std::string positions = "max_position_embeddings";    ///< longest window; empty: not limited
  std::string epsilon = "rms_norm_eps";                 ///< of the norms; empty: that of the family
  std::string activation = "hidden_act";                ///< its name; empty: that of the family
  std::string rotary_theta = "rope_theta";              ///< base of the frequencies
  std::string rotary_share = {};  ///< of a head's columns that turn; empty: that of the family
};

/// A family of models: what all of them have in common, and where config.json says the rest.
struct Family {
  std::string model_type;  ///< of config.json
  /// The model_type of folders that hold such a model beside others, in `text_config`; or empty.
  std::string whole_model_type = {};
  /// What every model has, and what one has whose config.json lacks a field. A size of 0 is
  /// required, but for what follows from others.
  Architecture base;
  FieldNames fields;                   ///< where config.json says the numbers
  std::vector<BiasField> biases = {};  ///< where it says who has biases
  index_t intermediate_factor = 0;     ///< times hidden_size, where no field says it; 0: required
  double rotary_share = 1;             ///< of a head's columns that turn, where no field says it
  /// Older names of ways to stretch rotary positions, and today's.
  std::vector<std::pair<std::string, std::string>> older_scalings = {};
  /// Reads what only this family has; null: nothing.
  void (*adjust)(const ConfigReader& config, Architecture& architecture) = nullptr;
};

namespace detail {

using enum LinearRole;

/// Linears of a layer as LLaMA calls them.
inline std::vector<LinearSpec> llama_linears(bool qkv_bias = false) {
  return {{q, "self_attn.q_proj", qkv_bias},
          {k, "self_attn.k_proj", qkv_bias},
          {v, "self_attn.v_proj", qkv_bias},
          {out, "self_attn.o_proj"},
          {gate, "mlp.gate_proj"},
          {up, "mlp.up_proj"},
          {down, "mlp.down_proj"}};
}

/// The same window in every layer; 0: none.
inline void set_windows(Architecture& architecture, index_t window) {
  for (LayerSpec& layer : architecture.layers) layer.window = window;
}

/// Windows where `layer_types` says so, or else where `slides(i)` does.
template <class Slides>
void read_layer_types(const ConfigReader& config, Architecture& architecture, index_t window,
                      const Slides& slides) {
  const std::vector<std::string> types = config.texts("layer_types");
  if (!types.empty() && index_t(types.size()) != architecture.num_hidden_layers)
    throw config.bad("layer_types", "one for each of " +
                                        std::to_string(architecture.num_hidden_layers) + " layers");
  for (index_t i = 0; i < architecture.num_hidden_layers; ++i) {
    bool sliding = slides(i);
    if (!types.empty()) {
      const std::string& type = types[std::size_t(i)];
      sliding = type == "sliding_attention";
      if (!sliding && type != "full_attention")
        throw config.bad("layer_types",
                         "\"full_attention\" or \"sliding_attention\" at " + std::to_string(i));
    }
    LayerSpec& layer = architecture.layers[std::size_t(i)];
    layer.window = sliding ? window : 0;
    layer.rotary = sliding && architecture.rotaries.size() > 1 ? 1 : 0;
  }
}

inline void adjust_opt(const ConfigReader& config, Architecture& a) {
  a.embedding_size = config.size("word_embed_proj_dim", a.hidden_size);
  const bool before = config.boolean("do_layer_norm_before", true);
  a.norm_place = before ? NormPlace::before : NormPlace::after;
  if (!before || config.boolean("_remove_final_layer_norm", false)) a.names.final_norm.clear();
  a.norm_affine = config.boolean("layer_norm_elementwise_affine", true);
}

inline void adjust_mistral(const ConfigReader& config, Architecture& a) {
  if (!config.is_null("sliding_window")) set_windows(a, config.size("sliding_window", 4096));
}

inline void adjust_qwen(const ConfigReader& config, Architecture& a) {
  const bool slides = config.boolean("use_sliding_window", false);
  const index_t window =
      slides && !config.is_null("sliding_window") ? config.size("sliding_window", 4096) : 0;
  const index_t full = config.size_or_zero("max_window_layers", 28);
  read_layer_types(config, a, window, [&](index_t i) { return window > 0 && i >= full; });
}

inline void adjust_gemma2(const ConfigReader& config, Architecture& a) {
  config.require_false("use_bidirectional_attention");
  a.attention_scale = 1 / std::sqrt(config.number("query_pre_attn_scalar", 256));
  const bool third = a.rotaries.size() > 1;
  // Gemma 3 has the field and does not use it.
  a.attention_soft_cap = third || config.is_null("attn_logit_softcapping")
                             ? 0
                             : config.number("attn_logit_softcapping", a.attention_soft_cap);
  a.logit_soft_cap = config.is_null("final_logit_softcapping")
                         ? 0
                         : config.number("final_logit_softcapping", a.logit_soft_cap);
  a.embedding_scale = std::sqrt(double(a.hidden_size));
  const index_t window = config.is_null("sliding_window") ? 0 : config.size("sliding_window", 4096);
  index_t pattern = 2;
  if (third)
    pattern = config.size("sliding_window_pattern", config.size("_sliding_window_pattern", 6));
  read_layer_types(config, a, window, [&](index_t i) { return (i + 1) % pattern != 0; });
}

inline void adjust_neox(const ConfigReader& config, Architecture& a) {
  a.parallel_residual = config.boolean("use_parallel_residual", true);
}

inline void adjust_bloom(const ConfigReader& config, Architecture& a) {
  a.residual_after_norm = config.boolean("apply_residual_connection_post_layernorm", false);
}

inline void adjust_gpt2(const ConfigReader& config, Architecture& a) {
  if (!config.boolean("scale_attn_weights", true)) a.attention_scale = 1;
  a.scale_by_layer = config.boolean("scale_attn_by_inverse_layer_idx", false);
  config.require_false("add_cross_attention");
}

inline Family llama_family() {
  Family family;
  family.model_type = "llama";
  Architecture& a = family.base;
  a.norm = NormKind::rms;
  a.norm_epsilon = 1e-6;
  a.tie_word_embeddings = false;
  a.rotaries = {Rotary{}};
  a.linears = llama_linears();
  family.biases = {{"attention_bias", {q, k, v, out}}, {"mlp_bias", {gate, up, down}}};
  return family;
}

inline Family mistral_family() {
  Family family = llama_family();
  family.model_type = "mistral";
  family.base.num_key_value_heads = 8;
  family.biases.clear();
  family.adjust = adjust_mistral;
  return family;
}

inline Family qwen2_family() {
  Family family = llama_family();
  family.model_type = "qwen2";
  family.base.linears = llama_linears(true);
  family.biases.clear();
  family.adjust = adjust_qwen;
  return family;
}

inline Family qwen3_family() {
  Family family = llama_family();
  family.model_type = "qwen3";
  family.base.head_dim = 128;
  family.base.names.query_norm = "self_attn.q_norm";
  family.base.names.key_norm = "self_attn.k_norm";
  family.biases = {{"attention_bias", {q, k, v, out}}};
  family.adjust = adjust_qwen;
  return family;
}

inline Family gemma2_family() {
  Family family = llama_family();
  family.model_type = "gemma2";
  Architecture& a = family.base;
  a.norm_offset = 1;
  a.norm_place = NormPlace::around;
  a.num_attention_heads = 8;
  a.num_key_value_heads = 4;
  a.head_dim = 256;
  a.activation = kernels::Activation::gelu_tanh;
  a.attention_soft_cap = 50;
  a.logit_soft_cap = 30;
  a.tie_word_embeddings = true;
  a.begins_with_bos = a.every_window_has_bos = true;
  a.bos_token_id = 2;
  a.names.after_attention_norm = "post_attention_layernorm";
  a.names.feed_forward_norm = "pre_feedforward_layernorm";
  a.names.after_feed_forward_norm = "post_feedforward_layernorm";
  family.fields.activation = "hidden_activation";
  family.biases = {{"attention_bias", {q, k, v, out}}};
  family.adjust = adjust_gemma2;
  return family;
}

inline Family gemma3_family() {
  Family family = gemma2_family();
  family.model_type = "gemma3_text";
  family.whole_model_type = "gemma3";
  Architecture& a = family.base;
  a.attention_soft_cap = a.logit_soft_cap = 0;
  a.vocab_size = 262208;
  a.max_position_embeddings = 131072;
  a.rotaries = {Rotary{.theta = 1e6}, Rotary{.theta = 1e4}};  // of full and of sliding layers
  a.names.query_norm = "self_attn.q_norm";
  a.names.key_norm = "self_attn.k_norm";
  a.names.prefixes = {"model.", "", "language_model.model.", "model.language_model."};
  return family;
}

inline Family phi3_family() {
  Family family = mistral_family();
  family.model_type = "phi3";
  Architecture& a = family.base;
  a.norm_epsilon = 1e-5;
  a.num_key_value_heads = 0;
  a.linears = {{qkv, "self_attn.qkv_proj"},
               {out, "self_attn.o_proj"},
               {gate_up, "mlp.gate_up_proj"},
               {down, "mlp.down_proj"}};
  family.fields.rotary_share = "partial_rotary_factor";
  family.older_scalings = {{"su", "longrope"}, {"yarn", "longrope"}};
  family.adjust = [](const ConfigReader& config, Architecture& architecture) {
    if (config.has("sliding_window")) adjust_mistral(config, architecture);
  };
  return family;
}

/// What OPT, GPT-NeoX, BLOOM and GPT-2 have in common.
inline Family gpt_family(std::string model_type) {
  Family family;
  family.model_type = std::move(model_type);
  family.base.gated = false;
  family.base.activation = kernels::Activation::gelu;
  family.fields.key_value_heads.clear();
  family.fields.head_dim.clear();
  return family;
}

inline Family opt_family() {
  Family family = gpt_family("opt");
  Architecture& a = family.base;
  a.activation = kernels::Activation::relu;
  a.positions = PositionKind::learned;
  a.position_offset = 2;
  a.bos_token_id = 2;
  a.begins_with_bos = true;
  a.linears = {{k, "self_attn.k_proj", true},
               {v, "self_attn.v_proj", true},
               {q, "self_attn.q_proj", true},
               {out, "self_attn.out_proj", true},
               {up, "fc1", true},
               {down, "fc2", true}};
  a.names = {.prefixes = {"model.decoder.", "decoder.", ""},
             .positions = "embed_positions",
             .attention_norm = "self_attn_layer_norm",
             .feed_forward_norm = "final_layer_norm",
             .final_norm = "final_layer_norm",
             .project_in = "project_in",
             .project_out = "project_out"};
  family.fields.intermediate_size = "ffn_dim";
  family.fields.activation = "activation_function";
  family.fields.epsilon.clear();
  family.biases = {{"enable_bias", {q, k, v, out, up, down}}};
  family.adjust = adjust_opt;
  return family;
}

inline Family neox_family() {
  Family family = gpt_family("gpt_neox");
  Architecture& a = family.base;
  a.tie_word_embeddings = false;
  a.fused_order = FusedOrder::by_head;
  a.rotaries = {Rotary{}};
  a.linears = {{qkv, "attention.query_key_value", true},
               {out, "attention.dense", true},
               {up, "mlp.dense_h_to_4h", true},
               {down, "mlp.dense_4h_to_h", true}};
  a.names = {.prefixes = {"gpt_neox.", ""},
             .embedding = "embed_in",
             .final_norm = "final_layer_norm",
             .head = "embed_out"};
  family.fields.epsilon = "layer_norm_eps";
  family.fields.rotary_theta = "rotary_emb_base";
  family.fields.rotary_share = "rotary_pct";
  family.rotary_share = 0.25;
  family.biases = {{"attention_bias", {qkv, out}}};
  family.adjust = adjust_neox;
  return family;
}

inline Family bloom_family() {
  Family family = gpt_family("bloom");
  Architecture& a = family.base;
  a.activation = kernels::Activation::gelu_tanh;
  a.positions = PositionKind::alibi;
  a.fused_order = FusedOrder::by_head;
  a.linears = {{qkv, "self_attention.query_key_value", true},
               {out, "self_attention.dense", true},
               {up, "mlp.dense_h_to_4h", true},
               {down, "mlp.dense_4h_to_h", true}};
  a.names = {.prefixes = {"transformer.", ""},
             .embedding = "word_embeddings",
             .embedding_norm = "word_embeddings_layernorm",
             .layers = "h.",
             .final_norm = "ln_f"};
  family.fields = {.older_hidden_size = "n_embed",
                   .intermediate_size = "",
                   .layers = "n_layer",
                   .heads = "n_head",
                   .key_value_heads = "",
                   .head_dim = "",
                   .positions = "",
                   .epsilon = "layer_norm_epsilon",
                   .activation = ""};
  family.intermediate_factor = 4;
  family.adjust = adjust_bloom;
  return family;
}

inline Family gpt2_family() {
  Family family = gpt_family("gpt2");
  Architecture& a = family.base;
  a.activation = kernels::Activation::gelu_tanh;
  a.positions = PositionKind::learned;
  a.linears = {{qkv, "attn.c_attn", true, true},
               {out, "attn.c_proj", true, true},
               {up, "mlp.c_fc", true, true},
               {down, "mlp.c_proj", true, true}};
  a.names = {.prefixes = {"transformer.", ""},
             .embedding = "wte",
             .positions = "wpe",
             .layers = "h.",
             .attention_norm = "ln_1",
             .feed_forward_norm = "ln_2",
             .final_norm = "ln_f"};
  family.fields = {.hidden_size = "n_embd",
                   .intermediate_size = "n_inner",
                   .layers = "n_layer",
                   .heads = "n_head",
                   .key_value_heads = "",
                   .head_dim = "",
                   .positions = "n_positions",
                   .epsilon = "layer_norm_epsilon",
                   .activation = "activation_function"};
  family.intermediate_factor = 4;
  family.adjust = adjust_gpt2;
  return family;
}

}  // namespace detail

/// All families, by model_type. Another one is a row more: see docs/families.md.
inline const std::vector<Family>& known_families() {
  static const std::vector<Family> families{detail::opt_family(),     detail::llama_family(),
                                            detail::mistral_family(), detail::qwen2_family(),
                                            detail::qwen3_family(),   detail::gemma2_family(),
                                            detail::gemma3_family(),  detail::phi3_family(),
                                            detail::neox_family(),    detail::bloom_family(),
                                            detail::gpt2_family()};
  return families;
}

/// The row of a family, to make another one of.
/// @param model_type  of config.json
/// @throws argument_error for one that is not known
inline Family family_of(std::string_view model_type) {
  for (const Family& family : known_families())
    if (family.model_type == model_type) return family;
  throw argument_error("model_type: expected a known family, got " + std::string(model_type));
}

}  // namespace pare
