// Numbers and names as text.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

/// The shortest text that reads back as the number.
inline std::string number_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

namespace detail {

/// `name` in quotes for a one-line message: control bytes escaped, cut after about 100 bytes.
inline std::string quoted_name(std::string_view name) {
  std::size_t keep = std::min<std::size_t>(name.size(), 100);
  while (keep < name.size() && keep > 0 && (name[keep] & 0xc0) == 0x80) --keep;  // whole character
  std::string text = "'";
  for (const char c : name.substr(0, keep)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      text += c;
    } else {
      text += "\\x";
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
  }
  return text + (keep < name.size() ? "...'" : "'");
}

/// The whole number that all of `text` is, where a file has a number as the name of something.
/// Throws format_error that begins with `who`.
template <class Integer>
Integer whole_number_of_text(std::string_view text, const std::string& who) {
  Integer value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (stop != end || error != std::errc())
    throw format_error(who + ": expected a whole number, got " + quoted_name(text));
  return value;
}

}  // namespace detail

}  // namespace pare
