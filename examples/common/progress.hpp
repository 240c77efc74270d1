// Progress of long work, on standard error.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "common/terminal.hpp"

namespace tool {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// At most the first `columns` columns of a text, without control characters. What is not ASCII is
/// never cut within a character, and counts as two columns, the most that a character takes.
inline std::string cut_to_columns(std::string_view text, int columns) {
  std::string shown;
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    std::size_t end = i + 1;
    while (first >= 0x80 && end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
    columns -= first < 0x80 ? 1 : 2;
    if (columns < 0) break;
    if (first < 0x20 || first == 0x7F)
      shown += '?';
    else
      shown += text.substr(i, end - i);
    i = end;
  }
  return shown;
}

/// "WHAT:  42 %, 3 s left" in at most `columns` columns: what is too long of WHAT becomes "...".
inline std::string progress_text(std::string_view what, double share, double seconds_left,
                                 int columns) {
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, ": %3.0f %%, %.0f s left", 100 * share, seconds_left);
  const int left = columns - int(std::string_view(numbers).size());
  std::string name = cut_to_columns(what, left);
  if (name.size() < what.size()) name = left > 3 ? cut_to_columns(what, left - 3) + "..." : "";
  return cut_to_columns(name + numbers, columns);
}

/// Progress with the time left: one line rewritten on a terminal, otherwise a line now and then, so
/// that logs stay short.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what)
      : what_(std::move(what)), rewrites_(can_rewrite_lines(STDERR_FILENO)) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }

  /// @param share  done, 0..1
  void advance(double share) {
    const double elapsed = seconds_since(start_);
    if (elapsed - shown_ < (rewrites_ ? 0.2 : 10.0)) return;
    shown_ = elapsed;
    const double left = share > 0 ? elapsed * (1 - share) / share : 0;
    if (rewrites_) {  // the last column stays free: some terminals begin a line after it
      const int columns = terminal_columns(STDERR_FILENO) - 1;
      std::fprintf(stderr, "\r\033[K%s", progress_text(what_, share, left, columns).c_str());
    } else {
      std::fprintf(stderr, "%s\n", progress_text(what_, share, left, 1000).c_str());
    }
    std::fflush(stderr);
    dirty_ = rewrites_;
  }
  void clear() {
    if (dirty_) std::fputs("\r\033[K", stderr);
    dirty_ = false;
  }

 private:
  std::string what_;
  bool rewrites_, dirty_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double shown_ = 0;
};

}  // namespace tool
