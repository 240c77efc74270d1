#include "pare/solver/compression.hpp"
using namespace pare;
struct Policy {
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double>) const {
    return std::vector<std::uint8_t>(scores.size(), std::uint8_t(tiers[0]));
  }
};
static_assert(AllocationPolicy<Policy>);
static_assert(Compression<Dense, BaseQuantizer, MixedPrecision<Policy>>::mixed);
