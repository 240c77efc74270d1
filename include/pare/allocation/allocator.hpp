// BitAllocator: a policy, its tiers and its target.
#pragma once

#include "pare/allocation/policies.hpp"
#include "pare/core/text.hpp"

namespace pare::inline PARE_TARGET {

/// What an allocator may choose from, and what it must meet.
struct AllocatorOptions {
  std::optional<double> target_average_bits = {};  ///< mean bits per channel
  std::vector<int> tiers = default_tiers();        ///< strictly increasing widths within 2..8
};

/// Widths of all channels of one linear.
struct Allocation {
  std::vector<std::uint8_t> bits;  ///< one per channel
  /// mean of `bits`
  double average_bits = 0;
};

/// Chooses one bit width per channel from its score.
/// @tparam Policy  models AllocationPolicy
template <class Policy>
class BitAllocator {
  static_assert(detail::check_policy<Policy>());

 public:
  /// @throws argument_error for bad tiers or for no target where the policy needs one;
  ///         unattainable_error, with the range, for a target outside the tiers
  explicit BitAllocator(AllocatorOptions options) : options_(std::move(options)) {
    require_tiers(options_.tiers);
    require_attainable(options_.target_average_bits, options_.tiers);
    if constexpr (requires { requires Policy::needs_target; })
      if (!options_.target_average_bits)
        throw argument_error("target average bits: the policy needs a target, got none");
  }

  /// @param scores  one finite number per channel, higher = more important
  /// @return        bits per channel and their mean
  /// @throws argument_error for no channels or for a policy's own demands; non_finite_error naming
  ///         the channel; invariant_error when the policy broke post-condition 1
  Allocation allocate(std::span<const double> scores) const {
    if (scores.empty()) throw argument_error("scores: expected at least one channel, got none");
    for (std::size_t i = 0; i < scores.size(); ++i)
      if (!std::isfinite(scores[i]))
        throw non_finite_error("scores: expected finite numbers, got NaN or infinity at channel " +
                                   std::to_string(i),
                               0, index_t(i));
    Allocation result;
    result.bits = Policy{}(scores, options_.tiers, options_.target_average_bits);
    in_context(detail::class_name<Policy>(), [&] { check(result.bits, scores.size()); });
    result.average_bits =
        double(std::accumulate(result.bits.begin(), result.bits.end(), std::int64_t{0})) /
        double(result.bits.size());
    return result;
  }

  /// The options given.
  const AllocatorOptions& options() const { return options_; }

 private:
  /// Post-condition 1, and that every width is a tier.
  void check(std::span<const std::uint8_t> bits, std::size_t channels) const {
    const std::vector<int>& tiers = options_.tiers;
    if (bits.size() != channels)
      throw invariant_error(2, "returned " + std::to_string(bits.size()) + " widths for " +
                                   std::to_string(channels) + " channels");
    std::int64_t spent = 0;
    int widest_step = 0;  // of the steps that are still to be had
    for (std::size_t i = 0; i < channels; ++i) {
      const auto tier = std::lower_bound(tiers.begin(), tiers.end(), int(bits[i]));
      if (tier == tiers.end() || *tier != int(bits[i]))
        throw invariant_error(1, "gave channel " + std::to_string(i) + " " +
                                     std::to_string(bits[i]) + " bits, tiers are " +
                                     tiers_text(tiers));
      spent += bits[i];
      if (tier + 1 != tiers.end()) widest_step = std::max(widest_step, *(tier + 1) - *tier);
    }
    if (!options_.target_average_bits) return;
    const double left = *options_.target_average_bits * double(channels) - double(spent);
    if (left < -1e-6 || (widest_step > 0 && left >= widest_step + 1e-6))
      throw invariant_error(1, "mean bits " + number_text(double(spent) / double(channels)) +
                                   " for target " + number_text(*options_.target_average_bits));
  }

  AllocatorOptions options_;
};

}  // namespace pare
