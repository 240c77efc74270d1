// Byte-level byte-pair encoding, as GPT-2 and OPT use it.
#pragma once

// The names with the suffix _8 are used throughout, so a program may choose another default.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Offset of the first byte of `text` that begins no valid UTF-8 character, or npos.
inline std::size_t find_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = 0;
  while (i < text.size()) {
    const unsigned first = byte(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    const std::size_t length = first < 0xc2   ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || i + length > text.size()) return i;
    // Bounds on the second byte rule out overlong forms, surrogates and what is past U+10FFFF.
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(i + 1) < low || byte(i + 1) > high) return i;
    for (std::size_t k = 2; k < length; ++k)
      if ((byte(i + k) & 0xc0) != 0x80) return i;
    i += length;
  }
  return std::string_view::npos;
}

/// The character (in UTF-8) that stands for each byte in vocabularies: itself if it prints,
/// otherwise one from U+0100 on.
inline std::array<std::string, 256> byte_symbols() {
  std::array<std::string, 256> symbols;
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool prints = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
    const unsigned code = prints ? b : next++;
    if (code >= 0x80) {
      symbols[b] += static_cast<char>(0xc0 | (code >> 6));
      symbols[b] += static_cast<char>(0x80 | (code & 0x3f));
    } else {
      symbols[b] += static_cast<char>(code);
    }
  }
  return symbols;
}

/// The compiled pattern that cuts a text into the pieces merges never cross.
inline std::shared_ptr<const pcre2_code_8> pretokenizer_pattern() {
  // White space is spelled out: \s would take in U+180E, which is none in Unicode any more.
  static constexpr std::string_view pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{Z}\x{09}-\x{0D}\x{85}\p{L}\p{N}]+)"
      R"(|[\p{Z}\x{09}-\x{0D}\x{85}]+(?![^\p{Z}\x{09}-\x{0D}\x{85}])|[\p{Z}\x{09}-\x{0D}\x{85}]+)";
  int code = 0;
  std::size_t offset = 0;
  pcre2_code_8* compiled =
      pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern.data()), pattern.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &offset, nullptr);
  if (compiled == nullptr)
    throw error("Tokenizer: PCRE2 does not compile the pattern (error " + std::to_string(code) +
                "); it needs a PCRE2 built with Unicode support");
  std::shared_ptr<const pcre2_code_8> owner(compiled, [](const pcre2_code_8* p) {
    pcre2_code_free_8(const_cast<pcre2_code_8*>(p));
  });
  // Without a just-in-time compiler the interpreter matches the same, only slower.
  (void)pcre2_jit_compile_8(compiled, PCRE2_JIT_COMPLETE);
  return owner;
}

}  // namespace detail

/// Turns text into token ids and back. Immutable once loaded: copies share the compiled pattern,
/// and threads may share an object.
class Tokenizer {
 public:
  /// Reads a vocabulary (JSON object: token -> id) and the merges (a pair of tokens per line, best
  /// first). Throws io_error or format_error; the message names the file and the line or token.
  static Tokenizer load(const std::filesystem::path& vocab_json,
                        const std::filesystem::path& merges_txt) {
    Tokenizer tokenizer;
    tokenizer.vocab_name_ = vocab_json.string();
    tokenizer.read_vocabulary(detail::read_whole_file(vocab_json));
    tokenizer.read_merges(merges_txt.string(), detail::read_whole_file(merges_txt));
    tokenizer.pattern_ = detail::pretokenizer_pattern();
    return tokenizer;
  }

  /// Number of tokens.
  std::size_t vocab_size() const { return ids_.size(); }
  /// The largest id of the vocabulary, -1 if it is empty.
  std::int32_t max_id() const { return max_id_; }

  /// The id of a token as the vocabulary spells it ("\u0120the"), if there is one.
  std::optional<std::int32_t> id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

