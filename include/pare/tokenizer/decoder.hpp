// How tokens become a text again.
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/tokenizer/byte_level.hpp"
#include "pare/tokenizer/normalizer.hpp"
#include "pare/tokenizer/text_pattern.hpp"

namespace pare::inline PARE_TARGET {

/// Tokens of byte-level vocabularies become their bytes.
struct ReadBytesStep {
  /// Memberwise.
  bool operator==(const ReadBytesStep&) const = default;
};

/// "<0x0A>" becomes a byte.
struct ReadByteTokensStep {
  /// Memberwise.
  bool operator==(const ReadByteTokensStep&) const = default;
};

/// All tokens become one.
struct FuseStep {
  /// Memberwise.
  bool operator==(const FuseStep&) const = default;
};

/// Takes a character off the ends of each token.
struct TrimStep {
  /// The character.
  std::string content;
  std::size_t start = 0;  ///< at most so many at the beginning
  std::size_t stop = 0;   ///< at most so many at the end
  /// Memberwise.
  bool operator==(const TrimStep&) const = default;
};

/// A character in the place of spaces becomes a space, or nothing in the first token.
struct ReadSpacesStep {
  /// The character.
  std::string replacement;
  /// Whether a text begins with one that is not in it.
  bool prepended = true;
  /// Memberwise.
  bool operator==(const ReadSpacesStep&) const = default;
};

/// One step of a decoder.
using DecoderStep = std::variant<ReadBytesStep, ReadByteTokensStep, FuseStep, TrimStep,
                                 ReadSpacesStep, ReplaceStep>;

namespace detail {

/// The steps of a decoder, ready for use. Immutable.
class Decoder {
 public:
  /// @param who  what messages begin with
  /// @throws format_error for a pattern that is not understood
  Decoder(std::vector<DecoderStep> steps, const std::string& who) : steps_(std::move(steps)) {
    for (const DecoderStep& step : steps_)
      if (const auto* replace = std::get_if<ReplaceStep>(&step))
        finders_.emplace_back(replace->pattern, who);
  }

  /// A token on its way to a text.
  struct Token {
    std::string text;
    bool literal;  ///< an added token, which is spelled as it stands
  };

  /// The bytes that tokens stand for.
  std::string text(std::vector<Token> tokens) const {
    Regex::Match match;
    auto finder = finders_.begin();
    for (const DecoderStep& step : steps_) {
      if (std::holds_alternative<FuseStep>(step)) {
        if (!tokens.empty()) tokens = {{joined(tokens), false}};
        continue;
      }
      for (std::size_t i = 0; i < tokens.size(); ++i)
        if (!tokens[i].literal) apply(step, finder, i == 0, tokens[i].text, match);
      if (std::holds_alternative<ReplaceStep>(step)) ++finder;
    }
    return joined(tokens);
  }

 private:
  using Finder = std::vector<PatternFinder>::const_iterator;

  static std::string joined(const std::vector<Token>& tokens) {
    std::string text;
    for (const Token& token : tokens) text += token.text;
    return text;
  }

  void apply(const DecoderStep& step, Finder finder, bool first, std::string& text,
             Regex::Match& match) const {
    if (const auto* replace = std::get_if<ReplaceStep>(&step)) {
      text = finder->replaced(text, replace->content, match);
    } else if (const auto* trim = std::get_if<TrimStep>(&step)) {
      const std::string& end = trim->content;
      for (std::size_t i = 0; i < trim->start && text.starts_with(end); ++i)
        text.erase(0, end.size());
      for (std::size_t i = 0; i < trim->stop && text.ends_with(end); ++i)
        text.erase(text.size() - end.size());
    } else if (const auto* spaces = std::get_if<ReadSpacesStep>(&step)) {
      read_spaces(*spaces, first, text);
    } else if (std::holds_alternative<ReadByteTokensStep>(step)) {
      if (const auto byte = byte_of(text)) text = std::string(1, *byte);
    } else if (auto bytes = spelling_.bytes(text)) {
      text = std::move(*bytes);
    }
  }

  static void read_spaces(const ReadSpacesStep& step, bool first, std::string& text) {
    const std::string_view content = first && step.prepended ? "" : " ";
    for (std::size_t at = text.find(step.replacement); at != text.npos;
         at = text.find(step.replacement, at + content.size()))
      text.replace(at, step.replacement.size(), content);
  }

  /// The byte in "<0x0A>".
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>'))
      return std::nullopt;
    unsigned char byte = 0;
    const auto [end, failure] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
    if (failure != std::errc() || end != token.data() + 5) return std::nullopt;
    return static_cast<char>(byte);
  }

  std::vector<DecoderStep> steps_;
  std::vector<PatternFinder> finders_;  // of the ReplaceSteps, in their order
  ByteSpelling spelling_;
};

}  // namespace detail

}  // namespace pare
