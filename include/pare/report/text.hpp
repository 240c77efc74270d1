// Statistics as a table for people.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

#include "pare/report/statistics.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

template <class... Args>
std::string format_text(const char* format, Args... args) {
  const int length = std::snprintf(nullptr, 0, format, args...);
  std::string text(std::size_t(length), '\0');
  std::snprintf(text.data(), text.size() + 1, format, args...);
  return text;
}

inline std::string bits_text(const std::optional<double>& bits) {
  return bits ? format_text("%.3f", *bits) : "-";
}

}  // namespace detail

/// The header above linear_line().
inline std::string linear_header() {
  return detail::format_text("%-28s %13s %7s %9s %12s %8s", "linear", "shape", "bits", "sparsity",
                             "loss", "seconds");
}

/// One line: name, shape, mean bits, sparsity, loss, seconds; where more than a greedy mask was
/// asked for, what was kept and the loss of the greedy result.
inline std::string linear_line(const LinearStatistics& linear) {
  const std::string shape = std::to_string(linear.rows) + " x " + std::to_string(linear.columns);
  std::string line =
      detail::format_text("%-28s %13s %7s %8.2f%% %12.5g %8.3f", linear.name.c_str(), shape.c_str(),
                          detail::bits_text(linear.average_bits).c_str(), 100 * linear.sparsity,
                          linear.loss, linear.seconds);
  if (linear.damping_retries > 0)
    line += detail::format_text("  (damping raised to %g)", linear.damping);
  if (linear.greedy_loss)
    line += linear.loss < *linear.greedy_loss
                ? detail::format_text("  (%s; greedy %.5g)", linear.mask_search.c_str(),
                                      *linear.greedy_loss)
                : "  (greedy kept)";
  return line;
}

/// The score of every linear that has one: mean bits and the range of the score.
inline std::string score_table(const Statistics& statistics) {
  std::string text;
  for (const LinearStatistics& linear : statistics.linears) {
    if (!linear.score) continue;
    if (text.empty())
      text = detail::format_text("%-28s %7s %12s %12s %12s\n", "importance score", "bits", "lowest",
                                 "mean", "highest");
    text += detail::format_text("%-28s %7s %12.5g %12.5g %12.5g\n", linear.name.c_str(),
                                detail::bits_text(linear.average_bits).c_str(),
                                linear.score->lowest, linear.score->mean, linear.score->highest);
  }
  return text;
}

/// Totals: channels, count and share per width, mean bits, sparsity, loss, what of it is due to the
/// type that is stored, seconds.
inline std::string totals_text(const Statistics& statistics) {
  const Totals t = totals(statistics);
  std::string text =
      detail::format_text("linears            %td, %td weights\n", t.linears, t.weights);
  if (t.channels == 0) {
    text += "quantization       off\n";
  } else {
    text += detail::format_text("channels           %td\n", t.channels);
    for (const auto& [bits, count] : t.bits_histogram) {
      const double share = double(count) / double(t.channels);
      text +=
          detail::format_text("  %d bits           %8td %6.2f%%  %s\n", bits, count, 100 * share,
                              std::string(std::size_t(std::lround(40 * share)), '#').c_str());
    }
    text += detail::format_text("mean bits          %.4f\n", *t.average_bits);
  }
  text += detail::format_text("sparsity           %.2f%% pruned, %.2f%% zero\n", 100 * t.sparsity,
                              100 * t.zeros);
  text += detail::format_text("stored             %.3f bits per weight", t.stored_bits_per_weight);
  if (t.added_bits_per_weight != 0)
    text += detail::format_text(", %.3f of them for the untied head", t.added_bits_per_weight);
  text += "\n";
  text += detail::format_text("total loss         %.6g\n", t.loss);
  if (t.rounding_loss != 0)
    text += detail::format_text(
        "  by rounding      %.3g of it: the type the checkpoint stores does not hold the grids; a "
        "float32 checkpoint does\n",
        t.rounding_loss);
  text += detail::format_text("seconds in solver  %.3f\n", t.seconds);
  return text;
}

/// Everything above.
inline std::string statistics_text(const Statistics& statistics) {
  std::string text = linear_header() + "\n";
  for (const LinearStatistics& linear : statistics.linears) text += linear_line(linear) + "\n";
  const std::string scores = score_table(statistics);
  if (!scores.empty()) text += "\n" + scores;
  return text + "\n" + totals_text(statistics);
}

}  // namespace pare
