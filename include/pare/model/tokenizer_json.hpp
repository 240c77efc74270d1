// Reads a tokenizer.json of Hugging Face that holds a byte-level byte-pair encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/model/added_tokens.hpp"
#include "pare/model/bpe.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

/// A tokenizer as files describe it, in the order in which a text goes through its parts.
struct TokenizerDescription {
  /// Found in the text before anything else.
  std::vector<AddedToken> added;
  bool prefix_space =
      false;           ///< every part between them begins with a space, if need be with one more
  bool splits = true;  ///< parts are cut into the pieces of GPT-2, otherwise each is a piece
  /// Makes tokens of a piece.
  BpeDescription bpe;
  /// Ids in front of every text.
  std::vector<std::int32_t> before;
  /// Ids behind every text.
  std::vector<std::int32_t> after;
};

namespace detail {

/// A token id that was read. Throws format_error that begins with `who`.
inline std::int32_t token_id(const nlohmann::json& id, const std::string& who) {
  if (!id.is_number_unsigned() ||
      id.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<std::int32_t>::max()))
    throw format_error(who + " is not an integer from 0 to 2^31-1");
  return id.get<std::int32_t>();
}

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

/// Fields of a JSON file, read with errors that name file and field.
class FieldReader {
 public:
  /// @param who   what messages begin with
  /// @param json  an object; valid as long as the reader
  FieldReader(std::string who, const nlohmann::json& json) : who_(std::move(who)), json_(json) {
    if (!json.is_object()) throw format_error(who_ + ": expected an object, got " + given(json));
  }

  const std::string& who() const { return who_; }
  format_error bad(const std::string& field, const std::string& expected) const {
    const auto found = json_.find(field);
    return format_error(who_ + (field.empty() ? "" : ": " + field) + ": expected " + expected +
                        ", got " + (found == json_.end() ? "nothing" : given(*found)));
  }

