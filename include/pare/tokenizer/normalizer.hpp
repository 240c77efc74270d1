// What is done to a text before it is cut: normal forms of Unicode, replacements. Needs utf8proc.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/tokenizer/text_pattern.hpp"
#include "pare/tokenizer/utf8.hpp"

namespace pare::inline PARE_TARGET {

/// Puts a text in front of another that is not empty.
struct PrependStep {
  /// What goes in front.
  std::string text;
  /// Memberwise.
  bool operator==(const PrependStep&) const = default;
};

/// Replaces what matches.
struct ReplaceStep {
  /// What is looked for.
  TextPattern pattern;
  /// What stands in its place, to the letter.
  std::string content;
  /// Memberwise.
  bool operator==(const ReplaceStep&) const = default;
};

/// Brings a text into a normal form of Unicode.
enum class UnicodeForm { NFC, NFD, NFKC, NFKD };

/// Puts each character into lower case by itself.
struct LowercaseStep {
  /// Memberwise.
  bool operator==(const LowercaseStep&) const = default;
};

/// Takes white space off the ends.
struct StripStep {
  bool left = true;   ///< at the beginning
  bool right = true;  ///< at the end
  /// Memberwise.
  bool operator==(const StripStep&) const = default;
};

/// One step of a normalizer.
using NormalizerStep =
    std::variant<PrependStep, ReplaceStep, UnicodeForm, LowercaseStep, StripStep>;

namespace detail {

/// A valid text in a normal form. Throws error when utf8proc fails.
inline std::string unicode_form(std::string_view text, UnicodeForm form) {
  const bool ascii = std::ranges::all_of(text, [](char c) { return (c & 0x80) == 0; });
  if (ascii) return std::string(text);
  int options = UTF8PROC_STABLE;
  const bool composed = form == UnicodeForm::NFC || form == UnicodeForm::NFKC;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == UnicodeForm::NFKC || form == UnicodeForm::NFKD) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   utf8proc_ssize_t(text.size()), &mapped, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (size < 0)
    throw error(std::string("Tokenizer: utf8proc cannot normalize a text: ") +
                utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(mapped), std::size_t(size)};
}

/// A valid text with each character in lower case.
inline std::string lowercase(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t code = 0;
    const auto* start = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
    at += std::size_t(utf8proc_iterate(start, utf8proc_ssize_t(text.size() - at), &code));
    if (code == 0x130) {  // of all characters the one whose lower case is two
      result += "i\xcc\x87";
      continue;
    }
    utf8proc_uint8_t bytes[4];
    const auto size = utf8proc_encode_char(utf8proc_tolower(code), bytes);
    result.append(reinterpret_cast<const char*>(bytes), std::size_t(size));
  }
  return result;
}

/// A text without the white space at its ends.
inline std::string_view stripped(std::string_view text, const StripStep& step) {
  if (step.left)
    while (const std::size_t width = space_at(text, 0)) text.remove_prefix(width);
  if (step.right)
    while (const std::size_t width = space_before(text, text.size())) text.remove_suffix(width);
  return text;
}

/// The steps of a normalizer, ready for use. Immutable.
class Normalizer {
 public:
  /// @param who  what messages begin with
  /// @throws format_error for a pattern that is not understood
  Normalizer(std::vector<NormalizerStep> steps, const std::string& who) : steps_(std::move(steps)) {
    for (const NormalizerStep& step : steps_)
      if (const auto* replace = std::get_if<ReplaceStep>(&step))
        finders_.emplace_back(replace->pattern, who);
  }

  bool empty() const { return steps_.empty(); }

  /// A valid text after all steps.
  std::string apply(std::string_view text, Regex::Match& match) const {
    std::string result(text);
    auto finder = finders_.begin();
    for (const NormalizerStep& step : steps_) {
      if (const auto* prepend = std::get_if<PrependStep>(&step)) {
        if (!result.empty()) result.insert(0, prepend->text);
      } else if (const auto* replace = std::get_if<ReplaceStep>(&step)) {
        result = finder++->replaced(result, replace->content, match);
      } else if (const auto* form = std::get_if<UnicodeForm>(&step)) {
        result = unicode_form(result, *form);
      } else if (const auto* strip = std::get_if<StripStep>(&step)) {
        result = std::string(stripped(result, *strip));
      } else {
        result = lowercase(result);
      }
    }
    return result;
  }

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<PatternFinder> finders_;  // of the ReplaceSteps, in their order
};

}  // namespace detail

}  // namespace pare
