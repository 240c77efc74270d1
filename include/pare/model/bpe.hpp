// Byte-pair encoding: a vocabulary, and merges that make tokens of it from the bytes of a piece.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/text.hpp"
#include "pare/model/added_tokens.hpp"
#include "pare/model/byte_level.hpp"
#include "pare/storage/file.hpp"

namespace pare::inline PARE_TARGET {

/// Two tokens that become one.
struct TokenMerge {
  /// A side, as the vocabulary spells it.
  std::string left, right;
  /// Memberwise.
  bool operator==(const TokenMerge&) const = default;
};

/// A byte-pair encoding as files describe it.
struct BpeDescription {
  std::string file;  ///< of the vocabulary, for messages
  /// Ids by token, as the vocabulary spells them: a character stands for each byte.
  std::map<std::string, std::int32_t, std::less<>> vocabulary;
  /// The pairs that are merged, best first.
  std::vector<TokenMerge> merges;
  std::string merges_file;  ///< of the merges, for messages
  /// The line of the first merge where merges are lines; 0 where they are entries of model.merges.
  std::size_t first_line = 0;
  /// A piece that is a token of the vocabulary becomes it, whatever the merges would make.
  bool ignore_merges = false;
  /// What a byte becomes that the vocabulary lacks; none: such a text is refused.
  std::optional<std::int32_t> unknown;
  bool fuse_unknown = false;  ///< such bytes in a row become one
};

namespace detail {

/// A token that stands for no text and that no merge makes: "<s>", "[PAD]", and what fairseq fills
/// a vocabulary up with, "madeupword0001".
inline bool looks_special(std::string_view token) {
  if (token.size() < 3) return false;
  if (token.front() == '<' && token.back() == '>') return true;
  if (token.front() == '[' && token.back() == ']') return true;
  constexpr std::string_view filler = "madeupword";
  return token.starts_with(filler) &&
         token.find_first_not_of("0123456789", filler.size()) == token.npos;
}

/// A byte-pair encoding ready for use. Immutable.
class Bpe {
 public:
  /// @param description  what files say
  /// @param added        tokens that no merge needs to make
  /// @throws format_error naming file and token or line when ids are used twice, a merge has a
  ///         token that the vocabulary lacks, or a token of the vocabulary can be made by a merge
  ///         only and there is none
  Bpe(const BpeDescription& description, const std::vector<AddedToken>& added)
      : file_(description.file),
        ignore_merges_(description.ignore_merges),
        fuse_unknown_(description.fuse_unknown && description.unknown),
        unknown_(description.unknown.value_or(-1)) {
    read_vocabulary(description);
    read_merges(description);
    if (!ignore_merges_) require_merges(description, added);
  }

  std::size_t size() const { return ids_.size(); }
  std::int32_t max_id() const { return max_id_; }

  std::optional<std::int32_t> id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

  /// The bytes a token stands for; null for an id the vocabulary lacks.
  const std::string* bytes_of(std::int32_t id) const {
    const auto found = bytes_of_.find(id);
    return found == bytes_of_.end() ? nullptr : &found->second;
  }

  /// What one call of Tokenizer::encode needs. Pieces seen before are found again in `ids`.
  struct Work {
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
    std::vector<std::int32_t> ids;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    std::string spelled;
  };

  /// Appends the ids of a piece, whose bytes must stay where they are as long as `work`.
  void encode_piece(std::string_view piece, Work& work) const {
    const auto seen = work.seen.find(piece);
    if (seen != work.seen.end()) {
      const auto [first, count] = seen->second;
      for (std::size_t i = 0; i < count; ++i) work.ids.push_back(work.ids[first + i]);
      return;
    }
    const std::size_t first = work.ids.size();
    if (!whole_piece(piece, work)) merge_piece(piece, work);
    if (piece.size() <= cached_bytes && work.seen.size() < cached_pieces)
      work.seen.emplace(piece, std::pair(first, work.ids.size() - first));
  }

 private:
  struct Merge {
    std::int32_t rank, id;
  };
  struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  static constexpr std::size_t cached_pieces = 1 << 16;  // limits of Work::seen
  static constexpr std::size_t cached_bytes = 64;

  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }

  using ByteOf = std::unordered_map<std::string_view, char>;
  ByteOf byte_of() const {
    ByteOf map;
    for (std::size_t b = 0; b < 256; ++b) map.emplace(symbols_[b], static_cast<char>(b));
    return map;
  }

  void read_vocabulary(const BpeDescription& description) {
    const ByteOf byte_of = this->byte_of();
    for (const auto& [token, id] : description.vocabulary) {
      if (!bytes_of_.emplace(id, token_bytes(token, byte_of).value_or(token)).second)
        throw format_error(file_ + ": id " + std::to_string(id) + " of token " +
                           quoted_name(token) + " is used twice");
      ids_.emplace(token, id);
      max_id_ = std::max(max_id_, id);
    }
    for (std::size_t b = 0; b < 256; ++b) {
      const auto id = id_of(symbols_[b]);
      lacking_[b] = !id;
      byte_ids_[b] = id.value_or(unknown_);
    }
  }

