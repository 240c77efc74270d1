// UTF-8: what is valid, where characters begin, which are white space.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "pare/core/config.hpp"

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

/// Bytes of the valid UTF-8 character whose first byte this is.
inline std::size_t utf8_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/// Number of characters of a valid text.
inline std::size_t utf8_characters(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (c & 0xc0) != 0x80;
  return count;
}

/// What Unicode calls white space.
inline constexpr std::array<std::string_view, 25> white_space{
    "\t",           "\n",           "\v",           "\f",           "\r",           " ",
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82",
    "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
    "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f",
    "\xe3\x80\x80"};

/// Bytes of the white-space character at `at`, 0 when there is none.
inline std::size_t space_at(std::string_view text, std::size_t at) {
  for (const std::string_view space : white_space)
    if (text.substr(at).starts_with(space)) return space.size();
  return 0;
}

/// The same of the character in front of `at`.
inline std::size_t space_before(std::string_view text, std::size_t at) {
  for (const std::string_view space : white_space)
    if (text.substr(0, at).ends_with(space)) return space.size();
  return 0;
}

}  // namespace detail

}  // namespace pare