  /// The ids of a UTF-8 text; no special id is put in front. `<s>`, `<pad>`, `</s>` and `<unk>` in
  /// the text become their ids where the vocabulary has them. Time O(n log n) in the text's length.
  /// Throws format_error if the text is not UTF-8 or needs a byte the vocabulary lacks.
  std::vector<std::int32_t> encode(std::string_view text) const {
    const std::size_t invalid = detail::find_invalid_utf8(text);
    if (invalid != std::string_view::npos)
      throw format_error("not valid UTF-8 at byte " + std::to_string(invalid));
    Work work;
    work.match.reset(pcre2_match_data_create_8(1, nullptr));
    if (!work.match) throw std::bad_alloc();
    work.ids.reserve(text.size() / 4);
    std::size_t begin = 0;
    for (std::size_t at = text.find('<'); at != text.npos; at = text.find('<', at)) {
      const auto special = std::find_if(specials_.begin(), specials_.end(), [&](const auto& s) {
        return text.substr(at).starts_with(s.first);
      });
      if (special == specials_.end()) {
        ++at;
        continue;
      }
      encode_plain(text.substr(begin, at - begin), work);
      work.ids.push_back(special->second);
      begin = at += special->first.size();
    }
    encode_plain(text.substr(begin), work);
    return std::move(work.ids);
  }

  /// The bytes the ids stand for, special tokens spelled out; UTF-8 if the ids were cut between
  /// characters. Throws argument_error for an id that the vocabulary lacks.
  std::string decode(std::span<const std::int32_t> ids) const {
    std::string text;
    for (const std::int32_t id : ids) {
      const auto found = bytes_of_.find(id);
      if (found == bytes_of_.end())
        throw argument_error("Tokenizer::decode: id " + std::to_string(id) +
                             " is not in the vocabulary");
      text += found->second;
    }
    return text;
  }

 private:
  struct Merge {
    std::int32_t rank, id;
  };
  /// A token of a piece under way, in a doubly linked list; id -1 once merged into its left.
  struct Symbol {
    std::int32_t id;
    index_t previous, next;
  };
  /// A pair that could be merged. Void when the symbols at its place are others by now.
  struct Candidate {
    std::int32_t rank;
    index_t left;
    std::int32_t left_id, right_id, merged_id;
    /// Order of std::*_heap: the lowest rank, then the leftmost, comes first.
    bool operator<(const Candidate& o) const {
      return rank != o.rank ? rank > o.rank : left > o.left;
    }
  };
  struct FreeMatch {
    void operator()(pcre2_match_data_8* p) const { pcre2_match_data_free_8(p); }
  };
  /// What one call of encode() needs. Pieces seen before are found again in `ids`.
  struct Work {
    std::unique_ptr<pcre2_match_data_8, FreeMatch> match;
    std::vector<std::int32_t> ids;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };
  struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  static constexpr std::size_t cached_pieces = 1 << 16;  // limits of Work::seen
  static constexpr std::size_t cached_bytes = 64;

