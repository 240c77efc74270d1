// Reads the configuration of an OPT model from its config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/opt_config.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Fields of a JSON object, read with errors that name file, field and value.
class ConfigReader {
 public:
  ConfigReader(std::string file, const nlohmann::json& fields)
      : file_(std::move(file)), fields_(fields) {}

  format_error bad(const char* field, const std::string& expected) const {
    const auto found = fields_.find(field);
    std::string given = "nothing";
    if (found != fields_.end()) {
      given = found->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
      if (given.size() > 60) given = given.substr(0, 60) + "...";
    }
    return format_error(file_ + ": " + field + ": expected " + expected + ", got " + given);
  }

  /// Whether there is such a field and it says something: null is as good as nothing.
  bool has(const char* field) const {
    const auto found = fields_.find(field);
    return found != fields_.end() && !found->is_null();
  }
  bool is_null(const char* field) const {
    const auto found = fields_.find(field);
    return found != fields_.end() && found->is_null();
  }

  /// Throws where the configuration is that of weights that are not plain numbers any more.
  void refuse_quantized() const {
    for (const char* field : {"quantization_config", "compression_config"}) {
      if (!has(field)) continue;
      const nlohmann::json& quantization = *fields_.find(field);
      const auto method =
          quantization.is_object() ? quantization.find("quant_method") : quantization.end();
      const bool named =
          quantization.is_object() && method != quantization.end() && method->is_string();
      throw already_quantized(file_ + ": " + field, named
                                                        ? method->get<std::string>()
                                                        : "a program that does not give its name");
    }
  }

  index_t positive(const char* field) const {
    // Far above every real model, far below where a product of two sides could overflow.
    constexpr std::uint64_t limit = std::uint64_t{1} << 24;
    const auto found = fields_.find(field);
    if (found == fields_.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() == 0)
      throw bad(field, "a positive integer");
    if (found->get<std::uint64_t>() > limit)
      throw bad(field, "an integer of at most " + std::to_string(limit));
    return found->get<index_t>();
  }

  bool boolean(const char* field, bool otherwise) const {
    if (!has(field)) return otherwise;
    const nlohmann::json& found = *fields_.find(field);
    if (!found.is_boolean()) throw bad(field, "true or false");
    return found.get<bool>();
  }

  void require_text(const char* field, const std::string& expected) const {
    const auto found = fields_.find(field);
    if (found == fields_.end() || !found->is_string() || found->get<std::string>() != expected)
      throw bad(field, '"' + expected + '"');
  }

  std::int32_t token(const char* field, std::int32_t otherwise, index_t vocab_size) const {
    const auto found = fields_.find(field);
    const std::string expected =
        "a token id from 0 to " + std::to_string(vocab_size - 1) + " (vocab_size - 1)";
    if (found == fields_.end()) {
      if (otherwise >= vocab_size) throw bad(field, expected);
      return otherwise;
    }
    if (!found->is_number_unsigned() || found->get<std::uint64_t>() >= std::uint64_t(vocab_size))
      throw bad(field, expected);
    return found->get<std::int32_t>();
  }

 private:
  std::string file_;
  const nlohmann::json& fields_;
};

}  // namespace detail

/// The configuration in `text`, the content of a config.json called `file` in messages. Throws
/// format_error naming file, field and value for what is missing, absurd or not supported.
inline OptConfig parse_opt_config(const std::string& file, std::string_view text) {
  const nlohmann::json fields = detail::parse_json_object(file, text);
  const detail::ConfigReader reader(file, fields);
  reader.refuse_quantized();
  reader.require_text("model_type", "opt");
  if (reader.has("activation_function")) reader.require_text("activation_function", "relu");

  OptConfig config;
  config.hidden_size = reader.positive("hidden_size");
  config.ffn_dim = reader.positive("ffn_dim");
  config.num_hidden_layers = reader.positive("num_hidden_layers");
  config.num_attention_heads = reader.positive("num_attention_heads");
  if (config.hidden_size % config.num_attention_heads != 0)
    throw reader.bad("num_attention_heads",
                     "a divisor of hidden_size " + std::to_string(config.hidden_size));
  config.vocab_size = reader.positive("vocab_size");
  config.max_position_embeddings = reader.positive("max_position_embeddings");
  config.word_embed_proj_dim = reader.has("word_embed_proj_dim")
                                   ? reader.positive("word_embed_proj_dim")
                                   : config.hidden_size;
  config.do_layer_norm_before = reader.boolean("do_layer_norm_before", true);
  config.remove_final_layer_norm = reader.boolean("_remove_final_layer_norm", false);
  config.enable_bias = reader.boolean("enable_bias", true);
  config.layer_norm_elementwise_affine = reader.boolean("layer_norm_elementwise_affine", true);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings", true);
  config.bos_token_id =
      reader.is_null("bos_token_id") ? -1 : reader.token("bos_token_id", 2, config.vocab_size);
  return config;
}

/// The configuration in `folder`/config.json. Throws io_error or as parse_opt_config; format_error
/// saying what to give when `folder` is something else that models are kept in.
inline OptConfig load_opt_config(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  detail::require_model_folder(folder);
  return parse_opt_config(file.string(), detail::read_model_text(file));
}

}  // namespace pare
