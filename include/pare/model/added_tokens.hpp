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

#include "pare/model/byte_level.hpp"

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
      : tokens_(std::move(tokens)), word_(word_pattern) {
    std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
      return a.content < b.content;  // by bytes
    });
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
  /// A character of a word as Unicode's UTS 18 has it: letters, marks, digits, what joins words.
  static constexpr std::string_view word_pattern =
      R"([\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200C}\x{200D}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149})"
      R"(\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}])";

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
    return at < text.size() && word_.end_of_match(text, at, match) != text.npos;
  }
  bool word_before(std::string_view text, std::size_t at, Regex::Match& match) const {
    if (at == 0) return false;
    do {
      --at;
    } while (at > 0 && (text[at] & 0xc0) == 0x80);  // the first byte of the character
    return word_at(text, at, match);
  }

  static constexpr std::array<std::string_view, 25> spaces{
      "\t",           "\n",           "\v",
      "\f",           "\r",           " ",
      "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80",
      "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82",
      "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85",
      "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
      "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
      "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f",
      "\xe3\x80\x80"};
  /// Bytes of the white-space character at `at`, 0 when there is none.
  static std::size_t space_at(std::string_view text, std::size_t at) {
    for (const std::string_view space : spaces)
      if (text.substr(at).starts_with(space)) return space.size();
    return 0;
  }
  /// The same of the character in front of `at`.
  static std::size_t space_before(std::string_view text, std::size_t at) {
    for (const std::string_view space : spaces)
      if (text.substr(0, at).ends_with(space)) return space.size();
    return 0;
  }

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};
  Regex word_;
};

}  // namespace detail

}  // namespace pare
