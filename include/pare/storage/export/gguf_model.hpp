// Families of models that llama.cpp runs: their names in GGUF, and what of a model is refused.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/rotary.hpp"
#include "pare/storage/export/gguf_file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

/// A family as llama.cpp has it.
struct Family {
  const char* model_type;    // of config.json
  const char* architecture;  // of GGUF
  bool interleaved =
      false;  // the pairs of columns that turn lie side by side, not half a head apart
  bool frequencies = false;             // reads rope_freqs
  bool windows = false;                 // layers may see a window
  bool any_head_dim = false;            // heads may be wider or narrower than hidden_size / heads
  bool all_biases = false;              // every linear has one
  bool owns_head = false;               // the head is a tensor of its own even where it is tied
  std::vector<LinearRole> biases = {};  // linears that may have one
};

inline const std::vector<Family>& families() {
  using enum LinearRole;
  static const std::vector<LinearRole> qkv_alone{q, k, v};
  static const std::vector<Family> known{
      {.model_type = "llama",
       .architecture = "llama",
       .interleaved = true,
       .frequencies = true,
       .any_head_dim = true,
       .biases = {q, k, v, out, gate, up, down}},
      {.model_type = "mistral",
       .architecture = "llama",
       .interleaved = true,
       .frequencies = true,
       .any_head_dim = true},
      {.model_type = "qwen2", .architecture = "qwen2", .biases = qkv_alone},
      {.model_type = "qwen3", .architecture = "qwen3", .any_head_dim = true, .biases = qkv_alone},
      {.model_type = "gemma2", .architecture = "gemma2", .windows = true, .any_head_dim = true},
      {.model_type = "gemma3_text",
       .architecture = "gemma3",
       .windows = true,
       .any_head_dim = true},
      {.model_type = "phi3", .architecture = "phi3"},
      {.model_type = "gpt2", .architecture = "gpt2", .all_biases = true},
      {.model_type = "gpt_neox", .architecture = "gptneox", .all_biases = true, .owns_head = true},
      {.model_type = "bloom", .architecture = "bloom", .all_biases = true}};
  return known;
}

inline const Family* find_family(const Architecture& a) {
  for (const Family& family : families())
    if (a.family == family.model_type) return &family;
  return nullptr;
}

/// Whether a model has sliding windows that are shorter than its texts may be.
inline bool has_windows(const Architecture& a) {
  return std::any_of(a.layers.begin(), a.layers.end(), [&](const LayerSpec& layer) {
    return layer.window > 0 &&
           (a.max_position_embeddings == 0 || layer.window < a.max_position_embeddings);
  });
}

/// What of a model llama.cpp has not; none when it has all.
inline std::optional<std::string> missing_part(const Architecture& a, const Family& family) {
  using kernels::Activation;
  const bool gelu =
      a.activation == Activation::gelu_tanh || (!a.gated && a.activation == Activation::gelu);
  const bool gemma = a.norm_place == NormPlace::around;
  if (a.gated && !gemma ? a.activation != Activation::silu : !gelu)
    return "another activation than that of the family";
  for (const LinearSpec& linear : a.linears) {
    const bool may = family.all_biases ||
                     std::count(family.biases.begin(), family.biases.end(), linear.role) > 0;
    if (linear.bias && !may) return "a bias on " + linear.name;
    if (!linear.bias && family.all_biases) return "no bias on " + linear.name;
  }
  if (!family.any_head_dim && a.query_size() != a.hidden_size)
    return "heads that are not hidden_size / heads wide";
  if (has_windows(a) && !family.windows)
    return "sliding windows, which llama.cpp leaves out of this family";
  if (a.scale_by_layer) return "scores scaled by layer";
  if (a.attention_scale != 0) {
    // llama.cpp takes the largest Gemma of a generation by its number of layers.
    const bool largest = (a.family == "gemma2" && a.num_hidden_layers == 46) ||
                         (a.family == "gemma3_text" && a.num_hidden_layers == 62);
    const index_t width = largest ? a.hidden_size / a.num_attention_heads : a.head_dim;
    if (std::abs(a.attention_scale * std::sqrt(double(width)) - 1) > 1e-6)
      return "another scale of its scores";
  }
  if (a.family == "gemma2" && !(a.attention_soft_cap > 0)) return "no soft cap on scores";
  if (gemma && !a.tie_word_embeddings && a.family == "gemma2") return "a head of its own";
  if (a.residual_after_norm) return "residuals that are taken after a norm";
  if (!a.norm_affine || a.norm_place == NormPlace::after || a.projects_embeddings())
    return "norms or embeddings of another kind";
  if (a.positions != PositionKind::rotary) return std::nullopt;
  for (const Rotary& rotary : a.rotaries) {
    const RotaryScaling scaling = rotary.scaling;
    const bool by_frequencies = scaling == RotaryScaling::llama3 || scaling == RotaryScaling::yarn;
    if (rotary.width % 2 != 0) return "an odd number of columns that turn";
    if (scaling != RotaryScaling::none && scaling != RotaryScaling::linear &&
        !(by_frequencies && family.frequencies))
      return "rotary positions that are stretched in a way that is not written";
  }
  return std::nullopt;
}

