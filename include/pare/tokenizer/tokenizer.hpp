// Text to token ids and back, by a byte-pair encoding and the steps around it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/tokenizer/added_tokens.hpp"
#include "pare/tokenizer/bpe.hpp"
#include "pare/tokenizer/decoder.hpp"
#include "pare/tokenizer/description.hpp"
#include "pare/tokenizer/normalizer.hpp"
#include "pare/tokenizer/pre_tokenizer.hpp"
#include "pare/tokenizer/tokenizer_files.hpp"

namespace pare::inline PARE_TARGET {

/// Turns text into token ids and back. Immutable once loaded: copies share compiled patterns, and
/// threads may share an object.
class Tokenizer {
 public:
  /// @throws format_error naming file and token or line for a vocabulary, merges or added tokens
  ///         that do not fit together, merges that are missing among them
  explicit Tokenizer(const TokenizerDescription& description)
      : normalizer_(description.normalizer, description.bpe.file + ": normalizer"),
        pre_tokenizer_(description.pre_tokenizer, description.bpe.file + ": pre_tokenizer"),
        bpe_(description.bpe, description.added),
        encode_part_(description.encode_part),
        frame_(description.frame),
        decoder_(description.decoder, description.bpe.file + ": decoder"),
        add_bos_token_(description.add_bos_token),
        bos_(description.bos) {
    std::vector<AddedToken> exact, normalized;
    detail::Regex::Match match;
    for (const AddedToken& token : description.added) {
      added_.emplace(token.id, token.content);
      (token.normalized ? normalized : exact).push_back(token);
    }
    for (AddedToken& token : normalized) token.content = normalizer_.apply(token.content, match);
    std::erase_if(normalized, [](const AddedToken& token) { return token.content.empty(); });
    exact_ = detail::AddedTokenSet(std::move(exact));
    normalized_ = detail::AddedTokenSet(std::move(normalized));
  }

  /// Reads the tokenizer of a model folder: `tokenizer.json`, or `vocab.json` and `merges.txt` with
  /// the `added_tokens.json` there may be, or all of them, which must say the same; without these
  /// `tokenizer.model`.
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

  /// The file that holds the vocabulary, as messages name it.
  const std::string& file() const { return bpe_.file(); }
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

  /// Ids that belong in front of every text and after it, as `tokenizer.json` says; encode()
  /// leaves them out.
  const std::vector<std::int32_t>& before() const { return frame_.before; }
  /// The same after every text.
  const std::vector<std::int32_t>& after() const { return frame_.after; }
  /// Both, and whether the tokenizer says anything of them.
  const TextFrame& frame() const { return frame_; }
  /// `add_bos_token` of `tokenizer_config.json`; nothing where it does not say.
  std::optional<bool> add_bos_token() const { return add_bos_token_; }
  /// The id of the `bos_token` of `tokenizer_config.json`; nothing where it names none.
  std::optional<std::int32_t> bos() const { return bos_; }

  /// The ids of a UTF-8 text; no special id is put in front. Added tokens in the text become their
  /// ids. Time O(n log n) in the text's length.
  /// @param text      UTF-8
  /// @param left_out  where given, becomes the number of characters that the vocabulary has nothing
  ///                  for and that `tokenizer.json` leaves out
  /// @throws format_error if the text is not UTF-8, or where it is not `tokenizer.json` that is read
  ///         and the vocabulary has nothing for a character
  std::vector<std::int32_t> encode(std::string_view text, std::size_t* left_out = nullptr) const {
    const std::size_t invalid = detail::find_invalid_utf8(text);
    if (invalid != std::string_view::npos)
      throw format_error("not valid UTF-8 at byte " + std::to_string(invalid));
    Work work;
    work.bpe.ids.reserve(text.size() / 4);
    const auto push = [&](const AddedToken& token) { work.bpe.ids.push_back(token.id); };
    const auto between = [&](std::string_view part) {
      const bool first = part.data() == text.data();
      if (!normalizer_.empty())
        part = work.cut.kept.emplace_back(normalizer_.apply(part, work.cut.match));
      const auto plain = [&](std::string_view rest) {
        encode_plain({rest, first && rest.data() == part.data()}, work);
      };
      normalized_.split(part, work.match, plain, push);
    };
    exact_.split(text, work.match, between, push);
    if (left_out != nullptr) *left_out = work.bpe.left_out;
    return std::move(work.bpe.ids);
  }

  /// The bytes the ids stand for, added tokens spelled out; UTF-8 if the ids were cut between
  /// characters. Throws argument_error for an id that the vocabulary lacks.
  std::string decode(std::span<const std::int32_t> ids) const {
    std::vector<detail::Decoder::Token> tokens;
    tokens.reserve(ids.size());
    for (const std::int32_t id : ids) {
      const auto added = added_.find(id);
      const std::string* token = added != added_.end() ? &added->second : bpe_.token_of(id);
      if (token == nullptr)
        throw argument_error("Tokenizer::decode: id " + std::to_string(id) +
                             " is not in the vocabulary");
      tokens.push_back({*token, added != added_.end()});
    }
    return decoder_.text(std::move(tokens));
  }

 private:
  struct Work {
    detail::Regex::Match match;
    detail::PreTokenizer::Work cut;
    detail::Bpe::Work bpe;
  };

  /// Appends the ids of a text without added tokens.
  void encode_plain(detail::Piece part, Work& work) const {
    if (encode_part_) return encode_part_(part.text, part.first, work.bpe.ids);
    pre_tokenizer_.cut(part, work.cut);
    for (const detail::Piece& piece : work.cut.pieces) bpe_.encode_piece(piece.text, work.bpe);
  }

  detail::Normalizer normalizer_;
  detail::PreTokenizer pre_tokenizer_;
  detail::Bpe bpe_;
  std::function<void(std::string_view, bool, std::vector<std::int32_t>&)> encode_part_;
  TextFrame frame_;
  detail::Decoder decoder_;
  std::optional<bool> add_bos_token_;
  std::optional<std::int32_t> bos_;
  detail::AddedTokenSet exact_, normalized_;
  std::unordered_map<std::int32_t, std::string> added_;
};

}  // namespace pare
