// The bit widths a policy may choose from.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"

namespace pare::inline PARE_TARGET {

/// Widths known at compile time, bits per weight.
template <int... Bits>
struct Tiers {
  /// The widths, bits per weight, increasing.
  static constexpr std::array<int, sizeof...(Bits)> values{Bits...};

 private:
  static constexpr bool several = values.size() >= 2;
  static constexpr bool in_range = ((Bits >= min_bits && Bits <= max_bits) && ...);
  static constexpr bool increasing = [] {
    for (std::size_t k = 1; k < values.size(); ++k)
      if (values[k - 1] >= values[k]) return false;
    return true;
  }();
  static_assert(several,
                "pare: Tiers<...> with fewer than two widths: nothing is left to choose; write "
                "Tiers<2, 3, 4>, or BaseQuantizer alone for one width");
  static_assert(!several || in_range,
                "pare: Tiers<...> outside 2..8: no grid has that width; write widths within 2..8");
  static_assert(!several || !in_range || increasing,
                "pare: Tiers<...> not strictly increasing: policies climb from tier to tier; "
                "write them in order, each once");
};

/// The widths used where none are given.
using DefaultTiers = Tiers<2, 3, 4, 6, 8>;

/// DefaultTiers as a vector.
inline const std::vector<int>& default_tiers() {
  static const std::vector<int> tiers(DefaultTiers::values.begin(), DefaultTiers::values.end());
  return tiers;
}

/// A target known at compile time: Numerator / Denominator mean bits per channel.
template <int Numerator, int Denominator = 1>
struct TargetAverageBits {
  static_assert(Denominator > 0,
                "pare: TargetAverageBits<n, d> with d < 1: the target is the fraction n / d; write "
                "for instance TargetAverageBits<7, 2> for 3.5 bits");
  /// Mean bits per channel.
  static constexpr double value = double(Numerator) / Denominator;
};

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
    good = tiers[k] >= min_bits && tiers[k] <= max_bits && (k == 0 || tiers[k - 1] < tiers[k]);
  if (!good)
    throw argument_error(
        "tiers: expected at least two strictly increasing widths within 2..8, got " +
        tiers_text(tiers));
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
