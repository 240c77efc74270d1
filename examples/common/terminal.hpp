// What the terminal can show: its width, and whether a line on it can be rewritten.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace tool {

/// Columns of the terminal that a file descriptor writes to; 80 where it does not say.
inline int terminal_columns(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// Whether a file descriptor writes to a terminal that takes control sequences.
inline bool can_rewrite_lines(int descriptor) {
  const char* const name = std::getenv("TERM");
  return ::isatty(descriptor) == 1 && name != nullptr && *name != '\0' &&
         std::string_view(name) != "dumb";
}

}  // namespace tool
