// Regular expressions as tokenizer.json has them, for PCRE2.
#pragma once

// The names with the suffix _8 are used throughout, so a program may choose another default.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/tokenizer/utf8.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Members of a character class, without the brackets, and those of its complement; these are empty
/// where nothing but a pair of brackets can say it.
struct CharacterSet {
  std::string_view members, others;
};

/// White space of Unicode. PCRE2's own \s takes in U+180E, which is none any more.
inline constexpr CharacterSet space_set{
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F})"
    R"(\x{3000})",
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF})"
    R"(\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})"};
/// Letters, marks, digits and what joins words; PCRE2's own \w lacks marks.
inline constexpr CharacterSet word_set{
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169})"
    R"(\x{1F170}-\x{1F189})",
    ""};
/// Hexadecimal digits, which PCRE2 has no letter for.
inline constexpr CharacterSet hexadecimal_set{
    R"(0-9A-Fa-f)", R"(\x{0}-\x{2F}\x{3A}-\x{40}\x{47}-\x{60}\x{67}-\x{10FFFF})"};

/// Writes a pattern of Oniguruma in the syntax of Ruby, which the tokenizers of Hugging Face use,
/// as PCRE2 reads it (with UTF, UCP and MULTILINE). What the two understand alike is copied.
class OnigurumaPattern {
 public:
  /// @param who  what messages begin with
  /// @throws format_error for an intersection of character classes, a negated class within another,
  ///         and escapes that have no counterpart
  OnigurumaPattern(std::string_view pattern, std::string who)
      : pattern_(pattern), who_(std::move(who)) {
    while (at_ < pattern_.size()) step();
  }

  const std::string& translated() const { return out_; }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(std::size_t bytes) {
    out_ += pattern_.substr(at_, bytes);
    at_ += bytes;
  }
  void copy_character() { copy(utf8_length(peek())); }
  [[noreturn]] void refuse(const std::string& what) const {
    throw format_error(who_ + ": the regular expression " + quoted_name(pattern_) + " has " + what +
                       ", which is not supported");
  }

  /// An atom, or what stands between atoms.
  void step() {
    switch (peek()) {
      case '\\':
        atom_ = out_.size();
        return escape(false);
      case '[':
        atom_ = out_.size();
        return character_class();
      case '(':
        return open_group();
      case ')':
        if (!groups_.empty()) {
          atom_ = groups_.back();
          groups_.pop_back();
        }
        return copy(1);
      case '{':
        return interval();
      case '*':
      case '+':
      case '?':
      case '|':
        return copy(1);
      default:
        atom_ = out_.size();
        return copy_character();
    }
  }

  void open_group() {
    const std::size_t start = out_.size();
    copy(1);
    if (peek() != '?') return groups_.push_back(start);
    copy(1);
    while (std::string_view("imx-").find(peek()) != std::string_view::npos && peek() != '\0') {
      out_ += peek() == 'm' ? 's' : peek();  // Ruby's m lets a dot match a line's end
      ++at_;
    }
    if (peek() == ')') return copy(1);  // options from here on, no group
    groups_.push_back(start);
  }

  /// {n,m} after an atom. A + after it makes no possessive of it in Ruby, nor a ? after {n} a lazy
  /// one: they repeat the repetition.
  void interval() {
    std::size_t end = at_ + 1;
    const auto digits = [&] {
      const std::size_t first = end;
      while (end < pattern_.size() && pattern_[end] >= '0' && pattern_[end] <= '9') ++end;
      return pattern_.substr(first, end - first);
    };
    const std::string_view least = digits();
    const bool comma = end < pattern_.size() && pattern_[end] == ',';
    if (comma) ++end;
    const std::string_view most = comma ? digits() : std::string_view();
    const bool valid =
        end < pattern_.size() && pattern_[end] == '}' && !(least.empty() && most.empty());
    if (!valid) {
      atom_ = out_.size();
      out_ += "\\{";
      ++at_;
      return;
    }
    out_ += '{';
    out_ += least.empty() ? "0" : least;
    if (comma) out_ += ',';
    out_ += most;
    out_ += '}';
    at_ = end + 1;
    if (peek() == '+' || (peek() == '?' && !comma)) {
      out_.insert(atom_, "(?:");
      out_ += ')';
      copy(1);
    }
  }

