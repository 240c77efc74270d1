// What a decoder-only language model is made of, as plain data.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/kernels/activations.hpp"

namespace pare::inline PARE_TARGET {

/// How a norm normalises a row.
enum class NormKind : std::uint8_t {
  layer,  ///< mean 0 and variance 1
  rms,    ///< mean of squares 1
};

/// Where the two norms of a layer stand.
enum class NormPlace : std::uint8_t {
  before,  ///< before attention and feed-forward
  after,   ///< after their sums with the residual stream (OPT-350m)
  around,  ///< before them, and after them before the sums (Gemma 2 and 3)
};

/// How positions enter.
enum class PositionKind : std::uint8_t {
  learned,  ///< a table that is added to the embeddings
  rotary,   ///< queries and keys turn
  alibi,    ///< scores fall with the distance
};

/// How rotary frequencies are stretched for windows longer than those trained on.
enum class RotaryScaling : std::uint8_t { none, linear, dynamic_ntk, llama3, yarn, longrope };

/// Rotary positions. Names are those of config.json; docs/families.md has the formulas.
struct Rotary {
  double theta = 10000;                         ///< base of the frequencies
  index_t width = 0;                            ///< columns of a head that turn; the others stay
  RotaryScaling scaling = RotaryScaling::none;  ///< how frequencies are stretched
  double factor = 1;                            ///< by which windows are longer
  index_t original_positions = 0;               ///< positions trained on
  double low_frequency_factor = 1, high_frequency_factor = 4;  ///< of llama3
  double beta_fast = 32, beta_slow = 1;                        ///< of yarn
  bool truncate = true;                                        ///< of yarn: whole dimensions
  std::vector<double> short_factor = {}, long_factor = {};     ///< of longrope, (pairs)
  double attention_factor = 1;                                 ///< on cosines and sines
  /// Pairs of columns that turn: half of the width. An odd width (GPT-NeoX, a share of a small head)
  /// takes one column more.
  index_t pairs() const { return (width + 1) / 2; }
  /// Memberwise.
  bool operator==(const Rotary&) const = default;
};

/// What a linear of a layer does.
enum class LinearRole : std::uint8_t { q, k, v, qkv, out, gate, up, gate_up, down };

/// How the rows of a fused q, k and v follow one another.
enum class FusedOrder : std::uint8_t {
  in_one,   ///< all of q, all of k, all of v
  by_head,  ///< q, k and v of each head
};

/// One linear of a layer.
struct LinearSpec {
  /// What it does.
  LinearRole role;
  std::string name;         ///< within the layer: "self_attn.q_proj"
  bool bias = false;        ///< it has one
  bool transposed = false;  ///< checkpoints hold its weight as (in, out)
  /// Memberwise.
  bool operator==(const LinearSpec&) const = default;
};

/// Names of the tensors of a model. Those within a layer follow `layers` + "3."; every name follows
/// one of `prefixes`.
struct TensorNames {
  std::vector<std::string> prefixes = {"model.", ""};  ///< the same tensors are under one of these
  std::string embedding = "embed_tokens";              ///< of the table of tokens
  std::string positions = {};                          ///< of the learned table
  std::string embedding_norm = {};                     ///< empty: none
  std::string layers = "layers.";                      ///< in front of the index of a layer
  std::string attention_norm = "input_layernorm";      ///< of the attention
  std::string feed_forward_norm = "post_attention_layernorm";  ///< of the feed-forward part
  /// Where norms stand around.
  std::string after_attention_norm = {}, after_feed_forward_norm = {};
  std::string query_norm = {}, key_norm = {};     ///< empty: none
  std::string final_norm = "norm";                ///< empty: none
  std::string project_in = {}, project_out = {};  ///< of the embeddings
  std::string head = "lm_head";                   ///< without a prefix
  /// Memberwise.
  bool operator==(const TensorNames&) const = default;
};

/// What differs from layer to layer.
struct LayerSpec {
  index_t window = 0;  ///< positions that a query sees, itself included; 0: all before it
  index_t rotary = 0;  ///< which of Architecture::rotaries
  /// Memberwise.
  bool operator==(const LayerSpec&) const = default;
};

/// The shape and the mathematics of a model. One forward pass runs all of them.
struct Architecture {
  std::string family;                   ///< model_type of config.json
  index_t hidden_size = 0;              ///< width of the residual stream
  index_t intermediate_size = 0;        ///< inner width of the feed-forward part
  index_t num_hidden_layers = 0;        ///< decoder layers
  index_t num_attention_heads = 0;      ///< query heads of a layer
  index_t num_key_value_heads = 0;      ///< key-value heads; divides num_attention_heads
  index_t head_dim = 0;                 ///< width of one head
  index_t vocab_size = 0;               ///< rows of the embedding table
  index_t max_position_embeddings = 0;  ///< longest window trained on, tokens; 0: not limited
  index_t embedding_size =
      0;  ///< width of the embedding table; hidden_size, or else project_in and
          ///< project_out exist

