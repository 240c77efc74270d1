#include "pare/solver/compression.hpp"
using namespace pare;
#ifdef PARE_MISUSE
struct Policy {};
static_assert(!AllocationPolicy<Policy>);
#else
struct Policy {
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double>) const {
    return std::vector<std::uint8_t>(scores.size(), std::uint8_t(tiers[0]));
  }
};
static_assert(AllocationPolicy<Policy>);
#endif
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Policy>>;
static_assert(sizeof(Config) > 0);
