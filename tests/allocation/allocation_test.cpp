// Bit allocation: Quantile, Budget and the allocator around them.
#define BOOST_TEST_MODULE pare_allocation
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "pare/allocation/allocator.hpp"
#include "support.hpp"

using namespace pare;
using test::contains;
using test::message_of;
using test::Random;

namespace {

using Policies = std::tuple<Quantile, Budget>;
using Widths = std::vector<int>;

const std::vector<Widths>& tier_sets() {
  static const std::vector<Widths> sets{{2, 3, 4, 6, 8}, {2, 8},
                                        {2, 3},          {3, 5, 8},
                                        {4, 8},          {2, 5, 6, 8},
                                        {7, 8},          {2, 3, 4, 5, 6, 7, 8}};
  return sets;
}

int largest_gap(const Widths& tiers) {
  int gap = 0;
  for (std::size_t k = 0; k + 1 < tiers.size(); ++k) gap = std::max(gap, tiers[k + 1] - tiers[k]);
  return gap;
}

template <class Policy>
std::vector<std::uint8_t> allocate(const std::vector<double>& scores, const Widths& tiers,
                                   std::optional<double> target) {
  return BitAllocator<Policy>({.target_average_bits = target, .tiers = tiers})
      .allocate(scores)
      .bits;
}

/// Scores over several orders of magnitude.
std::vector<double> random_scores(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<double> scores(n);
  for (double& s : scores) s = std::exp(2 * random.normal());
  return scores;
}

int total(const std::vector<std::uint8_t>& bits) {
  return std::accumulate(bits.begin(), bits.end(), 0);
}

double distortion(const std::vector<double>& scores, const std::vector<int>& bits) {
  double sum = 0;
  for (std::size_t i = 0; i < bits.size(); ++i) sum += scores[i] * std::pow(4.0, -bits[i]);
  return sum;
}

/// The least distortion of all assignments that spend at most `budget` bits.
double least_distortion(const std::vector<double>& scores, const Widths& tiers, double budget) {
  const std::size_t n = scores.size();
  std::vector<std::size_t> level(n, 0);
  double least = std::numeric_limits<double>::infinity();
  while (true) {
    std::vector<int> bits(n);
    int sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += bits[i] = tiers[level[i]];
    if (sum <= budget) least = std::min(least, distortion(scores, bits));
    std::size_t i = 0;
    while (i < n && ++level[i] == tiers.size()) level[i++] = 0;
    if (i == n) return least;
  }
}

template <int Answer>
struct BrokenPolicy {
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double>) const {
    std::vector<std::uint8_t> bits(scores.size(), std::uint8_t(tiers.front()));
    if (Answer == 0) bits.assign(scores.size(), std::uint8_t(tiers.back()));
    if (Answer == 1) bits.pop_back();
    if (Answer == 2) bits.back() = 7;
    return bits;
  }
};

struct NotAPolicy {
  int operator()(std::span<const double>) const { return 0; }
};
static_assert(AllocationPolicy<Quantile> && AllocationPolicy<Budget>);
static_assert(AllocationPolicy<BrokenPolicy<0>>);
static_assert(!AllocationPolicy<NotAPolicy> && !AllocationPolicy<int>);

}  // namespace