  /// The field; null where there is none.
  const nlohmann::json& at(const char* field) const {
    static const nlohmann::json nothing;
    const auto found = json_.find(field);
    return found == json_.end() ? nothing : *found;
  }
  FieldReader object(const char* field) const {
    if (!at(field).is_object()) throw bad(field, "an object");
    return {who_ + ": " + field, at(field)};
  }
  /// Null is as good as nothing.
  bool boolean(const char* field, bool otherwise) const {
    const nlohmann::json& value = at(field);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) throw bad(field, "true or false");
    return value.get<bool>();
  }
  std::string text(const char* field) const {
    if (!at(field).is_string()) throw bad(field, "a text");
    return at(field).get<std::string>();
  }
  const nlohmann::json& array(const char* field) const {
    if (!at(field).is_array()) throw bad(field, "an array");
    return at(field);
  }

  /// A value for messages, cut after 60 bytes.
  static std::string given(const nlohmann::json& value) {
    if (value.is_object() && value.contains("type") && value["type"].is_string())
      return quoted_name(value["type"].get<std::string>());
    if (value.is_structured()) return value.is_object() ? "an object" : "an array";
    const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 60) + "..." : text;
  }

 private:
  std::string who_;
  const nlohmann::json& json_;
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
    if (const nlohmann::json& normalizer = root_.at("normalizer"); !normalizer.is_null())
      throw not_read("normalizer", "null", normalizer);
    read_pre_tokenizer(description);
    read_post_processor(root_.at("post_processor"), description);
    const nlohmann::json& decoder = root_.at("decoder");
    if (!decoder.is_null() && type_of(decoder) != "ByteLevel")
      throw not_read("decoder", "ByteLevel", decoder);
    return description;
  }

 private:
  /// "file: field: expected ..., got ...; what is read".
  format_error not_read(const std::string& field, const std::string& expected,
                        const nlohmann::json& given) const {
    return format_error(file_ + ": " + field + ": expected " + expected + ", got " +
                        FieldReader::given(given) +
                        "; of all tokenizers the byte-level BPE of GPT-2 and OPT is read");
  }
  static std::string type_of(const nlohmann::json& json) {
    return json.is_object() && json.contains("type") && json["type"].is_string()
               ? json["type"].get<std::string>()
               : std::string();
  }

  void read_model(BpeDescription& bpe) const {
    const FieldReader model = root_.object("model");
    // Files of old versions do not say which of the models with merges it is.
    const bool typed = !model.at("type").is_null();
    if (typed ? type_of(root_.at("model")) != "BPE" : model.at("merges").is_null())
      throw not_read("model", "BPE", root_.at("model"));
    const auto refuse = [&](const char* field, bool read, const std::string& expected) {
      if (!read) throw not_read(std::string("model: ") + field, expected, model.at(field));
    };
    const nlohmann::json& dropout = model.at("dropout");
    refuse("dropout", dropout.is_null() || (dropout.is_number() && dropout.get<double>() == 0),
           "null");
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
      refuse(field, model.at(field).is_null() || model.at(field) == "", "null");
    refuse("byte_fallback", !model.boolean("byte_fallback", false), "false");
    bpe.ignore_merges = model.boolean("ignore_merges", false);
    bpe.fuse_unknown = model.boolean("fuse_unk", false);

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

  void read_pre_tokenizer(TokenizerDescription& description) const {
    const nlohmann::json& json = root_.at("pre_tokenizer");
    if (type_of(json) != "ByteLevel") throw not_read("pre_tokenizer", "ByteLevel", json);
    const FieldReader fields = root_.object("pre_tokenizer");
    description.prefix_space = fields.boolean("add_prefix_space", true);
    description.splits = fields.boolean("use_regex", true);
  }

  /// What is put around a text: nothing, or what a template for one text says.
  void read_post_processor(const nlohmann::json& json, TokenizerDescription& description,
                           bool within = false) const {
    const std::string type = type_of(json);
    if (json.is_null() || type == "ByteLevel") return;  // ByteLevel trims offsets only
    const FieldReader fields(file_ + ": post_processor", json);
    if (type == "Sequence" && !within) {
      for (const nlohmann::json& step : fields.array("processors"))
        read_post_processor(step, description, true);
      return;
    }
    if (type != "TemplateProcessing")
      throw not_read("post_processor", "null, ByteLevel, TemplateProcessing or a Sequence of these",
                     json);
    std::vector<std::int32_t> before, after;
    bool seen = false;
    for (const nlohmann::json& piece : fields.array("single")) {
      if (piece.is_object() && piece.contains("Sequence")) {
        if (std::exchange(seen, true)) throw fields.bad("single", "the text once");
        continue;
      }
      const nlohmann::json& special =
          FieldReader(fields.who() + ": single", piece).at("SpecialToken");
      const std::string token = FieldReader(fields.who() + ": single", special).text("id");
      const FieldReader ids(fields.who() + ": special_tokens: " + quoted_name(token),
                            fields.object("special_tokens").at(token.c_str()));
      for (const nlohmann::json& id : ids.array("ids"))
        (seen ? after : before).push_back(token_id(id, ids.who() + ": ids: an id"));
    }
    if (!seen) throw fields.bad("single", "the text once");
    description.before.insert(description.before.begin(), before.begin(), before.end());
    description.after.insert(description.after.end(), after.begin(), after.end());
  }

  std::string file_;
  FieldReader root_;
};

}  // namespace detail

/// The tokenizer in a tokenizer.json: byte-level BPE as GPT-2 and OPT have it, with added tokens
/// and a template around a text. Throws io_error; format_error, naming file and field, for
/// everything else that such a file may hold, and for what does not fit together.
inline TokenizerDescription describe_tokenizer_json(const std::filesystem::path& path) {
  const std::string file = path.string();
  const nlohmann::json json = detail::parse_json_object(file, detail::read_model_text(path));
  return detail::TokenizerJson(file, json).read();
}

}  // namespace pare
