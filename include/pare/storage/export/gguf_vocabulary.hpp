// The tokenizer of a model as llama.cpp's GGUF files say it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/storage/export/gguf_file.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"
#include "pare/tokenizer/description.hpp"
#include "pare/tokenizer/tokenizer_files.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

/// Ways to cut a text that llama.cpp knows by a name: patterns, one after the other.
struct PreTokenizerName {
  std::vector<std::string> patterns;
  bool ignore_merges;
  const char* name;
};

inline const std::vector<PreTokenizerName>& pre_tokenizer_names() {
  static const std::string gpt2 = byte_level_pattern().text;
  static const std::string contractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
  static const std::string ends = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string words = contractions + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  static const std::vector<PreTokenizerName> names{
      {{gpt2}, false, "gpt-2"},
      {{R"(\p{N})", gpt2}, false, "smollm"},
      {{words + R"(\p{N}{1,3})" + ends}, true, "llama-bpe"},
      {{words + R"(\p{N}{1,3})" + ends}, false, "smaug-bpe"},
      {{words + R"(\p{N})" + ends}, false, "qwen2"},
      {{R"( ?[^(\s|[.,!?…。，、।۔،])]+)"}, false, "bloom"}};
  return names;
}

/// The name of a byte-level tokenizer's pre-tokenizer, none for one that llama.cpp has no name for.
inline std::optional<std::string> pre_tokenizer_name(const TokenizerDescription& description) {
  std::vector<std::string> patterns;
  bool spells = false;
  for (const PreTokenizerStep& step : description.pre_tokenizer) {
    if (spells) return std::nullopt;
    if (std::holds_alternative<SpellBytesStep>(step)) {
      spells = true;
      continue;
    }
    const auto* split = std::get_if<SplitStep>(&step);
    if (split == nullptr || !split->pattern.regex || split->invert ||
        split->behavior != SplitBehavior::Isolated)
      return std::nullopt;
    patterns.push_back(split->pattern.text);
  }
  if (!spells) return std::nullopt;
  for (const PreTokenizerName& known : pre_tokenizer_names())
    if (known.patterns == patterns && known.ignore_merges == description.bpe.ignore_merges)
      return known.name;
  return std::nullopt;
}

/// Why llama.cpp cannot have a tokenizer; none when it can.
inline std::optional<std::string> tokenizer_refusal(const TokenizerDescription& description) {
  if (description.encode_part || description.bpe.byte_fallback)
    return "its tokenizer falls back to bytes, as sentencepiece's do; only byte-level tokenizers "
           "are written. Write --format compressed-tensors";
  for (const NormalizerStep& step : description.normalizer) {
    const auto* form = std::get_if<UnicodeForm>(&step);
    if (form == nullptr || *form != UnicodeForm::NFC)
      return "its tokenizer has a normalizer, which llama.cpp has not; write --format "
             "compressed-tensors";
  }
  if (!pre_tokenizer_name(description))
    return "llama.cpp has no name for its pre-tokenizer; write --format compressed-tensors";
  if (!description.frame.after.empty() || description.frame.before.size() > 1)
    return "its tokenizer puts more than an id in front of a text; write --format "
           "compressed-tensors";
  return std::nullopt;
}

/// The id that a field of config.json names, the first of several; none where it names none.
inline std::optional<std::uint32_t> token_of_config(const nlohmann::ordered_json& config,
                                                    const char* field) {
  auto found = config.find(field);
  if (found == config.end()) return std::nullopt;
  const nlohmann::ordered_json& value =
      found->is_array() && !found->empty() ? found->front() : *found;
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<std::uint32_t>();
}

/// Writes the fields of a tokenizer.
/// @param folder  tokenizer_config.json may lie there, for its chat template
/// @param rows    of the table of embeddings: ids without a token get one
inline void set_tokenizer(Fields& fields, const TokenizerDescription& description,
                          const nlohmann::ordered_json& config, const std::filesystem::path& folder,
                          index_t rows) {
  enum Type : std::int32_t { normal = 1, control = 3, user_defined = 4, unused = 5 };
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types(std::size_t(rows), unused);
  tokens.reserve(std::size_t(rows));
  for (index_t i = 0; i < rows; ++i) tokens.push_back("[PAD" + std::to_string(i) + "]");
  const auto set = [&](std::int32_t id, const std::string& text, Type type) {
    if (id < 0 || id >= rows)
      throw format_error(description.bpe.file + ": token " + text + ": expected an id below " +
                         std::to_string(rows) + ", the rows of the embeddings, got " +
                         std::to_string(id));
    tokens[std::size_t(id)] = text;
    types[std::size_t(id)] = type;
  };
  for (const auto& [token, id] : description.bpe.vocabulary) set(id, token, normal);
  for (const AddedToken& token : description.added)
    set(token.id, token.content, token.special ? control : user_defined);
  std::vector<std::string> merges;
  merges.reserve(description.bpe.merges.size());
  for (const TokenMerge& merge : description.bpe.merges)
    merges.push_back(merge.left + " " + merge.right);

  fields.set("tokenizer.ggml.model", "gpt2");
  fields.set("tokenizer.ggml.pre", *pre_tokenizer_name(description));
  fields.set("tokenizer.ggml.tokens", tokens);
  fields.set("tokenizer.ggml.token_type", types);
  fields.set("tokenizer.ggml.merges", merges);
  const bool before = !description.frame.before.empty();
  std::optional<std::uint32_t> bos = token_of_config(config, "bos_token_id");
  if (description.bos) bos = std::uint32_t(*description.bos);
  if (before) bos = std::uint32_t(description.frame.before.front());
  if (bos) fields.set("tokenizer.ggml.bos_token_id", *bos);
  for (const auto& [field, key] : {std::pair{"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                   std::pair{"pad_token_id", "tokenizer.ggml.padding_token_id"}})
    if (const auto id = token_of_config(config, field)) fields.set(key, *id);
  fields.set("tokenizer.ggml.add_bos_token",
             bos && (before ||
                     (!description.frame.given && description.add_bos_token.value_or(false))));
  fields.set("tokenizer.ggml.add_eos_token", false);
  const std::filesystem::path path = folder / "tokenizer_config.json";
  if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
    const nlohmann::json whole = parse_json_object(path.string(), read_whole_file(path));
    const auto chat = whole.find("chat_template");
    if (chat != whole.end() && chat->is_string())
      fields.set("tokenizer.chat_template", chat->get<std::string>());
  }
}

}  // namespace detail::gguf
}  // namespace pare