  /// The bytes a token stands for; nothing where a character of it stands for none.
  static std::optional<std::string> token_bytes(std::string_view token, const ByteOf& byte_of) {
    std::string bytes;
    for (std::size_t i = 0, length = 0; i < token.size(); i += length) {
      length = static_cast<unsigned char>(token[i]) < 0x80 ? 1 : 2;
      const auto found = byte_of.find(token.substr(i, length));
      if (found == byte_of.end()) return std::nullopt;
      bytes += found->second;
    }
    return bytes;
  }

  void read_merges(const BpeDescription& description) {
    std::int32_t rank = 0;
    for (const TokenMerge& merge : description.merges) {
      const auto required_id = [&](const std::string& token) {
        if (const auto id = id_of(token)) return *id;
        throw format_error(
            description.merges_file +
            (description.first_line > 0
                 ? ": line " + std::to_string(description.first_line + std::size_t(rank))
                 : ": model.merges[" + std::to_string(rank) + "]") +
            ": token " + quoted_name(token) + " is not in the vocabulary");
      };
      const std::uint64_t key = pair_key(required_id(merge.left), required_id(merge.right));
      const std::int32_t merged = required_id(merge.left + merge.right);
      merges_.insert_or_assign(key, Merge{rank++, merged});  // the last of two counts, as in GPT-2
    }
  }

  /// A missing merge is a token that is never made: texts become other tokens, without a word.
  void require_merges(const BpeDescription& description,
                      const std::vector<AddedToken>& added) const {
    const ByteOf byte_of = this->byte_of();
    std::unordered_set<std::int32_t> made;
    for (const auto& [pair, merge] : merges_) made.insert(merge.id);
    for (const AddedToken& token : added)
      if (const auto id = id_of(token.content)) made.insert(*id);
    std::size_t missing = 0;
    std::pair<std::int32_t, std::string_view> first;  // by id
    for (const auto& [token, id] : description.vocabulary) {
      if (made.contains(id) || looks_special(token) || !needs_merge(token, byte_of)) continue;
      if (missing++ == 0 || id < first.first) first = {id, token};
    }
    if (missing == 0) return;
    throw format_error(
        description.merges_file + ": no merge makes token " + quoted_name(first.second) +
        (missing > 1 ? " and " + std::to_string(missing - 1) + " others" : "") + " of " + file_ +
        "; the merges are cut or belong to another vocabulary, fetch them anew");
  }

  /// One byte needs no merge, and nothing makes a token with a character that stands for no byte.
  static bool needs_merge(std::string_view token, const ByteOf& byte_of) {
    const auto bytes = token_bytes(token, byte_of);
    return bytes && bytes->size() > 1;
  }

  /// Appends the id of a piece that is a token as it stands, where merges are ignored for those.
  bool whole_piece(std::string_view piece, Work& work) const {
    if (!ignore_merges_) return false;
    work.spelled.clear();
    for (const char c : piece) work.spelled += symbols_[static_cast<unsigned char>(c)];
    const auto id = id_of(work.spelled);
    if (id) work.ids.push_back(*id);
    return id.has_value();
  }

  /// Merges the bytes of a piece by rank, leftmost first among equals, and appends the result.
  void merge_piece(std::string_view piece, Work& work) const {
    auto& symbols = work.symbols;
    auto& heap = work.heap;
    symbols.clear();
    heap.clear();
    bool lacked = false;  // the byte before
    for (const char c : piece) {
      const bool fused = std::exchange(lacked, lacks(c)) && lacked && fuse_unknown_;
      if (fused) continue;
      const auto i = index_t(symbols.size());
      symbols.push_back({byte_id(c), i - 1, i + 1});
    }
    const auto size = index_t(symbols.size());
    const auto at = [&](index_t i) -> Work::Symbol& { return symbols[std::size_t(i)]; };
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
      const Work::Candidate best = heap.back();
      heap.pop_back();
      Work::Symbol& left = at(best.left);
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

  bool lacks(char c) const { return lacking_[static_cast<unsigned char>(c)]; }

  std::int32_t byte_id(char c) const {
    const auto byte = static_cast<unsigned char>(c);
    if (byte_ids_[byte] < 0) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "0x%02X", unsigned{byte});
      throw format_error(file_ + ": no token for byte " + hex + " (spelled '" + symbols_[byte] +
                         "'), which the text needs");
    }
    return byte_ids_[byte];
  }

  std::string file_;
  std::array<std::string, 256> symbols_ = byte_symbols();
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, std::string> bytes_of_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::array<bool, 256> lacking_{};
  std::int32_t max_id_ = -1;
  bool ignore_merges_, fuse_unknown_;
  std::int32_t unknown_;  // -1: none
};

}  // namespace detail

}  // namespace pare
