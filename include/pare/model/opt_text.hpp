// Texts as an OPT model reads them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/model/opt_config.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace pare::inline PARE_TARGET {

/// The tokenizer of a model folder, held against the model's vocabulary. Added tokens may lie
/// beyond it: transformers gives every tokenizer of this kind an `<|endoftext|>`.
/// Throws as Tokenizer::load; format_error naming the file and the id when the vocabulary of the
/// tokenizer is not the model's.
inline Tokenizer load_opt_tokenizer(const std::filesystem::path& folder, const OptConfig& config) {
  Tokenizer tokenizer = Tokenizer::load(folder);
  if (tokenizer.max_id() < config.vocab_size) return tokenizer;
  std::error_code ignored;
  const std::filesystem::path json = folder / "tokenizer.json";
  throw format_error(
      (std::filesystem::exists(json, ignored) ? json : folder / "vocab.json").string() + ": id " +
      std::to_string(tokenizer.max_id()) + " is outside the model's vocabulary of " +
      std::to_string(config.vocab_size));
}

/// The ids of a text as the model reads it: in front what the tokenizer puts there, or else the
/// model's bos_token_id, and behind it what the tokenizer puts there. Throws as Tokenizer::encode;
/// format_error when the text holds an added token that the model's vocabulary lacks.
inline std::vector<std::int32_t> opt_token_ids(const Tokenizer& tokenizer, const OptConfig& config,
                                               std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.before();
  if (ids.empty() && config.bos_token_id >= 0) ids.push_back(config.bos_token_id);
  const std::vector<std::int32_t> encoded = tokenizer.encode(text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  ids.insert(ids.end(), tokenizer.after().begin(), tokenizer.after().end());
  for (const std::int32_t id : ids)
    if (id >= config.vocab_size)
      throw format_error(
          "token " + detail::quoted_name(tokenizer.decode(std::vector<std::int32_t>{id})) +
          " has id " + std::to_string(id) + ", which is outside the model's vocabulary of " +
          std::to_string(config.vocab_size));
  return ids;
}

/// What of the tokenizer's rules the model's configuration contradicts, and which goes first: one
/// sentence each.
inline std::vector<std::string> opt_notes(const Tokenizer& tokenizer, const OptConfig& config) {
  const std::vector<std::int32_t>& before = tokenizer.before();
  if (before.empty() || config.bos_token_id < 0 ||
      before == std::vector<std::int32_t>{config.bos_token_id})
    return {};
  std::string ids;
  for (const std::int32_t id : before) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
  return {"tokenizer.json puts id " + ids +
          " in front of a text, the bos_token_id of config.json is " +
          std::to_string(config.bos_token_id) + "; the former is used"};
}

}  // namespace pare
