// Tokens that are found in a text before anything else is done with it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/tokenizer/oniguruma.hpp"
#include "pare/tokenizer/regex.hpp"
#include "pare/tokenizer/utf8.hpp"

namespace pare::inline PARE_TARGET {

/// A token that is a literal text: wherever the text occurs, it becomes the id. Field for field
/// what `tokenizer.json` says of it.
struct AddedToken {
  /// The text, not empty.
  std::string content;
  /// What it becomes.
  std::int32_t id = 0;
  bool single_word = false;  ///< not beside a letter, a digit or an underscore
  bool lstrip = false;       ///< takes white space before it along
  bool rstrip = false;       ///< takes white space after it along
  bool normalized = false;   ///< looked for in what tokens that are not normalized have left
  bool special = false;      ///< such as the beginning of a text; changes nothing here

  /// Memberwise.
  bool operator==(const AddedToken&) const = default;
};

namespace detail {

/// Added tokens that are looked for together: the leftmost, and the longest of those.
class AddedTokenSet {
 public:
  explicit AddedTokenSet(std::vector<AddedToken> tokens = {})
      : tokens_(std::move(tokens)), word_(word_pattern(), "Tokenizer", true) {
    // By bytes. Of two with the same text, which normalizers can make of different ones, a special
    // token goes first, then the one that was added before.
    std::ranges::stable_sort(tokens_, [](const AddedToken& a, const AddedToken& b) {
      return a.content != b.content ? a.content < b.content : a.special && !b.special;
    });
    // Clang before 16 cannot compile std::ranges::unique of GCC's standard library.
    const auto same = [](const AddedToken& a, const AddedToken& b) {
      return a.content == b.content;
    };
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
    for (const AddedToken& token : tokens_)
      begins_[static_cast<unsigned char>(token.content.front())] = true;
  }

  bool empty() const { return tokens_.empty(); }

  /// Calls between(part) for every part of `text` between added tokens and found(token) for each of
  /// these, in order. No part is empty.
  template <class Between, class Found>
  void split(std::string_view text, Regex::Match& match, const Between& between,
             const Found& found) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
      const AddedToken* token = longest(text.substr(at));
      if (token == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + token->content.size();
      at = end;
      if (token->single_word && (word_before(text, begin, match) || word_at(text, end, match)))
        continue;
      if (token->lstrip) {
        while (const std::size_t width = begin > done ? space_before(text, begin) : 0)
          begin -= width;
        begin = std::max(begin, done);
      }
      if (token->rstrip)
        while (const std::size_t width = space_at(text, end)) end += width;
      if (done < begin) between(text.substr(done, begin - done));
      // A token may begin in the white space that the one before has taken along; what happens then
      // is what the tokenizers of Hugging Face do.
      if (begin < end) found(*token);
      done = end;
    }
    if (done < text.size()) between(text.substr(done));
  }

 private:
  /// A character of a word as Unicode's UTS 18 has it: with what joins characters.
  static std::string word_pattern() {
    return "[" + std::string(word_set.members) + "\\x{200C}\\x{200D}]";
  }

  /// The longest token with which `text` begins; null where none does.
  const AddedToken* longest(std::string_view text) const {
    if (!begins_[static_cast<unsigned char>(text.front())]) return nullptr;
    const AddedToken* found = nullptr;
    auto first = tokens_.begin(), last = tokens_.end();  // those that begin as the text does
    for (std::size_t depth = 0; first != last; ++depth) {
      if (first->content.size() == depth) found = &*first++;  // the shortest comes first
      if (depth == text.size()) break;
      const auto byte = [&](const AddedToken& token) {
        return static_cast<unsigned char>(token.content[depth]);
      };
      const auto next = static_cast<unsigned char>(text[depth]);
      first = std::partition_point(first, last, [&](const auto& t) { return byte(t) < next; });
      last = std::partition_point(first, last, [&](const auto& t) { return byte(t) <= next; });
    }
    return found;
  }

  bool word_at(std::string_view text, std::size_t at, Regex::Match& match) const {
    return at < text.size() && word_.find(text, at, match).has_value();
  }
  bool word_before(std::string_view text, std::size_t at, Regex::Match& match) const {
    if (at == 0) return false;
    do {
      --at;
    } while (at > 0 && (text[at] & 0xc0) == 0x80);  // the first byte of the character
    return word_at(text, at, match);
  }

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};
  Regex word_;
};

}  // namespace detail

}  // namespace pare
