// The bit widths a policy may choose from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"

namespace pare {

/// The default widths, bits per weight.
inline const std::vector<int>& default_tiers() {
  static const std::vector<int> tiers{2, 3, 4, 6, 8};
  return tiers;
}

/// Text "{2, 3, 4}" for messages.
inline std::string tiers_text(std::span<const int> tiers) {
  std::string text = "{";
  for (std::size_t k = 0; k < tiers.size(); ++k)
    text += (k == 0 ? "" : ", ") + std::to_string(tiers[k]);
  return text + "}";
}

/// Throws argument_error unless there are at least two tiers, strictly increasing, within 2..8.
inline void require_tiers(std::span<const int> tiers) {
  bool good = tiers.size() >= 2;
  for (std::size_t k = 0; good && k < tiers.size(); ++k)
    good = tiers[k] >= 2 && tiers[k] <= 8 && (k == 0 || tiers[k - 1] < tiers[k]);
  if (!good)
    throw argument_error("tiers: expected at least two strictly increasing widths within 2..8, got " +
                         tiers_text(tiers));
}

/// Text of a number without trailing zeros.
inline std::string number_text(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (!text.empty() && text.back() == '.') text.pop_back();
  return text;
}

/// Throws unattainable_error, stating the range, unless lowest tier <= target <= highest tier.
inline void require_attainable(std::optional<double> target, std::span<const int> tiers) {
  if (!target) return;
  if (!(*target >= tiers.front() && *target <= tiers.back()))
    throw unattainable_error("target average bits: tiers " + tiers_text(tiers) +
                             " can meet targets from " + std::to_string(tiers.front()) + " to " +
                             std::to_string(tiers.back()) + ", got " + number_text(*target));
}

}  // namespace pare
