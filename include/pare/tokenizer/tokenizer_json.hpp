// Reads a tokenizer.json of Hugging Face that holds a byte-pair encoding.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"
#include "pare/tokenizer/description.hpp"
#include "pare/tokenizer/json_fields.hpp"
#include "pare/tokenizer/steps_json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// A table token -> id.
inline std::map<std::string, std::int32_t, std::less<>> read_vocabulary(
    const nlohmann::json& tokens, const std::string& file) {
  std::map<std::string, std::int32_t, std::less<>> vocabulary;
  for (const auto& [token, id] : tokens.items())
    vocabulary.emplace(token, token_id(id, file + ": the id of token " + quoted_name(token)));
  return vocabulary;
}

/// The pair in "left right"; nothing if these are not two tokens separated by one space.
inline std::optional<TokenMerge> split_merge(std::string_view pair) {
  const std::size_t space = pair.find(' ');
  if (space == pair.npos || space == 0 || space + 1 == pair.size() ||
      pair.find(' ', space + 1) != pair.npos)
    return std::nullopt;
  return TokenMerge{std::string(pair.substr(0, space)), std::string(pair.substr(space + 1))};
}

/// Added tokens, each text and each id once.
class AddedTokenTable {
 public:
  /// Adds a token, or what more is known of one with the same text and id. Throws format_error that
  /// begins with `who` when one of the two belongs to another.
  void add(AddedToken token, const std::string& who) {
    const std::string name = quoted_name(token.content);
    if (token.content.empty()) throw format_error(who + ": an added token is empty");
    const auto [id, first] = ids_.emplace(token.content, token.id);
    if (id->second != token.id)
      throw format_error(who + ": token " + name + " has id " + std::to_string(token.id) +
                         " and id " + std::to_string(id->second));
    if (!first) return;
    if (!contents_.emplace(token.id, token.content).second)
      throw format_error(who + ": id " + std::to_string(token.id) + " belongs to token " + name +
                         " and to token " + quoted_name(contents_[token.id]));
    tokens_.push_back(std::move(token));
  }

  bool contains(const std::string& content) const { return ids_.contains(content); }
  /// In the order in which they were added.
  const std::vector<AddedToken>& tokens() const { return tokens_; }

  /// The same, held against a vocabulary. Throws format_error that begins with `who`.
  std::vector<AddedToken> checked(const BpeDescription& bpe, const std::string& who) const {
    std::unordered_map<std::int32_t, const std::string*> tokens;
    for (const auto& [token, id] : bpe.vocabulary) tokens.emplace(id, &token);
    for (const AddedToken& token : tokens_) {
      const std::string name = quoted_name(token.content);
      const auto same = bpe.vocabulary.find(token.content);
      if (same != bpe.vocabulary.end() && same->second != token.id)
        throw format_error(who + ": added token " + name + " has id " + std::to_string(token.id) +
                           ", but id " + std::to_string(same->second) + " in the vocabulary");
      const auto other = tokens.find(token.id);
      if (other != tokens.end() && *other->second != token.content)
        throw format_error(who + ": added token " + name + " has id " + std::to_string(token.id) +
                           ", which token " + quoted_name(*other->second) +
                           " has in the vocabulary");
    }
    return tokens_;
  }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::unordered_map<std::int32_t, std::string> contents_;
};

/// A token as added_tokens describes it, without its id.
inline AddedToken read_added_token(const nlohmann::json& json, const std::string& who) {
  const FieldReader fields(who, json);
  AddedToken token;
  token.content = fields.text("content");
  token.single_word = fields.boolean("single_word", false);
  token.lstrip = fields.boolean("lstrip", false);
  token.rstrip = fields.boolean("rstrip", false);
  token.special = fields.boolean("special", false);
  token.normalized = fields.boolean("normalized", !token.special);
  return token;
}

/// Reads a tokenizer.json.
class TokenizerJson {
 public:
  TokenizerJson(const std::string& file, const nlohmann::json& json)
      : file_(file), root_(file, json) {}

