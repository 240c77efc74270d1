// Policies: from scores and a target to one bit width per channel.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "pare/allocation/tiers.hpp"
#include "pare/core/falling_order.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// Turns scores (one per channel, finite) into widths (one per channel, each one of `tiers`).
/// With a target, mean bits <= target and the remainder is less than one step of one channel.
/// A policy that cannot do without says so: `static constexpr bool needs_target = true`.
template <class P>
concept AllocationPolicy = std::default_initializable<P> &&
    requires(const P policy, std::span<const double> scores, std::span<const int> tiers,
             std::optional<double> target) {
  { policy(scores, tiers, target) } -> std::same_as<std::vector<std::uint8_t>>;
};

namespace detail {

template <class P>
concept PolicyCall =
    std::invocable<const P&, std::span<const double>, std::span<const int>, std::optional<double>>;

/// What every template over a policy asserts first; always true. One message per misuse.
template <class P>
constexpr bool check_policy() {
  static_assert(PolicyCall<P>,
                "pare: an allocation policy without its call: it is not callable as (scores, "
                "tiers, target) on constant spans; write operator()(std::span<const double>, "
                "std::span<const int>, std::optional<double>) const");
  if constexpr (PolicyCall<P>) {
    static_assert(std::same_as<std::invoke_result_t<const P&, std::span<const double>,
                                                    std::span<const int>, std::optional<double>>,
                               std::vector<std::uint8_t>>,
                  "pare: an allocation policy with another result type: a width per channel is "
                  "expected; return std::vector<std::uint8_t>");
    static_assert(std::default_initializable<P>,
                  "pare: an allocation policy without a default constructor: a type names the "
                  "policy, the allocator makes it; give every member a default");
  }
  return true;
}

/// Whole bits that n channels may spend: the most that keeps the mean at or below the target.
inline std::int64_t bit_budget(double target, std::size_t channels) {
  return std::int64_t(std::floor(target * double(channels) + 1e-7));
}

/// Shares p_k proportional to exp(lambda b_k) whose mean width is `target`.
inline std::vector<double> tilted_shares(std::span<const int> tiers, double target) {
  std::vector<double> shares(tiers.size());
  const auto mean_at = [&](double lambda) {
    // Relative to the dominating tier, so that nothing overflows.
    const double origin = lambda > 0 ? tiers.back() : tiers.front();
    double sum = 0, mean = 0;
    for (std::size_t k = 0; k < tiers.size(); ++k) {
      shares[k] = std::exp(lambda * (tiers[k] - origin));
      sum += shares[k];
    }
    for (std::size_t k = 0; k < tiers.size(); ++k) {
      shares[k] /= sum;
      mean += shares[k] * tiers[k];
    }
    return mean;
  };
  double low = -60, high = 60;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    (mean_at(middle) < target ? low : high) = middle;
  }
  mean_at(0.5 * (low + high));
  return shares;
}

}  // namespace detail