BOOST_AUTO_TEST_CASE(falling_order_is_that_of_a_stable_sort) {
  const double some[] = {0.0, -0.0, 1.5, 1.5, 2, 1e300, 1e-310, -1e-310, -3, -3, 256, 255};
  Random random(3);
  for (const std::size_t n : {0, 1, 2, 300, 1000}) {
    std::vector<double> values(n);
    for (double& v : values) v = some[std::size_t(random.uniform() * std::size(some))];
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return values[a] > values[b]; });
    BOOST_TEST(detail::falling_order(values) == order, boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(quantile_without_a_target_gives_equal_shares) {
  const auto scores = random_scores(9216, 1);
  const Allocation result = BitAllocator<Quantile>(AllocatorOptions{}).allocate(scores);
  std::array<int, 9> count{};
  for (const auto b : result.bits) ++count[b];
  BOOST_TEST(count[2] == 1843);
  BOOST_TEST(count[3] == 1843);
  BOOST_TEST(count[4] == 1843);
  BOOST_TEST(count[6] == 1843);
  BOOST_TEST(count[8] == 1844);
  BOOST_TEST(std::abs(result.average_bits - 4.6) < 1e-3);
}

/// Channels of each tier.
std::vector<int> counts(const std::vector<std::uint8_t>& bits, const Widths& tiers) {
  std::vector<int> result;
  for (const int tier : tiers) result.push_back(int(std::count(bits.begin(), bits.end(), tier)));
  return result;
}

BOOST_AUTO_TEST_CASE(quantile_rounds_the_borders_of_its_shares_down) {
  const auto given = [](std::size_t n, const Widths& tiers, std::optional<double> target) {
    return counts(allocate<Quantile>(random_scores(n, 3), tiers, target), tiers);
  };
  const Widths five = default_tiers();
  BOOST_TEST(given(12, five, {}) == (std::vector<int>{2, 2, 3, 2, 3}));  // 2.4, 4.8, 7.2, 9.6
  BOOST_TEST(given(10, five, {}) == (std::vector<int>{2, 2, 2, 2, 2}));  // 0.2 * 10 is a whole 2
  BOOST_TEST(given(4, five, {}) == (std::vector<int>{0, 1, 1, 1, 1}));
  BOOST_TEST(given(1, five, {}) == (std::vector<int>{0, 0, 0, 0, 1}));
  // Shares 3/4 and 1/4: the border 7.5 becomes 7, 52 bits are more than 50, one channel goes down.
  BOOST_TEST(given(10, {4, 8}, 5.0) == (std::vector<int>{8, 2}));
  // Equal shares, 13 bits of 12: of two borders with the same step the lowest.
  BOOST_TEST(given(4, {2, 3, 4}, 3.0) == (std::vector<int>{2, 0, 2}));
  // Down over the smaller step, though the other would do as well.
  BOOST_TEST(given(3, {2, 5, 6}, 4.0) == (std::vector<int>{1, 2, 0}));
}

BOOST_AUTO_TEST_CASE(quantile_at_the_mean_of_the_tiers_gives_nearly_equal_shares) {
  const auto bits = allocate<Quantile>(random_scores(9216, 1), default_tiers(), 4.6);
  std::array<int, 9> count{};
  for (const auto b : bits) ++count[b];
  for (const int tier : default_tiers())
    BOOST_TEST(std::abs(count[std::size_t(tier)] - 9216 / 5.0) <= 5);
  BOOST_TEST(total(bits) <= 4.6 * 9216);
  BOOST_TEST(total(bits) > 4.6 * 9216 - 2);
}

BOOST_AUTO_TEST_CASE(quantile_tilts_its_shares_exponentially_towards_the_target) {
  const std::size_t n = 100000;
  const auto bits = allocate<Quantile>(random_scores(n, 2), default_tiers(), 3.0);
  std::array<double, 9> share{};
  for (const auto b : bits) share[b] += 1.0 / double(n);
  // log shares are linear in the width
  const double lambda = std::log(share[3] / share[2]);
  BOOST_TEST(lambda < -0.1);
  BOOST_TEST(std::abs(std::log(share[4] / share[2]) - 2 * lambda) < 0.01);
  BOOST_TEST(std::abs(std::log(share[6] / share[2]) - 4 * lambda) < 0.02);
  BOOST_TEST(std::abs(std::log(share[8] / share[2]) - 6 * lambda) < 0.05);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_1_the_mean_is_within_one_step_below_the_target, P,
                              Policies) {
  for (const Widths& tiers : tier_sets())
    for (const std::size_t n : {1u, 2u, 3u, 5u, 17u, 100u, 1000u}) {
      const auto scores = random_scores(n, 10 + n);
      for (double target = 2; target <= 8.0001; target += n == 1000 ? 0.3 : 0.1) {
        if (target < tiers.front() || target > tiers.back()) continue;
        const Allocation result =
            BitAllocator<P>({.target_average_bits = target, .tiers = tiers}).allocate(scores);
        BOOST_REQUIRE_EQUAL(result.bits.size(), n);
        for (const auto b : result.bits)
          BOOST_REQUIRE(std::count(tiers.begin(), tiers.end(), int(b)) == 1);
        const double left = target * double(n) - total(result.bits);
        BOOST_REQUIRE_GE(left, -1e-6);
        BOOST_REQUIRE_LT(left, double(largest_gap(tiers)));
        BOOST_REQUIRE_CLOSE(result.average_bits, total(result.bits) / double(n), 1e-9);
      }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_ends_of_the_range_are_met_exactly, P, Policies) {
  for (const Widths& tiers : tier_sets()) {
    const auto scores = random_scores(37, 4);
    for (const int end : {tiers.front(), tiers.back()})
      for (const auto b : allocate<P>(scores, tiers, double(end))) BOOST_REQUIRE(int(b) == end);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_higher_score_never_gets_fewer_bits, P, Policies) {
  for (const Widths& tiers : tier_sets())
    for (double target = tiers.front(); target <= tiers.back(); target += 0.37) {
      const auto scores = random_scores(40, std::uint64_t(target * 100));
      const auto bits = allocate<P>(scores, tiers, target);
      for (std::size_t i = 0; i < scores.size(); ++i)
        for (std::size_t j = 0; j < scores.size(); ++j)
          if (scores[i] > scores[j]) BOOST_REQUIRE_GE(bits[i], bits[j]);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_unit_of_the_scores_does_not_matter, P, Policies) {
  const auto scores = random_scores(60, 5);
  for (const double target : {2.3, 3.0, 4.6, 7.1}) {
    const auto bits = allocate<P>(scores, default_tiers(), target);
    for (const double unit : {0x1p40, 0x1p-40, 3.7, 1e-9}) {
      auto scaled = scores;
      for (double& s : scaled) s *= unit;
      BOOST_TEST(allocate<P>(scaled, default_tiers(), target) == bits);
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bits_follow_their_channel_through_a_permutation, P, Policies) {
  const auto scores = random_scores(61, 6);
  for (const double target : {2.3, 3.0, 4.6, 7.1}) {
    const auto bits = allocate<P>(scores, default_tiers(), target);
    std::vector<double> permuted(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i) permuted[(i * 17 + 3) % 61] = scores[i];
    const auto moved = allocate<P>(permuted, default_tiers(), target);
    for (std::size_t i = 0; i < scores.size(); ++i)
      BOOST_REQUIRE_EQUAL(int(moved[(i * 17 + 3) % 61]), int(bits[i]));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(equal_scores_are_served_by_channel_index, P, Policies) {
  for (const double score : {0.0, 1.0, 0.1}) {
    const std::vector<double> scores(23, score);
    for (const double target : {2.0, 2.5, 3.3, 4.6, 6.9, 8.0}) {
      const auto bits = allocate<P>(scores, default_tiers(), target);
      BOOST_TEST(bits == allocate<P>(scores, default_tiers(), target));
      const bool rising = std::is_sorted(bits.begin(), bits.end());
      const bool falling = std::is_sorted(bits.rbegin(), bits.rend());
      BOOST_TEST((rising || falling));
      const double left = target * 23 - total(bits);
      BOOST_TEST((left > -1e-6 && left < 2));
    }
  }
}

BOOST_AUTO_TEST_CASE(budget_spreads_evenly_over_equal_scores) {
  for (const double score : {0.0, 1.0})
    for (const double target : {2.0, 3.0, 4.0, 6.0, 8.0})
      for (const auto b : allocate<Budget>(std::vector<double>(9, score), default_tiers(), target))
        BOOST_TEST(int(b) == int(target));
}

BOOST_AUTO_TEST_CASE(budget_is_optimal_up_to_one_step_against_brute_force) {
  int exact = 0;
  for (const Widths& tiers : std::vector<Widths>{{2, 3, 4, 6, 8}, {2, 8}, {2, 5, 6, 8}, {3, 5, 8}})
    for (std::size_t n = 1; n <= 5; ++n)
      for (std::uint64_t seed = 0; seed < 4; ++seed) {
        const auto scores = random_scores(n, 1000 * seed + n);
        for (double target = tiers.front(); target <= tiers.back(); target += 0.43) {
          const auto bits = allocate<Budget>(scores, tiers, target);
          const double mine = distortion(scores, {bits.begin(), bits.end()});
          const double best = least_distortion(scores, tiers, target * double(n) + 1e-7);
          // The steps next to the border: the dearest one left and the cheapest one taken.
          double step_left = 0, rate_left = 0;
          double rate_taken = std::numeric_limits<double>::infinity();
          for (std::size_t i = 0; i < n; ++i) {
            const auto k =
                std::size_t(std::find(tiers.begin(), tiers.end(), int(bits[i])) - tiers.begin());
            const auto gain = [&](std::size_t a, std::size_t b) {
              return scores[i] * (std::pow(4.0, -tiers[a]) - std::pow(4.0, -tiers[b]));
            };
            if (k + 1 < tiers.size()) {
              step_left = std::max(step_left, gain(k, k + 1));
              rate_left = std::max(rate_left, gain(k, k + 1) / (tiers[k + 1] - tiers[k]));
            }
            if (k > 0)
              rate_taken = std::min(rate_taken, gain(k - 1, k) / (tiers[k] - tiers[k - 1]));
          }
          BOOST_REQUIRE_GE(mine, best * (1 - 1e-12));
          BOOST_REQUIRE_LE(mine, best + step_left + 1e-15);
          const bool exhausted = target * double(n) + 1e-7 - total(bits) < 1;
          if (exhausted && rate_taken >= rate_left) {
            BOOST_REQUIRE_LE(mine, best * (1 + 1e-12));
            ++exact;
          }
        }
      }
  BOOST_TEST(exact > 200);
}

BOOST_AUTO_TEST_CASE(budget_is_exactly_optimal_with_steps_of_one_bit) {
  for (std::size_t n = 1; n <= 6; ++n)
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const auto scores = random_scores(n, 50 * seed + n);
      const Widths tiers{2, 3, 4, 5};
      for (double target = 2; target <= 5; target += 0.21) {
        const auto bits = allocate<Budget>(scores, tiers, target);
        const double mine = distortion(scores, {bits.begin(), bits.end()});
        BOOST_REQUIRE_CLOSE(mine, least_distortion(scores, tiers, target * double(n) + 1e-7), 1e-9);
      }
    }
}

BOOST_AUTO_TEST_CASE(budget_never_does_worse_than_quantile) {
  for (const double target : {2.5, 3.0, 4.0, 5.5}) {
    const auto scores = random_scores(500, 8);
    const auto b = allocate<Budget>(scores, default_tiers(), target);
    const auto q = allocate<Quantile>(scores, default_tiers(), target);
    BOOST_TEST(distortion(scores, {b.begin(), b.end()}) < distortion(scores, {q.begin(), q.end()}));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_target_out_of_range_states_the_range, P, Policies) {
  for (const double target : {1.5, 8.25, -3.0, 1e9}) {
    const std::string text =
        message_of<unattainable_error>([&] { BitAllocator<P>({.target_average_bits = target}); });
    BOOST_TEST(contains(text, "{2, 3, 4, 6, 8}"));
    BOOST_TEST(contains(text, "from 2 to 8"));
    BOOST_TEST(contains(text, "got " + number_text(target)));
  }
  BOOST_TEST(contains(message_of<unattainable_error>([&] {
                        BitAllocator<P>({.target_average_bits = 2.9, .tiers = {3, 5}});
                      }),
                      "from 3 to 5"));
  BOOST_CHECK_THROW((BitAllocator<P>({.target_average_bits = std::nan("")})), unattainable_error);
}

BOOST_AUTO_TEST_CASE(budget_without_a_target_is_an_error) {
  BOOST_TEST(message_of<argument_error>([] { BitAllocator<Budget>{AllocatorOptions{}}; }) ==
             "target average bits: the policy needs a target, got none");
  const std::vector<double> scores{1, 2};
  BOOST_TEST(contains(message_of<argument_error>([&] { Budget{}(scores, default_tiers(), {}); }),
                      "target"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(scores_that_are_not_finite_name_the_channel, P, Policies) {
  const BitAllocator<P> allocator({.target_average_bits = 3.0});
  for (const double bad : {std::nan(""), double(INFINITY), -double(INFINITY)}) {
    const std::vector<double> scores{1, 2, 3, bad, bad};
    BOOST_TEST(
        contains(message_of<non_finite_error>([&] { allocator.allocate(scores); }), "channel 3"));
  }
}

BOOST_AUTO_TEST_CASE(budget_rejects_a_negative_score) {
  const BitAllocator<Budget> allocator({.target_average_bits = 3.0});
  const std::vector<double> scores{1, -2, 3};
  const std::string text = message_of<argument_error>([&] { allocator.allocate(scores); });
  BOOST_TEST(contains(text, "channel 1"));
  BOOST_TEST(contains(text, "-2"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(tiers_must_rise_within_two_and_eight, P, Policies) {
  for (const Widths& tiers :
       std::vector<Widths>{{}, {4}, {4, 3}, {3, 3}, {1, 4}, {4, 9}, {0, 2}, {-2, 4}, {2, 3, 3, 4}})
    BOOST_TEST(contains(message_of<argument_error>(
                            [&] { BitAllocator<P>({.target_average_bits = 3.0, .tiers = tiers}); }),
                        "tiers: expected at least two strictly increasing widths within 2..8, "
                        "got " +
                            tiers_text(tiers)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(no_channels_is_an_error, P, Policies) {
  const BitAllocator<P> allocator({.target_average_bits = 3.0});
  BOOST_TEST(
      contains(message_of<argument_error>([&] { allocator.allocate(std::span<const double>{}); }),
               "at least one channel"));
}

BOOST_AUTO_TEST_CASE(a_policy_that_breaks_its_word_is_caught) {
  const AllocatorOptions options{.target_average_bits = 3.0};
  const std::vector<double> scores{1, 2, 3, 4};
  const auto condition = [&](auto policy) {
    try {
      BitAllocator<decltype(policy)>(options).allocate(scores);
    } catch (const invariant_error& e) {
      return e.condition();
    }
    return 0;
  };
  BOOST_TEST(condition(Budget{}) == 0);
  BOOST_TEST(condition(BrokenPolicy<0>{}) == 1);  // too many bits
  BOOST_TEST(condition(BrokenPolicy<1>{}) == 2);  // a channel is missing
  BOOST_TEST(condition(BrokenPolicy<2>{}) == 1);  // a width that is no tier
  BOOST_TEST(condition(BrokenPolicy<3>{}) == 1);  // too few bits
}