  TokenizerDescription read() const {
    TokenizerDescription description;
    read_model(description.bpe);
    AddedTokenTable added;
    if (!root_.at("added_tokens").is_null())
      for (const nlohmann::json& entry : root_.array("added_tokens")) {
        AddedToken token = read_added_token(entry, file_ + ": added_tokens");
        token.id = token_id(entry.contains("id") ? entry["id"] : nlohmann::json(),
                            file_ + ": added_tokens: the id of " + quoted_name(token.content));
        added.add(std::move(token), file_);
      }
    description.added = added.checked(description.bpe, file_);
    const auto part = [&](const char* name) { return file_ + ": " + name; };
    read_normalizer(root_.at("normalizer"), part("normalizer"), description.normalizer);
    read_pre_tokenizer(root_.at("pre_tokenizer"), part("pre_tokenizer"), description.pre_tokenizer);
    read_post_processor(root_.at("post_processor"), part("post_processor"), description.frame);
    read_decoder(root_.at("decoder"), part("decoder"), description.decoder);
    const auto spells = [](const auto& step) {
      return std::holds_alternative<SpellBytesStep>(step);
    };
    if (description.decoder.empty() && std::ranges::any_of(description.pre_tokenizer, spells))
      description.decoder = {ReadBytesStep{}};
    return description;
  }

 private:
  void read_model(BpeDescription& bpe) const {
    const FieldReader model = root_.object("model");
    // Files of old versions do not say which of the models with merges it is.
    const bool typed = !model.at("type").is_null();
    if (typed ? type_of(root_.at("model")) != "BPE" : model.at("merges").is_null())
      throw not_supported(file_ + ": model", root_.at("model"), "BPE");
    const auto refuse = [&](const char* field, bool read, const std::string& expected) {
      if (!read) throw model.bad(field, expected + ", nothing else is supported");
    };
    const nlohmann::json& dropout = model.at("dropout");
    refuse("dropout", dropout.is_null() || (dropout.is_number() && dropout.get<double>() == 0),
           "null");
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
      refuse(field, model.at(field).is_null() || model.at(field) == "", "null");
    bpe.byte_fallback = model.boolean("byte_fallback", false);
    bpe.ignore_merges = model.boolean("ignore_merges", false);
    bpe.fuse_unknown = model.boolean("fuse_unk", false);
    bpe.leave_out = true;

    bpe.file = bpe.merges_file = file_;
    if (!model.at("vocab").is_object()) throw model.bad("vocab", "an object");
    bpe.vocabulary = read_vocabulary(model.at("vocab"), file_);
    if (!model.at("unk_token").is_null()) {
      const std::string token = model.text("unk_token");
      const auto found = bpe.vocabulary.find(token);
      if (found == bpe.vocabulary.end()) throw model.bad("unk_token", "a token of the vocabulary");
      bpe.unknown = found->second;
    }
    for (const nlohmann::json& entry : model.array("merges")) {
      std::optional<TokenMerge> merge;
      if (entry.is_string())
        merge = split_merge(entry.get_ref<const std::string&>());
      else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string())
        merge = {entry[0].get<std::string>(), entry[1].get<std::string>()};
      if (!merge)
        throw format_error(file_ + ": model.merges[" + std::to_string(bpe.merges.size()) +
                           "]: expected \"left right\" or [\"left\", \"right\"], got " +
                           FieldReader::given(entry));
      bpe.merges.push_back(std::move(*merge));
    }
  }

  std::string file_;
  FieldReader root_;
};

}  // namespace detail

/// The tokenizer in a tokenizer.json: a byte-pair encoding, with the steps that docs/checkpoints.md
/// lists. Throws io_error; format_error, naming file and component or field, for everything else
/// that such a file may hold, and for what does not fit together.
inline TokenizerDescription describe_tokenizer_json(const std::filesystem::path& path) {
  const std::string file = path.string();
  const nlohmann::json json = detail::parse_json_object(file, detail::read_model_text(path));
  return detail::TokenizerJson(file, json).read();
}

}  // namespace pare
