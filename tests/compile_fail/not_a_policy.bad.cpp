#include "pare/solver/compression.hpp"
using namespace pare;
struct Policy {
  std::vector<int> operator()(std::span<const double> scores, std::span<const int> tiers,
                              std::optional<double>) const {
    return std::vector<int>(scores.size(), tiers[0]);
  }
};
static_assert(!AllocationPolicy<Policy>);
static_assert(Compression<Dense, BaseQuantizer, MixedPrecision<Policy>>::mixed);