/// Ranks the n channels by score and gives each tier a share of them, the lowest scores the lowest
/// tier. Tier k of K has b_k bits and the share p_k.
///
/// Without a target every share is 1 / K. With one, p_k is proportional to exp(lambda b_k), where
/// lambda makes the sum of p_k b_k the target.
///
/// Shares become whole channels by their borders: the tiers up to k < K take
/// floor(n (p_1 + ... + p_k) + 1e-9) channels together, all K tiers take n. With a target, single
/// channels then cross a border until the widths fit floor(target n + 1e-7) bits: down while they
/// take more than that, then up while a step fits. Each time it is the border with the smallest
/// step b_{k+1} - b_k that can be crossed, the lowest of equals.
struct Quantile {
  /// @param scores  one finite number per channel
  /// @param tiers   widths in bits, strictly increasing
  /// @param target  mean bits per channel, within the tiers
  /// @return        bits per channel. Ties in score go by channel index.
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double> target) const {
    const std::size_t n = scores.size(), levels = tiers.size();
    const std::vector<double> shares = target ? detail::tilted_shares(tiers, *target)
                                              : std::vector<double>(levels, 1.0 / double(levels));
    std::vector<std::int64_t> count(levels);
    double cumulative = 0;
    std::int64_t taken = 0;
    for (std::size_t k = 0; k < levels; ++k) {
      cumulative += shares[k];
      const std::int64_t border =
          k + 1 == levels ? std::int64_t(n)
                          : std::min(std::int64_t(n), std::int64_t(cumulative * double(n) + 1e-9));
      count[k] = border - taken;
      taken = border;
    }
    if (target) meet_budget(count, tiers, detail::bit_budget(*target, n));

    std::vector<std::size_t> rank(n);
    std::iota(rank.begin(), rank.end(), std::size_t{0});
    std::stable_sort(rank.begin(), rank.end(),
                     [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
    std::vector<std::uint8_t> bits(n);
    std::size_t next = 0;
    for (std::size_t k = 0; k < levels; ++k)
      for (std::int64_t c = 0; c < count[k]; ++c) bits[rank[next++]] = std::uint8_t(tiers[k]);
    return bits;
  }

 private:
  /// Moves channels across borders until the budget is kept and no single step up fits any more.
  static void meet_budget(std::vector<std::int64_t>& count, std::span<const int> tiers,
                          std::int64_t budget) {
    std::int64_t spent = 0;
    for (std::size_t k = 0; k < tiers.size(); ++k) spent += count[k] * tiers[k];
    // The border k lies between tiers k and k + 1; the cheapest step loses the least.
    const auto cheapest = [&](auto usable) {
      std::optional<std::size_t> best;
      for (std::size_t k = 0; k + 1 < tiers.size(); ++k)
        if (usable(k) && (!best || tiers[k + 1] - tiers[k] < tiers[*best + 1] - tiers[*best]))
          best = k;
      return best;
    };
    while (spent > budget) {
      const auto k = cheapest([&](std::size_t b) { return count[b + 1] > 0; });
      if (!k) break;
      --count[*k + 1];
      ++count[*k];
      spent -= tiers[*k + 1] - tiers[*k];
    }
    while (true) {
      const auto k = cheapest(
          [&](std::size_t b) { return count[b] > 0 && spent + tiers[b + 1] - tiers[b] <= budget; });
      if (!k) break;
      --count[*k];
      ++count[*k + 1];
      spent += tiers[*k + 1] - tiers[*k];
    }
  }
};

namespace detail {

/// Indices of the lower convex hull of a falling distortion over increasing widths.
inline std::vector<std::size_t> lower_convex_hull(std::span<const int> widths,
                                                  std::span<const double> distortion) {
  std::vector<std::size_t> hull;
  for (std::size_t k = 0; k < widths.size(); ++k) {
    if (!hull.empty() && distortion[k] >= distortion[hull.back()] && k + 1 < widths.size())
      continue;  // spends bits and wins nothing
    while (hull.size() >= 2) {
      const std::size_t a = hull[hull.size() - 2], b = hull.back();
      const double before = (distortion[a] - distortion[b]) / (widths[b] - widths[a]);
      const double after = (distortion[b] - distortion[k]) / (widths[k] - widths[b]);
      if (after < before) break;
      hull.pop_back();
    }
    hull.push_back(k);
  }
  return hull;
}

}  // namespace detail

/// Reverse water-filling: minimises sum_i s_i 4^-b_i subject to the mean of b.
///
/// Greedy by gain per bit along the lower convex hull of the tiers, O(n log n). A step that no
/// longer fits is passed over and cheaper ones behind it are still taken, so the remainder is
/// smaller than any step that is left. Optimal up to that one step.
struct Budget {
  /// Without a target there is no budget to spend.
  static constexpr bool needs_target = true;

  /// @param scores  s_i >= 0, the distortion of channel i at 0 bits
  /// @param tiers   widths in bits, strictly increasing
  /// @param target  mean bits per channel, within the tiers; required
  /// @return        bits per channel. Equal gains climb tier by tier, in each by score, then by
  ///                channel index.
  /// @throws argument_error without a target or for a negative score
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double> target) const {
    if (!target) throw argument_error("Budget: expected a target of average bits, got none");
    const std::size_t n = scores.size();
    for (std::size_t i = 0; i < n; ++i)
      if (!(scores[i] >= 0))
        throw argument_error("Budget: score of channel " + std::to_string(i) +
                             ": expected a distortion >= 0, got " + std::to_string(scores[i]));
    std::vector<double> curve(tiers.size());
    for (std::size_t k = 0; k < tiers.size(); ++k) curve[k] = std::pow(4.0, -tiers[k]);
    const std::vector<std::size_t> hull = detail::lower_convex_hull(tiers, curve);

    // Gains fall with the score within a step of the hull, so one sort and a merge order them all.
    const std::vector<std::uint32_t> rank = detail::falling_order(scores);
    const std::size_t steps = hull.size() - 1;
    std::vector<int> cost(steps);
    std::vector<double> removed(steps);  // distortion removed per bit and unit of score
    for (std::size_t h = 0; h < steps; ++h) {
      cost[h] = tiers[hull[h + 1]] - tiers[hull[h]];
      removed[h] = (curve[hull[h]] - curve[hull[h + 1]]) / cost[h];
    }
    const int cheapest = *std::min_element(cost.begin(), cost.end());
    std::vector<std::size_t> next(steps, 0);  // in rank, the channel to climb step h next
    std::vector<std::uint32_t> level(n, 0);   // position on the hull
    std::int64_t left =
        detail::bit_budget(*target, n) - std::int64_t(n) * std::int64_t(tiers.front());
    while (left >= cheapest) {
      std::size_t best = steps;
      double gain = 0;
      for (std::size_t h = 0; h < steps; ++h) {
        if (next[h] == n) continue;
        const double here = scores[rank[next[h]]] * removed[h];
        if (best < steps && here <= gain) continue;
        best = h;
        gain = here;
      }
      if (best == steps) break;
      const std::uint32_t channel = rank[next[best]++];
      if (level[channel] != best || cost[best] > left) continue;
      ++level[channel];
      left -= cost[best];
    }
    std::vector<std::uint8_t> bits(n);
    for (std::size_t i = 0; i < n; ++i) bits[i] = std::uint8_t(tiers[hull[level[i]]]);
    return bits;
  }
};

static_assert(AllocationPolicy<Quantile> && AllocationPolicy<Budget>);

}  // namespace pare
