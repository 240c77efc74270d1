// Byte-pair encoding: a vocabulary, and merges that make tokens of it from the characters of a
// piece.
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
#include "pare/tokenizer/added_tokens.hpp"
#include "pare/tokenizer/utf8.hpp"

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
  /// Ids by token, as the vocabulary spells them.
  std::map<std::string, std::int32_t, std::less<>> vocabulary;
  /// The pairs that are merged, best first.
  std::vector<TokenMerge> merges;
  std::string merges_file;  ///< of the merges, for messages
  /// The line of the first merge where merges are lines; 0 where they are entries of model.merges.
  std::size_t first_line = 0;
  /// A piece that is a token of the vocabulary becomes it, whatever the merges would make.
  bool ignore_merges = false;
  /// A character that the vocabulary lacks becomes the tokens "<0x00>" to "<0xFF>" of its bytes,
  /// where it has them.
  bool byte_fallback = false;
  /// What a character becomes that the vocabulary lacks.
  std::optional<std::int32_t> unknown;
  /// Where it becomes nothing: it is left out, as transformers does; otherwise the text is refused.
  bool leave_out = false;
  bool fuse_unknown = false;  ///< such characters in a row become one
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

/// The token of a byte where characters fall back to their bytes: "<0x0A>".
inline std::string byte_token(unsigned char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", unsigned{byte});
  return text;
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
        byte_fallback_(description.byte_fallback),
        fuse_unknown_(description.fuse_unknown),
        leave_out_(description.leave_out),
        unknown_(description.unknown.value_or(-1)) {
    read_vocabulary(description);
    read_merges(description);
    if (!ignore_merges_) require_merges(description, added);
  }

  const std::string& file() const { return file_; }
  std::size_t size() const { return ids_.size(); }
  std::int32_t max_id() const { return max_id_; }

  std::optional<std::int32_t> id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

  /// A token as the vocabulary spells it; null for an id that the vocabulary lacks.
  const std::string* token_of(std::int32_t id) const {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : &found->second;
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
    std::size_t left_out = 0;  ///< characters
  };

  /// Appends the ids of a piece, which is spelled as the vocabulary is, and whose bytes must stay
  /// where they are as long as `work`. Throws format_error for a character that nothing stands for.
  void encode_piece(std::string_view piece, Work& work) const {
    const auto seen = work.seen.find(piece);
    if (seen != work.seen.end()) {
      const auto [first, count] = seen->second;
      for (std::size_t i = 0; i < count; ++i) work.ids.push_back(work.ids[first + i]);
      return;
    }
    const std::size_t first = work.ids.size(), left_out = work.left_out;
    const auto whole = ignore_merges_ ? id_of(piece) : std::nullopt;
    if (whole)
      work.ids.push_back(*whole);
    else
      merge_piece(piece, work);
    if (piece.size() <= cached_bytes && work.seen.size() < cached_pieces &&
        work.left_out == left_out)
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

  void read_vocabulary(const BpeDescription& description) {
    ids_.reserve(description.vocabulary.size());
    tokens_.reserve(description.vocabulary.size());
    for (const auto& [token, id] : description.vocabulary) {
      if (!tokens_.emplace(id, token).second)
        throw format_error(file_ + ": id " + std::to_string(id) + " of token " +
                           quoted_name(token) + " is used twice");
      ids_.emplace(token, id);
      max_id_ = std::max(max_id_, id);
    }
    for (unsigned b = 0; b < 256; ++b) {
      const auto byte = static_cast<unsigned char>(b);
      byte_ids_[b] = id_of(byte_token(byte)).value_or(-1);
      if (b < 0x80) ascii_ids_[b] = id_of(std::string(1, static_cast<char>(b))).value_or(-1);
    }
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
    std::unordered_set<std::int32_t> made;
    for (const auto& [pair, merge] : merges_) made.insert(merge.id);
    for (const AddedToken& token : added)
      if (const auto id = id_of(token.content)) made.insert(*id);
    std::size_t missing = 0;
    std::pair<std::int32_t, std::string_view> first;  // by id
    for (const auto& [token, id] : description.vocabulary) {
      if (made.contains(id) || looks_special(token) || !needs_merge(token)) continue;
      if (missing++ == 0 || id < first.first) first = {id, token};
    }
    if (missing == 0) return;
    throw format_error(
        description.merges_file + ": no merge makes token " + quoted_name(first.second) +
        (missing > 1 ? " and " + std::to_string(missing - 1) + " others" : "") + " of " + file_ +
        "; the merges are cut or belong to another vocabulary, fetch them anew");
  }

  /// One character needs no merge, and nothing makes a token with a character that is no token.
  bool needs_merge(std::string_view token) const {
    std::size_t characters = 0;
    for (std::size_t i = 0, length = 0; i < token.size(); i += length, ++characters) {
      length = utf8_length(token[i]);
      if (character_id(token.substr(i, length)) < 0) return false;
    }
    return characters > 1;
  }

  /// The id of one character, -1 where the vocabulary lacks it.
  std::int32_t character_id(std::string_view character) const {
    if (character.size() == 1) return ascii_ids_[static_cast<unsigned char>(character[0]) & 0x7f];
    return id_of(character).value_or(-1);
  }

  /// Sets down the characters of a piece as symbols to be merged.
  void set_down(std::string_view piece, Work& work) const {
    auto& symbols = work.symbols;
    const auto push = [&](std::int32_t id) {
      const auto i = index_t(symbols.size());
      symbols.push_back({id, i - 1, i + 1});
    };
    // An unknown character waits for the next known one, as in the tokenizers of Hugging Face:
    // bytes of characters between the two come before it.
    bool waiting = false;
    for (std::size_t i = 0, length = 0; i < piece.size(); i += length) {
      length = utf8_length(piece[i]);
      const std::string_view character = piece.substr(i, length);
      if (const std::int32_t id = character_id(character); id >= 0) {
        if (std::exchange(waiting, false)) push(unknown_);
        push(id);
      } else if (byte_fallback_ && std::ranges::all_of(character, [&](char c) {
                   return byte_ids_[static_cast<unsigned char>(c)] >= 0;
                 })) {
        for (const char c : character) push(byte_ids_[static_cast<unsigned char>(c)]);
      } else if (unknown_ >= 0) {
        if (std::exchange(waiting, true) && !fuse_unknown_) push(unknown_);
      } else if (leave_out_) {
        ++work.left_out;
      } else {
        throw format_error(file_ + ": no token for " + quoted_name(character) +
                           ", which the text needs");
      }
    }
    if (waiting) push(unknown_);
  }

  /// Merges the characters of a piece by rank, leftmost first among equals, and appends the result.
  void merge_piece(std::string_view piece, Work& work) const {
    auto& symbols = work.symbols;
    auto& heap = work.heap;
    symbols.clear();
    heap.clear();
    set_down(piece, work);
    const auto size = index_t(symbols.size());
    const auto at = [&](index_t i) -> Work::Symbol& { return symbols[std::size_t(i)]; };
    const auto offer = [&](index_t left) {
      if (left < 0 || at(left).next >= size) return;
      const std::int32_t left_id = at(left).id, right_id = at(at(left).next).id;
      const auto merge = merges_.find(pair_key(left_id, right_id));
      if (merge == merges_.end()) return;
      heap.push_back({merge->second.rank, left, left_id, right_id, merge->second.id});
    };
    for (index_t i = 0; i < size; ++i) offer(i);
    std::make_heap(heap.begin(), heap.end());
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
      for (const index_t i : {best.left, left.previous}) {
        const std::size_t offered = heap.size();
        offer(i);
        if (heap.size() > offered) std::push_heap(heap.begin(), heap.end());
      }
    }
    for (index_t i = 0; i < size; i = at(i).next) work.ids.push_back(at(i).id);
  }

  std::string file_;
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, std::string> tokens_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::array<std::int32_t, 256> byte_ids_{};   // of "<0x00>" to "<0xFF>"; -1: none
  std::array<std::int32_t, 128> ascii_ids_{};  // the same of characters
  std::int32_t max_id_ = -1;
  bool ignore_merges_, byte_fallback_, fuse_unknown_, leave_out_;
  std::int32_t unknown_;  // -1: none
};

}  // namespace detail

}  // namespace pare