/// What a linear is called within a layer.
inline const char* linear_name(LinearRole role) {
  switch (role) {
    case LinearRole::q:
      return "attn_q";
    case LinearRole::k:
      return "attn_k";
    case LinearRole::v:
      return "attn_v";
    case LinearRole::qkv:
      return "attn_qkv";
    case LinearRole::out:
      return "attn_output";
    case LinearRole::gate:
      return "ffn_gate";
    case LinearRole::down:
      return "ffn_down";
    default:  // llama.cpp calls a fused gate and up so, too
      return "ffn_up";
  }
}

/// The row of a linear that each stored row is, (out): q and k of LLaMA interleave the halves of a
/// head, a q, k and v that are fused by head follow one another.
inline std::vector<index_t> row_order(const Architecture& a, const Family& family,
                                      LinearRole role) {
  std::vector<index_t> order(std::size_t(rows_of(a, role)));
  std::iota(order.begin(), order.end(), index_t{0});
  const index_t width = a.head_dim;
  if (family.interleaved && (role == LinearRole::q || role == LinearRole::k)) {
    for (index_t r = 0; r < index_t(order.size()); ++r) {
      const index_t head = r / width, within = r % width;
      order[std::size_t(r)] = head * width + within % 2 * (width / 2) + within / 2;
    }
  }
  if (role == LinearRole::qkv && a.fused_order == FusedOrder::by_head) {
    for (index_t r = 0; r < index_t(order.size()); ++r) {
      const index_t part = r / a.query_size(), in_part = r % a.query_size();
      order[std::size_t(r)] = (in_part / width * 3 + part) * width + in_part % width;
    }
  }
  return order;
}

/// Factors that the base frequencies are divided by, (pairs), where a stretching needs them.
inline std::vector<float> frequency_factors(const Rotary& rotary) {
  Rotary plain = rotary;
  plain.scaling = RotaryScaling::none;
  const std::vector<double> base = rotary_frequencies(plain, 0);
  const std::vector<double> stretched = rotary_frequencies(rotary, 0);
  std::vector<float> factors;
  factors.reserve(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) factors.push_back(float(base[i] / stretched[i]));
  return factors;
}

/// Writes what llama.cpp knows of a model's shape.
/// @param positions  tokens that a text may have where the model does not say
inline void set_architecture(Fields& fields, const Architecture& a, const Family& family,
                             index_t positions) {
  const std::string prefix = std::string(family.architecture) + ".";
  const auto size = [&](const char* key, index_t value) {
    fields.set(prefix + key, std::uint32_t(value));
  };
  fields.set("general.architecture", family.architecture);
  fields.set("general.type", "model");
  fields.set("general.quantization_version", std::uint32_t{2});
  fields.set("general.alignment", std::uint32_t(alignment));
  const index_t context = a.max_position_embeddings > 0 ? a.max_position_embeddings : positions;
  size("context_length", context);
  size("embedding_length", a.hidden_size);
  size("block_count", a.num_hidden_layers);
  size("feed_forward_length", a.intermediate_size);
  size("vocab_size", a.vocab_size);
  size("attention.head_count", a.num_attention_heads);
  size("attention.head_count_kv", a.num_key_value_heads);
  size("attention.key_length", a.head_dim);
  size("attention.value_length", a.head_dim);
  fields.set(prefix + (a.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon"
                                               : "attention.layer_norm_epsilon"),
             float(a.norm_epsilon));
  if (a.family == "gpt_neox") fields.set(prefix + "use_parallel_residual", a.parallel_residual);
  if (a.positions == PositionKind::rotary) {
    const Rotary& rotary = a.rotaries.front();
    size("rope.dimension_count", rotary.width);
    fields.set(prefix + "rope.freq_base", float(rotary.theta));
    if (a.rotaries.size() > 1)
      fields.set(prefix + "rope.freq_base_swa", float(a.rotaries[1].theta));
    if (rotary.scaling == RotaryScaling::linear) {
      fields.set(prefix + "rope.scaling.type", "linear");
      fields.set(prefix + "rope.scaling.factor", float(rotary.factor));
    } else if (rotary.scaling == RotaryScaling::yarn) {
      fields.set(prefix + "rope.scaling.attn_factor", float(rotary.attention_factor));
    }
  }
  if (family.windows) {
    index_t window = 0;
    std::vector<std::uint8_t> slides;
    for (const LayerSpec& layer : a.layers) {
      window = std::max(window, layer.window);
      slides.push_back(layer.window > 0);
    }
    size("attention.sliding_window", window > 0 ? window : context);
    fields.set(prefix + "attention.sliding_window_pattern", slides);
  }
  if (a.attention_soft_cap > 0)
    fields.set(prefix + "attn_logit_softcapping", float(a.attention_soft_cap));
  if (a.norm_place == NormPlace::around)
    fields.set(prefix + "final_logit_softcapping", float(a.logit_soft_cap));
}

}  // namespace detail::gguf
}  // namespace pare
