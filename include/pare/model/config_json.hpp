// Reads what a model is made of from its config.json.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/model/config_reader.hpp"
#include "pare/model/families.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// The activation that transformers calls `name`. Throws what `bad` gives for another one.
inline kernels::Activation activation_named(const ConfigReader& config, const std::string& field) {
  static constexpr std::pair<const char*, kernels::Activation> names[] = {
      {"relu", kernels::Activation::relu},
      {"gelu", kernels::Activation::gelu},
      {"gelu_python", kernels::Activation::gelu},
      {"gelu_new", kernels::Activation::gelu_tanh},
      {"gelu_fast", kernels::Activation::gelu_tanh},
      {"gelu_pytorch_tanh", kernels::Activation::gelu_tanh},
      {"gelu_python_tanh", kernels::Activation::gelu_tanh},
      {"gelu_accurate", kernels::Activation::gelu_tanh},
      {"quick_gelu", kernels::Activation::quick_gelu},
      {"silu", kernels::Activation::silu},
      {"swish", kernels::Activation::silu}};
  std::string known;
  for (const auto& [name, activation] : names) {
    if (config.text(field) == name) return activation;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw config.bad(field, "one of " + known);
}

/// What a scaling of rotary positions says, in either way of writing it.
inline void read_scaling(const ConfigReader& config, const Family& family, const Architecture& a,
                         Rotary& rotary) {
  std::string type = config.text("rope_type");
  const char* field = type.empty() ? "type" : "rope_type";
  if (type.empty()) type = config.text("type");
  for (const auto& [older, name] : family.older_scalings)
    if (type == older) type = name;
  static constexpr std::pair<const char*, RotaryScaling> names[] = {
      {"", RotaryScaling::none},
      {"default", RotaryScaling::none},
      {"linear", RotaryScaling::linear},
      {"dynamic", RotaryScaling::dynamic_ntk},
      {"llama3", RotaryScaling::llama3},
      {"yarn", RotaryScaling::yarn},
      {"longrope", RotaryScaling::longrope}};
  const auto* found = std::ranges::find(names, type, [](const auto& n) { return n.first; });
  if (found == std::end(names))
    throw config.bad(field, "one of default, linear, dynamic, llama3, yarn, longrope");
  rotary.scaling = found->second;
  if (rotary.scaling == RotaryScaling::none) return;

  const double positions = double(a.max_position_embeddings);
  const double stretched = positions / double(rotary.original_positions);
  const bool derived =
      rotary.scaling == RotaryScaling::longrope || rotary.scaling == RotaryScaling::yarn;
  if (!config.has("factor") && !derived) throw config.bad("factor", "a positive number");
  rotary.factor = config.number("factor", stretched);
  switch (rotary.scaling) {
    case RotaryScaling::dynamic_ntk:
      rotary.original_positions = a.max_position_embeddings;
      break;
    case RotaryScaling::llama3:
      rotary.low_frequency_factor = config.number("low_freq_factor", 1);
      rotary.high_frequency_factor = config.number("high_freq_factor", 4);
      if (!(rotary.high_frequency_factor > rotary.low_frequency_factor))
        throw config.bad("high_freq_factor", "a number above low_freq_factor");
      break;
    case RotaryScaling::yarn: {
      const auto scale = [&](double by) {
        return rotary.factor > 1 ? 0.1 * by * std::log(rotary.factor) + 1 : 1;
      };
      const bool both = config.has("mscale") && config.has("mscale_all_dim");
      rotary.attention_factor =
          config.number("attention_factor", both ? scale(config.number("mscale", 1)) /
                                                       scale(config.number("mscale_all_dim", 1))
                                                 : scale(1));
      rotary.beta_fast = config.number("beta_fast", 32);
      rotary.beta_slow = config.number("beta_slow", 1);
      rotary.truncate = config.boolean("truncate", true);
      break;
    }
    case RotaryScaling::longrope: {
      rotary.short_factor = config.numbers("short_factor", rotary.pairs());
      rotary.long_factor = config.numbers("long_factor", rotary.pairs());
      const double grown = std::log(rotary.factor) / std::log(double(rotary.original_positions));
      rotary.attention_factor =
          config.number("attention_factor", rotary.factor > 1 ? std::sqrt(1 + grown) : 1);
      break;
    }
    default:
      break;
  }
}

/// Rotary positions of one kind of layers.
/// @param parameters  the object that describes them
inline void read_rotary(const ConfigReader& config, const ConfigReader& parameters,
                        const Family& family, const Architecture& a, Rotary& rotary) {
  rotary.theta = parameters.number("rope_theta", rotary.theta);
  // Before transformers 5, it lay beside the object.
  const std::string& beside = family.fields.rotary_share;
  const bool within = !beside.empty() && parameters.has("partial_rotary_factor");
  double share = family.rotary_share;
  if (within)
    share = parameters.number("partial_rotary_factor", share);
  else if (!beside.empty())
    share = config.number(beside, share);
  rotary.width = index_t(double(a.head_dim) * share);
  if (rotary.width < 2 || 2 * rotary.pairs() > a.head_dim) {
    const std::string columns = "of a head's " + std::to_string(a.head_dim) + " columns";
    if (beside.empty())
      throw config.bad("head_dim", "an even number of columns, which turn in pairs");
    throw(within ? parameters : config)
        .bad(within ? "partial_rotary_factor" : beside,
             "a share that makes whole pairs " + columns + " turn");
  }
  // transformers lets what stands beside the object go first.
  rotary.original_positions =
      config.size("original_max_position_embeddings",
                  parameters.size("original_max_position_embeddings", a.max_position_embeddings));
  read_scaling(parameters, family, a, rotary);
}

/// All rotary positions, whichever way they are written.
inline void read_rotaries(const ConfigReader& config, const Family& family, Architecture& a) {
  static constexpr const char* kinds[] = {"full_attention", "sliding_attention"};
  if (config.has("rope_parameters")) {
    const ConfigReader parameters = config.object("rope_parameters");
    const bool by_kind = parameters.has(kinds[0]) || parameters.has(kinds[1]);
    for (std::size_t i = 0; i < a.rotaries.size(); ++i)
      read_rotary(config, by_kind ? parameters.object(kinds[i]) : parameters, family, a,
                  a.rotaries[i]);
    return;
  }
  // Only layers with full attention are stretched where there are others.
  const nlohmann::json nothing = nlohmann::json::object();
  for (std::size_t i = 0; i < a.rotaries.size(); ++i) {
    Rotary& rotary = a.rotaries[i];
    rotary.theta =
        config.number(i == 0 ? family.fields.rotary_theta : "rope_local_base_freq", rotary.theta);
    const bool scaled = i == 0 && config.has("rope_scaling");
    read_rotary(config,
                scaled ? config.object("rope_scaling") : ConfigReader("rope_scaling", nothing),
                family, a, rotary);
  }
}

/// The numbers that every family has. transformers takes each by the common name, too.
inline void read_sizes(const ConfigReader& config, const FieldNames& fields, Architecture& a) {
  const auto size = [&](const std::string& field, const char* common, index_t otherwise) {
    return config.size(config.has(field) || !config.has(common) ? field : common, otherwise);
  };
  const bool older = !fields.older_hidden_size.empty() && config.has(fields.older_hidden_size);
  a.hidden_size =
      size(older ? fields.older_hidden_size : fields.hidden_size, "hidden_size", a.hidden_size);
  a.num_hidden_layers = size(fields.layers, "num_hidden_layers", a.num_hidden_layers);
  a.num_attention_heads = size(fields.heads, "num_attention_heads", a.num_attention_heads);
  a.vocab_size = config.size("vocab_size", a.vocab_size);
  if (!fields.positions.empty())
    a.max_position_embeddings =
        size(fields.positions, "max_position_embeddings", a.max_position_embeddings);
  if (!fields.epsilon.empty()) a.norm_epsilon = config.number(fields.epsilon, a.norm_epsilon);
  if (!fields.activation.empty() && config.has(fields.activation))
    a.activation = activation_named(config, fields.activation);
  a.tie_word_embeddings = config.boolean("tie_word_embeddings", a.tie_word_embeddings);
  a.bos_token_id = config.token("bos_token_id", a.bos_token_id, a.vocab_size);
}

/// What follows from these where config.json does not say it.
inline void read_derived_sizes(const ConfigReader& config, const Family& family, Architecture& a) {
  const FieldNames& fields = family.fields;
  if (family.intermediate_factor > 0)
    a.intermediate_size = family.intermediate_factor * a.hidden_size;
  if (!fields.intermediate_size.empty())
    a.intermediate_size = config.size(fields.intermediate_size, a.intermediate_size);
  a.embedding_size = a.hidden_size;
  const index_t given_heads = a.num_key_value_heads > 0 && !config.is_null(fields.key_value_heads)
                                  ? a.num_key_value_heads
                                  : a.num_attention_heads;
  a.num_key_value_heads = fields.key_value_heads.empty()
                              ? a.num_attention_heads
                              : config.size(fields.key_value_heads, given_heads);
  if (a.num_attention_heads % a.num_key_value_heads != 0)
    throw config.bad(fields.key_value_heads, "a divisor of the " +
                                                 std::to_string(a.num_attention_heads) +
                                                 " attention heads");
  const bool given = !fields.head_dim.empty() && config.has(fields.head_dim);
  if (!given && a.head_dim == 0) {
    if (a.hidden_size % a.num_attention_heads != 0)
      throw config.bad(fields.heads, "a divisor of hidden_size " + std::to_string(a.hidden_size));
    a.head_dim = a.hidden_size / a.num_attention_heads;
  }
  if (given) a.head_dim = config.size(fields.head_dim, a.head_dim);
  a.layers.assign(std::size_t(a.num_hidden_layers), LayerSpec{});
}

/// "gpt2, llama, ...".
inline std::string known_types(const std::vector<Family>& families) {
  std::vector<std::string> names;
  names.reserve(families.size());
  for (const Family& family : families) names.push_back(family.model_type);
  std::sort(names.begin(), names.end());
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace detail

/// What the content of a config.json says of a model.
/// @param file      what messages call it
/// @param text      JSON
/// @param families  those that are known
/// @throws format_error naming file, field and value for a family that is not known, what is
///         missing, absurd, or would change the mathematics and is not supported. Fields that
///         change nothing are not looked at.
inline Architecture parse_architecture(const std::string& file, std::string_view text,
                                       const std::vector<Family>& families = known_families()) {
  const nlohmann::json fields = detail::parse_json_object(file, text);
  const ConfigReader whole(file, fields);
  whole.refuse_quantized();
  const std::string type = whole.text("model_type");
  const auto family = std::ranges::find_if(families, [&](const Family& f) {
    return !type.empty() && (type == f.model_type || type == f.whole_model_type);
  });
  if (family == families.end())
    throw whole.bad("model_type", "one of " + detail::known_types(families));
  const bool beside = type == family->whole_model_type && whole.has("text_config");
  const ConfigReader config = beside ? whole.object("text_config") : whole;
  config.refuse_quantized();

  Architecture a = family->base;
  a.family = family->model_type;
  detail::read_sizes(config, family->fields, a);
  detail::read_derived_sizes(config, *family, a);
  for (const BiasField& field : family->biases)
    for (LinearSpec& linear : a.linears)
      if (std::ranges::count(field.linears, linear.role) > 0)
        linear.bias = config.boolean(field.name, linear.bias);
  if (a.fused_order == FusedOrder::by_head && a.num_key_value_heads != a.num_attention_heads)
    throw config.bad(family->fields.key_value_heads,
                     "as many as attention heads, with which they are fused");
  if (a.positions == PositionKind::rotary) detail::read_rotaries(config, *family, a);
  if (family->adjust != nullptr) family->adjust(config, a);
  return a;
}

/// The same of `folder`/config.json. Throws io_error, too; format_error saying what to give when
/// `folder` is something else that models are kept in.
inline Architecture load_architecture(const std::filesystem::path& folder,
                                      const std::vector<Family>& families = known_families()) {
  const std::filesystem::path file = folder / "config.json";
  detail::require_model_folder(folder);
  return parse_architecture(file.string(), detail::read_model_text(file), families);
}

}  // namespace pare
