// What steps of a tokenizer look for in a text: a literal or a regular expression.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "pare/core/error.hpp"
#include "pare/tokenizer/regex.hpp"

namespace pare::inline PARE_TARGET {

/// A literal text or a regular expression.
struct TextPattern {
  /// Not empty.
  std::string text;
  /// In the syntax of Oniguruma, as `tokenizer.json` has it.
  bool regex = false;
  /// Memberwise.
  bool operator==(const TextPattern&) const = default;
};

namespace detail {

/// A pattern ready for use. Immutable.
class PatternFinder {
 public:
  /// @param who  what messages begin with
  /// @throws format_error as Regex, and for a pattern without text
  PatternFinder(const TextPattern& pattern, const std::string& who) : literal_(pattern.text) {
    if (pattern.text.empty()) throw format_error(who + ": the pattern is empty");
    if (pattern.regex) regex_.emplace(pattern.text, who);
  }

  /// Calls found(range) for each match from left to right.
  template <class Found>
  void for_each(std::string_view text, Regex::Match& match, const Found& found) const {
    if (regex_) return regex_->for_each(text, match, found);
    for (std::size_t at = text.find(literal_); at != text.npos;) {
      const std::size_t end = at + literal_.size();
      found(Regex::Range{at, end});
      at = text.find(literal_, end);
    }
  }

  /// The text with `content` in the place of each match.
  std::string replaced(std::string_view text, std::string_view content, Regex::Match& match) const {
    std::string result;
    result.reserve(text.size() + text.size() / 2);
    std::size_t done = 0;
    for_each(text, match, [&](Regex::Range range) {
      result += text.substr(done, range.begin - done);
      result += content;
      done = range.end;
    });
    result += text.substr(done);
    return result;
  }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace detail

}  // namespace pare
