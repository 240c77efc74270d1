// Numbers as text.
#pragma once

#include <charconv>
#include <string>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// The shortest text that reads back as the number.
inline std::string number_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace pare
