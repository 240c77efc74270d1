// Byte-level byte-pair encoding, as GPT-2 and OPT use it: text to token ids and back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/added_tokens.hpp"
#include "pare/model/bpe.hpp"
#include "pare/model/byte_level.hpp"
#include "pare/model/tokenizer_files.hpp"

namespace pare::inline PARE_TARGET {

/// Turns text into token ids and back. Immutable once loaded: copies share compiled patterns, and
/// threads may share an object.
class Tokenizer {
 public:
  /// @throws format_error naming file and token or line for a vocabulary, merges or added tokens
  ///         that do not fit together, merges that are missing among them
  explicit Tokenizer(const TokenizerDescription& description)
      : bpe_(description.bpe, description.added),
        prefix_space_(description.prefix_space),
        splits_(description.splits),
        before_(description.before),
        after_(description.after),
        pattern_(detail::byte_level_pattern()) {
    std::vector<AddedToken> exact, normalized;
    for (const AddedToken& token : description.added) {
      added_.emplace(token.id, token.content);
      (token.normalized ? normalized : exact).push_back(token);
    }
    exact_ = detail::AddedTokenSet(std::move(exact));
    normalized_ = detail::AddedTokenSet(std::move(normalized));
  }

  /// Reads the tokenizer of a model folder: `tokenizer.json`, or `vocab.json` and `merges.txt` with
  /// the `added_tokens.json` there may be, or all of them, which must say the same.
  /// @throws io_error naming the file that cannot be read
  /// @throws format_error naming the file and the line, field or token
  static Tokenizer load(const std::filesystem::path& folder) {
    return Tokenizer(describe_tokenizer(folder));
  }

  /// Reads a vocabulary (JSON object: token -> id) and the merges (a pair of tokens per line, best
  /// first). `<s>`, `<pad>`, `</s>` and `<unk>` are added tokens where the vocabulary has them.
  /// Throws io_error or format_error; the message names the file and the line or token.
  static Tokenizer load(const std::filesystem::path& vocab_json,
                        const std::filesystem::path& merges_txt) {
    return Tokenizer(describe_tokenizer(vocab_json, merges_txt));
  }

  /// Number of tokens of the vocabulary, without added tokens that are not in it.
  std::size_t vocab_size() const { return bpe_.size(); }
  /// The largest id of the vocabulary, -1 if it is empty. Added tokens may have larger ones.
  std::int32_t max_id() const { return bpe_.max_id(); }

  /// The id of a token as the vocabulary spells it ("\u0120the"), or of an added token.
  std::optional<std::int32_t> id_of(std::string_view token) const {
    if (const auto id = bpe_.id_of(token)) return id;
    for (const auto& [id, content] : added_)
      if (content == token) return id;
    return std::nullopt;
  }

  /// Ids that belong in front of every text and behind it, as `tokenizer.json` says; encode()
  /// leaves them out.
  const std::vector<std::int32_t>& before() const { return before_; }
  /// The same behind every text.
  const std::vector<std::int32_t>& after() const { return after_; }

  /// The ids of a UTF-8 text; no special id is put in front. Added tokens in the text become their
  /// ids. Time O(n log n) in the text's length.
  /// Throws format_error if the text is not UTF-8 or needs a byte the vocabulary lacks.
  std::vector<std::int32_t> encode(std::string_view text) const {
    const std::size_t invalid = detail::find_invalid_utf8(text);
    if (invalid != std::string_view::npos)
      throw format_error("not valid UTF-8 at byte " + std::to_string(invalid));
    Work work;
    work.bpe.ids.reserve(text.size() / 4);
    const auto push = [&](const AddedToken& token) { work.bpe.ids.push_back(token.id); };
    const auto plain = [&](std::string_view part) { encode_plain(part, work); };
    exact_.split(
        text, work.match,
        [&](std::string_view part) { normalized_.split(part, work.match, plain, push); }, push);
    return std::move(work.bpe.ids);
  }

  /// The bytes the ids stand for, added tokens spelled out; UTF-8 if the ids were cut between
  /// characters. Throws argument_error for an id that the vocabulary lacks.
  std::string decode(std::span<const std::int32_t> ids) const {
    std::string text;
    for (const std::int32_t id : ids) {
      const auto added = added_.find(id);
      const std::string* bytes = added != added_.end() ? &added->second : bpe_.bytes_of(id);
      if (bytes == nullptr)
        throw argument_error("Tokenizer::decode: id " + std::to_string(id) +
                             " is not in the vocabulary");
      text += *bytes;
    }
    return text;
  }

 private:
  struct Work {
    detail::Regex::Match match;
    detail::Bpe::Work bpe;
    std::deque<std::string> prefixed;  ///< parts that got a space; pieces lie in them
  };

  /// Appends the ids of a text without added tokens.
  void encode_plain(std::string_view text, Work& work) const {
    if (prefix_space_ && !text.starts_with(' '))
      text = work.prefixed.emplace_back(" " + std::string(text));
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = splits_ ? pattern_.end_of_match(text, at, work.match) : text.size();
      if (end == text.npos || end <= at)
        throw error("Tokenizer: the pattern matches nothing at byte " + std::to_string(at));
      bpe_.encode_piece(text.substr(at, end - at), work.bpe);
      at = end;
    }
  }

  detail::Bpe bpe_;
  detail::AddedTokenSet exact_, normalized_;
  std::unordered_map<std::int32_t, std::string> added_;
  bool prefix_space_, splits_;
  std::vector<std::int32_t> before_, after_;
  detail::Regex pattern_;
};

}  // namespace pare