  NormKind norm = NormKind::layer;           ///< how rows are normalised
  NormPlace norm_place = NormPlace::before;  ///< where the norms of a layer stand
  double norm_epsilon = 1e-5;                ///< added under the root
  double norm_offset = 0;                    ///< a norm multiplies by this plus its weight
  bool norm_affine = true;                   ///< norms have weights, and layer norms biases
  bool parallel_residual = false;    ///< attention and feed-forward read the same residual stream
  bool residual_after_norm = false;  ///< what a norm gives is added, not what it reads

  PositionKind positions = PositionKind::rotary;  ///< how positions enter
  index_t position_offset = 0;    ///< rows of the learned table before that of the first position
  std::vector<Rotary> rotaries;   ///< one for every kind of layer
  std::vector<LayerSpec> layers;  ///< (num_hidden_layers)

  kernels::Activation activation = kernels::Activation::silu;  ///< of the feed-forward part
  bool gated = true;  ///< feed-forward is down(act(gate(x)) up(x)), else down(act(up(x)))
  FusedOrder fused_order = FusedOrder::in_one;  ///< of a qkv
  double attention_scale = 0;                   ///< on scores; 0: 1 / sqrt(head_dim)
  bool scale_by_layer = false;                  ///< scores of layer i are divided by i + 1, too
  double attention_soft_cap = 0;                ///< 0: none
  double logit_soft_cap = 0;                    ///< 0: none
  double embedding_scale = 1;                   ///< embeddings are multiplied by it
  bool tie_word_embeddings = true;              ///< logits are made by the embedding table

  std::int32_t bos_token_id = -1;  ///< -1: none
  bool begins_with_bos = false;    ///< a text has it in front unless its tokenizer says otherwise
  bool every_window_has_bos = false;  ///< each window begins with it, not only the text

  std::vector<LinearSpec> linears;  ///< of a layer, in the order of compression
  TensorNames names;                ///< of its tensors in a checkpoint