  void character_class() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') {  // first, it is a member
      out_ += "\\]";
      ++at_;
    }
    members();
    out_ += ']';
  }

  /// The members of a class up to its closing bracket, which is read, not written. A class among
  /// them adds its own.
  void members() {
    while (true) {
      if (at_ >= pattern_.size()) refuse("a character class without an end");
      if (peek() == ']') {
        ++at_;
        return;
      }
      if (peek() == '&' && peek(1) == '&') refuse("an intersection of character classes");
      if (peek() == '\\') {
        escape(true);
      } else if (peek() == '[' && peek(1) == ':') {
        posix_class();
      } else if (peek() == '[') {
        if (peek(1) == '^') refuse("a negated character class within another");
        ++at_;
        members();
      } else {
        copy_character();
      }
    }
  }

  /// [:space:] and the like among members. What others hold is not the same in PCRE2.
  void posix_class() {
    const std::size_t end = pattern_.find(":]", at_);
    const std::string_view name =
        end == pattern_.npos ? std::string_view() : pattern_.substr(at_ + 2, end - at_ - 2);
    if (name == "space")
      out_ += space_set.members;
    else if (name == "word")
      out_ += word_set.members;
    else if (name == "digit")
      out_ += R"(\p{Nd})";
    else if (name == "xdigit")
      out_ += hexadecimal_set.members;
    else
      refuse("a bracket other than [:space:], [:word:], [:digit:] and [:xdigit:]");
    at_ = end + 2;
  }

  void set(const CharacterSet& set, bool negated, bool in_class) {
    at_ += 2;
    if (!in_class) {
      out_ += negated ? "[^" : "[";
      out_ += set.members;
      out_ += ']';
    } else if (!negated) {
      out_ += set.members;
    } else if (!set.others.empty()) {
      out_ += set.others;
    } else {
      refuse("a negated character class within another");
    }
  }

  void escape(bool in_class) {
    const char letter = peek(1);
    switch (letter) {
      case 's':
      case 'S':
        return set(space_set, letter == 'S', in_class);
      case 'w':
      case 'W':
        return set(word_set, letter == 'W', in_class);
      case 'h':
      case 'H':
        return set(hexadecimal_set, letter == 'H', in_class);
      case 'v':
        at_ += 2;
        out_ += "\\x{B}";
        return;
      case 'u':
        if (at_ + 6 > pattern_.size()) refuse("an escape that is cut");
        out_ += "\\x{" + std::string(pattern_.substr(at_ + 2, 4)) + "}";
        at_ += 6;
        return;
      case 'b':
      case 'B':
        if (in_class) return copy(2);
        at_ += 2;
        return boundary(letter == 'B');
      case 'p':
      case 'P':
        return property();
      case 'Q':
      case 'E':
      case 'C':
      case '\0':
        refuse(std::string("the escape \\") + (letter == '\0' ? ' ' : letter));
      default:
        copy(1);
        return copy_character();
    }
  }

  /// \b or \B by the characters of words as Oniguruma has them, which here are some more.
  void boundary(bool negated) {
    const std::string word =
        "[" + std::string(word_set.members) + R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}])";
    out_ += negated ? "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))"
                    : "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
  }

  /// \p{NAME}: PCRE2 knows the general categories by their short names alone.
  void property() {
    static constexpr std::pair<std::string_view, std::string_view> categories[] = {
        {"Letter", "L"},
        {"Lowercase_Letter", "Ll"},
        {"Uppercase_Letter", "Lu"},
        {"Titlecase_Letter", "Lt"},
        {"Modifier_Letter", "Lm"},
        {"Other_Letter", "Lo"},
        {"Mark", "M"},
        {"Nonspacing_Mark", "Mn"},
        {"Spacing_Mark", "Mc"},
        {"Enclosing_Mark", "Me"},
        {"Number", "N"},
        {"Decimal_Number", "Nd"},
        {"Letter_Number", "Nl"},
        {"Other_Number", "No"},
        {"Punctuation", "P"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Other", "C"}};
    const std::size_t end = pattern_.find('}', at_);
    if (peek(2) != '{' || end == pattern_.npos) refuse("a property without a name in braces");
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    out_ += pattern_.substr(at_, 3);
    if (name.starts_with('^')) {
      out_ += '^';
      name.remove_prefix(1);
    }
    const auto* known = std::ranges::find(categories, name, [](const auto& c) { return c.first; });
    if (known != std::end(categories))
      out_ += known->second;
    else
      out_ += script(name) ? "sc:" + std::string(name) : std::string(name);
    out_ += '}';
    at_ = end + 1;
  }

  /// Whether a property is a script that PCRE2 must be told to take by itself: from 10.40 on its
  /// scripts hold what others share with them, too.
  static bool script(std::string_view name) {
    static constexpr std::string_view others[] = {
        "Any",         "ASCII", "Alphabetic", "Uppercase",          "Lowercase",
        "White_Space", "Math",  "Emoji",      "Emoji_Presentation", "Extended_Pictographic",
        "Ideographic"};
    return PCRE2_MAJOR * 100 + PCRE2_MINOR >= 1040 && name.size() > 2 &&
           std::ranges::find(others, name) == std::end(others);
  }

  std::string_view pattern_;
  std::string who_, out_;
  std::size_t at_ = 0;
  std::size_t atom_ = 0;             ///< where in `out_` the atom before begins
  std::vector<std::size_t> groups_;  ///< where in `out_` open groups begin
};

}  // namespace detail

}  // namespace pare
