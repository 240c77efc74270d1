// What byte-level tokenizers do with a text before they merge: its bytes as characters, its pieces.
#pragma once

// The names with the suffix _8 are used throughout, so a program may choose another default.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "pare/core/error.hpp"

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

/// A compiled regular expression that is tried at one place of a valid UTF-8 text at a time.
/// Immutable: copies share it, and threads may.
class Regex {
 public:
  explicit Regex(std::string_view pattern) {
    int code = 0;
    std::size_t offset = 0;
    pcre2_code_8* compiled =
        pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern.data()), pattern.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &offset, nullptr);
    if (compiled == nullptr)
      throw error("Tokenizer: PCRE2 does not compile the pattern (error " + std::to_string(code) +
                  "); it needs a PCRE2 built with Unicode support");
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

  /// The end of what matches at byte `at`; npos when nothing does.
  std::size_t end_of_match(std::string_view text, std::size_t at, Match& match) const {
    const int found =
        pcre2_match_8(code_.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), at,
                      PCRE2_NO_UTF_CHECK, match.data_.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) return std::string_view::npos;
    if (found < 0)
      throw error("Tokenizer: PCRE2 failed at byte " + std::to_string(at) + " (error " +
                  std::to_string(found) + ")");
    return pcre2_get_ovector_pointer_8(match.data_.get())[1];
  }

 private:
  std::shared_ptr<const pcre2_code_8> code_;
};

/// The pattern of GPT-2 that cuts a text into the pieces merges never cross.
inline Regex byte_level_pattern() {
  // White space is spelled out: \s would take in U+180E, which is none in Unicode any more.
  return Regex(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{Z}\x{09}-\x{0D}\x{85}\p{L}\p{N}]+)"
      R"(|[\p{Z}\x{09}-\x{0D}\x{85}]+(?![^\p{Z}\x{09}-\x{0D}\x{85}])|[\p{Z}\x{09}-\x{0D}\x{85}]+)");
}

}  // namespace detail

}  // namespace pare