  Tokenizer() = default;

  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }

  void read_vocabulary(std::string_view text) {
    const auto vocabulary = detail::parse_json_object(vocab_name_, text);
    const auto symbols = detail::byte_symbols();
    std::unordered_map<std::string_view, char> byte_of;
    for (std::size_t b = 0; b < 256; ++b) byte_of.emplace(symbols[b], static_cast<char>(b));

    for (const auto& [token, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() ||
          id.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<std::int32_t>::max()))
        throw format_error(vocab_name_ + ": the id of token " + detail::quoted_name(token) +
                           " is not an integer from 0 to 2^31-1");
      const auto value = id.get<std::int32_t>();
      if (!bytes_of_.emplace(value, token_bytes(token, byte_of)).second)
        throw format_error(vocab_name_ + ": id " + std::to_string(value) + " of token " +
                           detail::quoted_name(token) + " is used twice");
      ids_.emplace(token, value);
      max_id_ = std::max(max_id_, value);
    }
    for (std::size_t b = 0; b < 256; ++b) byte_ids_[b] = id_of(symbols[b]).value_or(-1);
    for (const char* special : {"<s>", "<pad>", "</s>", "<unk>"})
      if (const auto id = id_of(special)) specials_.emplace_back(special, *id);
  }

  /// The bytes a token stands for; a token with a character that stands for none is literal text.
  static std::string token_bytes(std::string_view token,
                                 const std::unordered_map<std::string_view, char>& byte_of) {
    std::string bytes;
    for (std::size_t i = 0, length = 0; i < token.size(); i += length) {
      length = static_cast<unsigned char>(token[i]) < 0x80 ? 1 : 2;
      const auto found = byte_of.find(token.substr(i, length));
      if (found == byte_of.end()) return std::string(token);
      bytes += found->second;
    }
    return bytes;
  }

  void read_merges(const std::string& file, std::string_view text) {
    while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
    std::int32_t rank = 0;
    for (std::size_t line = 1; !text.empty(); ++line) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view content = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (content.ends_with('\r')) content.remove_suffix(1);
      if (line == 1 && content.starts_with("#version")) continue;

      const auto fail = [&](const std::string& why) {
        return format_error(file + ": line " + std::to_string(line) + ": " + why);
      };
      const std::size_t space = content.find(' ');
      if (space == content.npos || space == 0 || space + 1 == content.size() ||
          content.find(' ', space + 1) != content.npos)
        throw fail("expected two tokens separated by one space, got " +
                   detail::quoted_name(content));
      const auto required_id = [&](std::string_view token) {
        if (const auto id = id_of(token)) return *id;
        throw fail("token " + detail::quoted_name(token) + " is not in the vocabulary");
      };
      const std::string_view left = content.substr(0, space), right = content.substr(space + 1);
      const std::uint64_t key = pair_key(required_id(left), required_id(right));
      const std::int32_t merged = required_id(std::string(left) += right);
      merges_.insert_or_assign(key, Merge{rank++, merged});  // the last of two counts, as in GPT-2
    }
  }

  /// Appends the ids of a text without special tokens.
  void encode_plain(std::string_view text, Work& work) const {
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match_8(pattern_.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), at,
                        PCRE2_NO_UTF_CHECK, work.match.get(), nullptr);
      const std::size_t end = found < 0 ? at : pcre2_get_ovector_pointer_8(work.match.get())[1];
      if (end <= at)
        throw error("Tokenizer: PCRE2 failed at byte " + std::to_string(at) + " (error " +
                    std::to_string(found) + ")");
      encode_piece(text.substr(at, end - at), work);
      at = end;
    }
  }

  void encode_piece(std::string_view piece, Work& work) const {
    const auto seen = work.seen.find(piece);
    if (seen != work.seen.end()) {
      const auto [first, count] = seen->second;
      for (std::size_t i = 0; i < count; ++i) work.ids.push_back(work.ids[first + i]);
      return;
    }
    const std::size_t first = work.ids.size();
    merge_piece(piece, work);
    if (piece.size() <= cached_bytes && work.seen.size() < cached_pieces)
      work.seen.emplace(piece, std::pair(first, work.ids.size() - first));
  }

  /// Merges the bytes of a piece by rank, leftmost first among equals, and appends the result.
  void merge_piece(std::string_view piece, Work& work) const {
    auto& symbols = work.symbols;
    auto& heap = work.heap;
    const auto size = index_t(piece.size());
    symbols.clear();
    heap.clear();
    for (index_t i = 0; i < size; ++i)
      symbols.push_back({byte_id(piece[std::size_t(i)]), i - 1, i + 1});
    const auto at = [&](index_t i) -> Symbol& { return symbols[std::size_t(i)]; };
    const auto offer = [&](index_t left) {
      if (left < 0 || at(left).next >= size) return;
      const std::int32_t left_id = at(left).id, right_id = at(at(left).next).id;
      const auto merge = merges_.find(pair_key(left_id, right_id));
      if (merge == merges_.end()) return;
      heap.push_back({merge->second.rank, left, left_id, right_id, merge->second.id});
      std::push_heap(heap.begin(), heap.end());
    };
    for (index_t i = 0; i < size; ++i) offer(i);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const Candidate best = heap.back();
      heap.pop_back();
      Symbol& left = at(best.left);
      const index_t right = left.next;
      if (left.id != best.left_id || right >= size || at(right).id != best.right_id) continue;
      left.id = best.merged_id;
      left.next = at(right).next;
      if (left.next < size) at(left.next).previous = best.left;
      at(right).id = -1;
      offer(best.left);
      offer(left.previous);
    }
    for (index_t i = 0; i < size; i = at(i).next) work.ids.push_back(at(i).id);
  }

  std::int32_t byte_id(char c) const {
    const auto byte = static_cast<unsigned char>(c);
    if (byte_ids_[byte] < 0) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "0x%02X", unsigned{byte});
      throw format_error(vocab_name_ + ": no token for byte " + hex + " (spelled '" +
                         detail::byte_symbols()[byte] + "'), which the text needs");
    }
    return byte_ids_[byte];
  }

  std::string vocab_name_;
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, std::string> bytes_of_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<std::pair<std::string, std::int32_t>> specials_;
  std::int32_t max_id_ = -1;
  std::shared_ptr<const pcre2_code_8> pattern_;
};

}  // namespace pare
