// What the files of a model folder say of its tokenizer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"
#include "pare/tokenizer/description.hpp"
#include "pare/tokenizer/json_fields.hpp"
#include "pare/tokenizer/sentencepiece.hpp"
#include "pare/tokenizer/tokenizer_json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// The vocabulary in a vocab.json.
inline void read_vocab_json(const std::filesystem::path& path, BpeDescription& bpe) {
  bpe.file = path.string();
  bpe.vocabulary = read_vocabulary(parse_json_object(bpe.file, read_model_text(path)), bpe.file);
}

/// The merges in a merges.txt.
inline void read_merges_txt(const std::filesystem::path& path, BpeDescription& bpe) {
  const std::string content = read_model_text(path);
  bpe.merges_file = path.string();
  bpe.first_line = 1;
  std::string_view text = content;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a byte-order mark
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.ends_with('\r')) pair.remove_suffix(1);
    if (line == 1 && pair.starts_with("#version")) {
      bpe.first_line = 2;
      continue;
    }
    auto merge = split_merge(pair);
    if (!merge)
      throw format_error(bpe.merges_file + ": line " + std::to_string(line) +
                         ": expected two tokens separated by one space, got " + quoted_name(pair));
    bpe.merges.push_back(std::move(*merge));
  }
}

inline bool present(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// The tokens of an added_tokens.json (JSON object: token -> id).
inline void read_added_tokens(const std::filesystem::path& path, AddedTokenTable& tokens) {
  const std::string file = path.string();
  const auto ids = parse_json_object(file, read_model_text(path));
  for (const auto& [token, id] : ids.items())
    tokens.add({.content = token,
                .id = token_id(id, file + ": the id of token " + quoted_name(token))},
               file);
}

/// What a tokenizer_config.json says of added tokens: how they are matched, too.
inline void read_added_tokens(const FieldReader& config, AddedTokenTable& tokens) {
  if (config.at("added_tokens_decoder").is_null()) return;
  const FieldReader decoder = config.object("added_tokens_decoder");
  for (const auto& [key, json] : config.at("added_tokens_decoder").items()) {
    const std::string who = decoder.who() + ": " + quoted_name(key);
    AddedToken token = read_added_token(json, who);
    const bool digits =
        !key.empty() && key.size() <= 10 && key.find_first_not_of("0123456789") == key.npos;
    token.id = token_id(digits ? nlohmann::json(std::stoull(key)) : nlohmann::json(), who);
    tokens.add(std::move(token), config.who());
  }
}

/// Where the pre-tokenizer is that of GPT-2, whether it puts a space in front; others have no such
/// option.
inline void set_prefix_space(TokenizerDescription& description, bool prefix_space) {
  for (const bool splits : {false, true})
    if (description.pre_tokenizer == byte_level_steps(!prefix_space, splits)) {
      description.pre_tokenizer = byte_level_steps(prefix_space, splits);
      return;
    }
}

/// Where a SentencePiece model puts a space: transformers 5 takes `legacy` for false where the file
/// does not say.
inline SpaceInFront read_space_in_front(const FieldReader& config) {
  if (!config.boolean("add_prefix_space", true)) return SpaceInFront::none;
  return config.boolean("legacy", false) ? SpaceInFront::all : SpaceInFront::first;
}

/// The token in a field of a tokenizer_config.json, a text or an object that holds it.
inline std::optional<std::string> read_token_text(const FieldReader& config, const char* field) {
  const nlohmann::json& token = config.at(field);
  if (token.is_null()) return std::nullopt;
  return token.is_object() ? config.object(field).text("content") : config.text(field);
}

/// The id of an added token or one of the vocabulary.
inline std::optional<std::int32_t> find_token(const TokenizerDescription& description,
                                              const std::string& token) {
  for (const AddedToken& added : description.added)
    if (added.content == token) return added.id;
  const auto found = description.bpe.vocabulary.find(token);
  if (found == description.bpe.vocabulary.end()) return std::nullopt;
  return found->second;
}

/// Throws unless the files beside a tokenizer.json say the same as it. What it adds to them is
/// fine.
/// @param whole   what tokenizer.json says
/// @param beside  what the others say; without a file where there is none
/// @param added   their added tokens, and where these stand
inline void require_agreement(const TokenizerDescription& whole, const BpeDescription& beside,
                              const std::vector<AddedToken>& added, const std::string& added_file) {
  const std::string& file = whole.bpe.file;
  const auto differs = [&](const std::string& other, const std::string& what) {
    return format_error(other + ": not the tokenizer of " + file + ": " + what +
                        "; remove the file that is not the model's");
  };
  auto known = whole.bpe.vocabulary;
  for (const AddedToken& token : whole.added) known.emplace(token.content, token.id);
  const auto require_id = [&](const std::string& other, const std::string& token, std::int32_t id) {
    const auto found = known.find(token);
    if (found == known.end() || found->second != id)
      throw differs(other, "token " + quoted_name(token) + " has id " + std::to_string(id) +
                               " here and " +
                               (found == known.end() ? std::string("none")
                                                     : std::to_string(found->second)) +
                               " there");
  };
  for (const auto& [token, id] : beside.vocabulary) require_id(beside.file, token, id);
  for (const AddedToken& token : added) require_id(added_file, token.content, token.id);
  if (!beside.file.empty())
    for (const auto& [token, id] : whole.bpe.vocabulary) {
      const auto is_token = [&, &token = token](const AddedToken& t) { return t.content == token; };
      if (!beside.vocabulary.contains(token) && std::ranges::none_of(added, is_token) &&
          std::ranges::none_of(whole.added, is_token))
        throw differs(beside.file, "token " + quoted_name(token) + " has no id here and id " +
                                       std::to_string(id) + " there");
    }
  if (beside.merges_file.empty() || beside.merges == whole.bpe.merges) return;
  const auto [here, there] = std::ranges::mismatch(beside.merges, whole.bpe.merges);
  const auto text = [](const auto& merges, const auto& merge) {
    return merge == merges.end()
               ? "there is none"
               : "it is of " + quoted_name(merge->left) + " and " + quoted_name(merge->right);
  };
  throw differs(beside.merges_file, "of merge " + std::to_string(here - beside.merges.begin() + 1) +
                                        ", " + text(beside.merges, here) + " here and " +
                                        text(whole.bpe.merges, there) + " there");
}

}  // namespace detail