  /// Whether project_in and project_out exist.
  bool projects_embeddings() const { return embedding_size != hidden_size; }
  /// Columns of the queries of a token.
  index_t query_size() const { return num_attention_heads * head_dim; }
  /// Columns of its keys, and of its values.
  index_t key_value_size() const { return num_key_value_heads * head_dim; }
  /// Whether windows may be longer than max_position_embeddings.
  bool extrapolates() const {
    if (positions != PositionKind::rotary) return positions == PositionKind::alibi;
    for (const Rotary& rotary : rotaries)
      if (rotary.scaling == RotaryScaling::dynamic_ntk) return true;
    return false;
  }
  /// Memberwise.
  bool operator==(const Architecture&) const = default;
};

/// Tokens of a window unless something else is asked for: 2048, or all that the model has positions
/// for.
inline index_t default_seqlen(const Architecture& architecture) {
  const index_t positions = architecture.max_position_embeddings;
  return positions > 0 && positions < 2048 ? positions : 2048;
}

/// Inputs of a layer's linears, in the order in which a forward pass makes them.
inline constexpr index_t attention_input = 0, out_input = 1, feed_forward_input = 2, down_input = 3;

/// Which input a linear reads. Those that read the same one share a calibration.
constexpr index_t input_of(LinearRole role) {
  switch (role) {
    case LinearRole::out:
      return out_input;
    case LinearRole::gate:
    case LinearRole::up:
    case LinearRole::gate_up:
      return feed_forward_input;
    case LinearRole::down:
      return down_input;
    default:
      return attention_input;
  }
}

/// Outputs of a linear.
constexpr index_t rows_of(const Architecture& a, LinearRole role) {
  switch (role) {
    case LinearRole::q:
      return a.query_size();
    case LinearRole::k:
    case LinearRole::v:
      return a.key_value_size();
    case LinearRole::qkv:
      return a.query_size() + 2 * a.key_value_size();
    case LinearRole::gate:
    case LinearRole::up:
      return a.intermediate_size;
    case LinearRole::gate_up:
      return 2 * a.intermediate_size;
    default:
      return a.hidden_size;
  }
}

/// What a row of a fused linear belongs to: q, k or v of a qkv, gate or up of a gate_up; of every other
/// linear the role itself. A plan that is written by hand gives the parts widths of their own with it.
/// @param a     of the model
/// @param role  of the linear
/// @param row   [0, rows_of(a, role))
constexpr LinearRole part_of_row(const Architecture& a, LinearRole role, index_t row) {
  if (role == LinearRole::gate_up)
    return row < a.intermediate_size ? LinearRole::gate : LinearRole::up;
  if (role != LinearRole::qkv) return role;
  constexpr LinearRole parts[] = {LinearRole::q, LinearRole::k, LinearRole::v};
  if (a.fused_order == FusedOrder::by_head) return parts[row / a.head_dim % 3];
  const index_t after_q = row - a.query_size();
  return parts[after_q < 0 ? 0 : after_q < a.key_value_size() ? 1 : 2];
}

/// Inputs of a linear.
constexpr index_t columns_of(const Architecture& a, LinearRole role) {
  switch (role) {
    case LinearRole::out:
      return a.query_size();
    case LinearRole::down:
      return a.intermediate_size;
    default:
      return a.hidden_size;
  }
}

/// Names of the linears of layer `index`, in the order of compression: "layers.0.self_attn.q_proj".
inline std::vector<std::string> linear_names(const Architecture& architecture, index_t index) {
  std::vector<std::string> names;
  for (const LinearSpec& linear : architecture.linears)
    names.push_back(architecture.names.layers + std::to_string(index) + "." + linear.name);
  return names;
}

/// Linears of layer `index` by what programs that serve the model load as one: q, k and v, and gate
/// and up; every other linear stands alone. Names as those of linear_names, in their order.
inline std::vector<std::vector<std::string>> fused_linears(const Architecture& architecture,
                                                           index_t index) {
  const auto part = [](LinearRole role) {
    using enum LinearRole;
    return role == k || role == v ? q : role == up ? gate : role;
  };
  const std::vector<std::string> names = linear_names(architecture, index);
  std::vector<std::vector<std::string>> sets;
  std::vector<LinearRole> parts;
  for (std::size_t l = 0; l < names.size(); ++l) {
    const LinearRole at = part(architecture.linears[l].role);
    const auto found = std::find(parts.begin(), parts.end(), at);
    if (found == parts.end()) {
      parts.push_back(at);
      sets.push_back({names[l]});
    } else {
      sets[std::size_t(found - parts.begin())].push_back(names[l]);
    }
  }
  return sets;
}

}  // namespace pare
