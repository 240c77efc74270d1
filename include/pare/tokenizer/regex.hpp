// Regular expressions over valid UTF-8, by PCRE2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/tokenizer/oniguruma.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// A compiled regular expression. Immutable: copies share it, and threads may.
class Regex {
 public:
  /// Where something matches, in bytes; may be empty.
  struct Range {
    std::size_t begin, end;
  };

  /// @param pattern   in the syntax of Oniguruma
  /// @param who       what messages begin with
  /// @param anchored  matches begin where they are looked for
  /// @throws format_error for a pattern that is none, or is not supported
  Regex(std::string_view pattern, const std::string& who, bool anchored = false) {
    const std::string translated = OnigurumaPattern(pattern, who).translated();
    const std::unique_ptr<pcre2_compile_context_8, decltype(&pcre2_compile_context_free_8)> context(
        pcre2_compile_context_create_8(nullptr), &pcre2_compile_context_free_8);
    if (!context) throw std::bad_alloc();
    pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
    int code = 0;
    std::size_t offset = 0;
    pcre2_code_8* compiled =
        pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                            (anchored ? std::uint32_t(PCRE2_ANCHORED) : 0),
                        &code, &offset, context.get());
    if (compiled == nullptr)
      throw format_error(who + ": the regular expression " + quoted_name(pattern) +
                         " is not understood by PCRE2: " + message(code));
    code_ = {compiled,
             [](const pcre2_code_8* p) { pcre2_code_free_8(const_cast<pcre2_code_8*>(p)); }};
    // Without a just-in-time compiler the interpreter matches the same, only slower.
    (void)pcre2_jit_compile_8(compiled, PCRE2_JIT_COMPLETE);
  }

  /// Memory for matches; one thread uses it at a time.
  class Match {
   public:
    Match() : data_(pcre2_match_data_create_8(1, nullptr)) {
      if (!data_) throw std::bad_alloc();
    }

   private:
    friend class Regex;
    struct Free {
      void operator()(pcre2_match_data_8* p) const { pcre2_match_data_free_8(p); }
    };
    std::unique_ptr<pcre2_match_data_8, Free> data_;
  };

  /// The first match from byte `at` on, which begins a character or ends the text.
  /// @throws error when PCRE2 gives up, as on a pattern that tries too many ways
  std::optional<Range> find(std::string_view text, std::size_t at, Match& match) const {
    const auto search = [&](std::uint32_t options) {
      return pcre2_match_8(code_.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), at,
                           options, match.data_.get(), nullptr);
    };
    int found = search(PCRE2_NO_UTF_CHECK);
    // Compiled code has a small stack, the interpreter the heap.
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = search(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (found < 0)
      throw error("Tokenizer: PCRE2 gives up at byte " + std::to_string(at) + ": " +
                  message(found));
    const std::size_t* range = pcre2_get_ovector_pointer_8(match.data_.get());
    if (range[0] < at || range[1] < range[0])
      throw error("Tokenizer: a match ends before it begins, at byte " + std::to_string(at));
    return Range{range[0], range[1]};
  }

  /// Calls found(range) for each match from left to right. An empty match that begins where the one
  /// before ends is none.
  template <class Found>
  void for_each(std::string_view text, Match& match, const Found& found) const {
    std::size_t last = text.npos;
    for (std::size_t at = 0; at <= text.size();) {
      const std::optional<Range> range = find(text, at, match);
      if (!range) return;
      if (range->begin == range->end && range->end == last) {
        at += at < text.size() ? utf8_length(text[at]) : 1;
        continue;
      }
      at = last = range->end;
      found(*range);
    }
  }

 private:
  static std::string message(int code) {
    PCRE2_UCHAR8 text[128] = {};
    pcre2_get_error_message_8(code, text, sizeof text);
    return reinterpret_cast<const char*>(text);
  }

  std::shared_ptr<const pcre2_code_8> code_;
};

}  // namespace detail

}  // namespace pare