/// The tokenizer of a vocabulary (JSON object: token -> id) and of merges (two tokens a line, best
/// first). `<s>`, `<pad>`, `</s>` and `<unk>` are added tokens where the vocabulary has them.
/// @throws io_error, format_error
inline TokenizerDescription describe_tokenizer(const std::filesystem::path& vocab_json,
                                               const std::filesystem::path& merges_txt) {
  TokenizerDescription description;
  description.pre_tokenizer = byte_level_steps(false, true);
  description.decoder = {ReadBytesStep{}};
  BpeDescription& bpe = description.bpe;
  detail::read_vocab_json(vocab_json, bpe);
  detail::read_merges_txt(merges_txt, bpe);
  for (const char* special : {"<s>", "<pad>", "</s>", "<unk>"})
    if (const auto found = bpe.vocabulary.find(special); found != bpe.vocabulary.end())
      description.added.push_back({.content = special, .id = found->second, .special = true});
  return description;
}

/// The tokenizer of a model folder: what `tokenizer.json` says; without it `vocab.json` and
/// `merges.txt`, or else `tokenizer.model`, and, where they are there, `added_tokens.json` and
/// `tokenizer_config.json`. The other files beside a `tokenizer.json` must agree with it, but for
/// `tokenizer.model`, which is not looked at.
/// @throws io_error, format_error
inline TokenizerDescription describe_tokenizer(const std::filesystem::path& folder) {
  const std::filesystem::path json = folder / "tokenizer.json", vocab = folder / "vocab.json",
                              merges = folder / "merges.txt", added = folder / "added_tokens.json",
                              config = folder / "tokenizer_config.json",
                              model = folder / "tokenizer.model";
  using detail::present;
  const bool has_json = present(json);
  const bool has_model = !has_json && !present(vocab) && !present(merges) && present(model);
  if (!has_json && !has_model && !present(vocab) && !present(merges))
    throw io_error(folder.string() +
                   ": there is no tokenizer in it: neither tokenizer.json, nor vocab.json and "
                   "merges.txt, nor tokenizer.model");

  const std::string config_file = config.string();
  const nlohmann::json fields =
      present(config) ? detail::parse_json_object(config_file, detail::read_model_text(config))
                      : nlohmann::json::object();
  const detail::FieldReader reader(config_file, fields);
  TokenizerDescription description;
  BpeDescription beside;
  if (has_json) {
    description = describe_tokenizer_json(json);
    if (present(vocab)) detail::read_vocab_json(vocab, beside);
    if (present(merges)) detail::read_merges_txt(merges, beside);
  } else if (has_model) {
    description = describe_sentencepiece(model, detail::read_space_in_front(reader));
  } else {
    description = describe_tokenizer(vocab, merges);
  }
  detail::AddedTokenTable table;
  detail::read_added_tokens(reader, table);
  if (!reader.at("add_prefix_space").is_null())
    detail::set_prefix_space(description, reader.boolean("add_prefix_space", false));
  if (!reader.at("add_bos_token").is_null())
    description.add_bos_token = reader.boolean("add_bos_token", false);
  const std::optional<std::string> bos = detail::read_token_text(reader, "bos_token");
  if (present(added)) detail::read_added_tokens(added, table);
  const std::string table_file = (present(added) ? added : config).string();
  if (has_json) {
    detail::require_agreement(description, beside, table.tokens(), table_file);
  } else {
    for (const AddedToken& special : description.added)
      if (!table.contains(special.content)) table.add(special, description.bpe.file);
    description.added = table.checked(description.bpe, table_file);
  }
  if (bos) description.bos = detail::find_token(description, *bos);
  return description;
}

}  // namespace pare
