// Rate-distortion allocation against brute force.
#define BOOST_TEST_MODULE pare_rate
#include <boost/test/unit_test.hpp>
#include <functional>

#include "pare/allocation/policies.hpp"
#include "pare/allocation/rate.hpp"
#include "pare/allocation/shared_width.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

/// Random modes. `falling`: distortion falls with the width, as it does in practice.
RateMode random_mode(Random& random, std::size_t channels, bool falling) {
  RateMode mode;
  mode.fixed_bits = double(random.below(4));
  mode.widths = {2, 3, 6};
  for (std::size_t c = 0; c < channels; ++c) {
    const double weights = double(1 + random.below(5));
    std::vector<double> losses;
    for (std::size_t k = 0; k < 3; ++k) losses.push_back(random.uniform() * 10);
    if (falling) std::sort(losses.rbegin(), losses.rend());
    for (std::size_t k = 0; k < 3; ++k) {
      mode.cost.push_back(weights * mode.widths[k]);
      mode.distortion.push_back(losses[k]);
    }
  }
  return mode;
}

std::vector<LinearRates> random_groups(Random& random, bool falling) {
  std::vector<LinearRates> linears(std::size_t(1 + random.below(2)));
  for (LinearRates& linear : linears) {
    const std::size_t channels = std::size_t(1 + random.below(3));
    const index_t modes = 1 + random.below(2);
    for (index_t m = 0; m < modes; ++m)
      linear.modes.push_back(random_mode(random, channels, falling));
  }
  return linears;
}

struct Total {
  double bits = 0, distortion = 0;
};

/// Calls visit(total) for every choice there is.
void for_each_choice(const std::vector<LinearRates>& linears,
                     const std::function<void(Total)>& visit, std::size_t g = 0, Total total = {}) {
  if (g == linears.size()) return visit(total);
  for (const RateMode& mode : linears[g].modes) {
    const std::function<void(std::size_t, Total)> channels = [&](std::size_t c, Total t) {
      if (c == mode.channels()) return for_each_choice(linears, visit, g + 1, t);
      for (std::size_t k = 0; k < mode.widths.size(); ++k) {
        const std::size_t at = c * mode.widths.size() + k;
        channels(c + 1, {t.bits + mode.cost[at], t.distortion + mode.distortion[at]});
      }
    };
    channels(0, {total.bits + mode.fixed_bits, total.distortion});
  }
}

/// What a plan's choice takes, summed anew.
Total total_of(const std::vector<LinearRates>& linears, const RatePlan& plan) {
  Total total;
  BOOST_REQUIRE_EQUAL(plan.linears.size(), linears.size());
  for (std::size_t g = 0; g < linears.size(); ++g) {
    const auto& choice = plan.linears[g];
    BOOST_REQUIRE(choice.mode < linears[g].modes.size());
    const RateMode& mode = linears[g].modes[choice.mode];
    BOOST_REQUIRE_EQUAL(choice.bits.size(), mode.channels());
    total.bits += mode.fixed_bits;
    for (std::size_t c = 0; c < mode.channels(); ++c) {
      const auto found = std::find(mode.widths.begin(), mode.widths.end(), int(choice.bits[c]));
      BOOST_REQUIRE(found != mode.widths.end());
      const std::size_t at = c * mode.widths.size() + std::size_t(found - mode.widths.begin());
      total.bits += mode.cost[at];
      total.distortion += mode.distortion[at];
    }
  }
  return total;
}

/// s_c 4^-b for channels of one weight each.
RateMode exponential(const std::vector<double>& scores, const std::vector<int>& widths) {
  RateMode mode;
  mode.widths = widths;
  for (const double s : scores)
    for (const int b : widths) {
      mode.cost.push_back(b);
      mode.distortion.push_back(s * std::pow(4.0, -b));
    }
  return mode;
}

}  // namespace

BOOST_AUTO_TEST_CASE(brute_force_agrees) {
  Random random(1);
  int at_vertex = 0, cases = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const bool falling = trial % 2 == 0;
    const std::vector<LinearRates> linears = random_groups(random, falling);
    std::vector<Total> choices;
    for_each_choice(linears, [&](Total t) { choices.push_back(t); });
    double least = choices.front().bits, most = least;
    for (const Total& t : choices) least = std::min(least, t.bits), most = std::max(most, t.bits);
    for (const double share : {0.0, 0.1, 0.35, 0.6, 0.9, 1.0}) {
      const double budget = least + share * (most - least);
      const RatePlan plan = allocate_rates(linears, budget);
      const Total total = total_of(linears, plan);
      BOOST_TEST(relative_difference(total.bits, plan.bits) < 1e-12);
      BOOST_TEST(relative_difference(total.distortion, plan.distortion) < 1e-12);
      BOOST_TEST(total.bits <= budget + 1e-9);
      double best = std::numeric_limits<double>::infinity();
      for (const Total& t : choices)
        if (t.bits <= budget + 1e-9) best = std::min(best, t.distortion);
      BOOST_TEST(plan.bound <= best + 1e-9);
      BOOST_TEST(plan.distortion >= best - 1e-9);
      ++cases;
      if (plan.gap() < 1e-9) ++at_vertex;
    }
    // Budgets at which a choice on the hull fits exactly: there the choice is optimal.
    for (const Total& t : choices) {
      bool on_hull = true;
      double low = 0, high = std::numeric_limits<double>::infinity();  // prices at which t is best
      for (const Total& o : choices) {
        if (o.bits < t.bits)
          high = std::min(high, (o.distortion - t.distortion) / (t.bits - o.bits));
        if (o.bits > t.bits) low = std::max(low, (t.distortion - o.distortion) / (o.bits - t.bits));
        if (o.bits == t.bits && o.distortion < t.distortion) on_hull = false;
      }
      if (!on_hull || !(low < high * (1 - 1e-6))) continue;
      const RatePlan plan = allocate_rates(linears, t.bits);
      BOOST_TEST(plan.distortion <= t.distortion + 1e-9);
      BOOST_TEST(plan.gap() < 1e-6);
    }
  }
  BOOST_TEST(at_vertex > cases / 10);
}

BOOST_AUTO_TEST_CASE(the_remainder_is_smaller_than_any_step_that_gains) {
  Random random(2);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<LinearRates> linears(3);
    for (LinearRates& linear : linears) linear.modes = {random_mode(random, 40, true)};
    const double budget = 3 * 40 * 3 * (2.2 + 3 * random.uniform());
    const RatePlan plan = allocate_rates(linears, budget);
    BOOST_TEST(plan.bits <= budget * (1 + 1e-9));
    for (std::size_t g = 0; g < linears.size(); ++g) {
      const RateMode& mode = linears[g].modes[0];
      for (std::size_t c = 0; c < 40; ++c)
        for (std::size_t k = 1; k < 3; ++k) {
          if (mode.widths[k] <= plan.linears[g].bits[c]) continue;
          const std::size_t now = plan.linears[g].bits[c] == 2 ? 0 : 1;
          const double cost = mode.cost[3 * c + k] - mode.cost[3 * c + now];
          const double gain = mode.distortion[3 * c + now] - mode.distortion[3 * c + k];
          BOOST_TEST((cost > budget - plan.bits || gain <= 0));
        }
    }
    // Near the bound: less than what the best single step would gain.
    double step = 0;
    for (const LinearRates& linear : linears)
      for (std::size_t i = 0; i < linear.modes[0].distortion.size(); i += 3)
        step = std::max(step, linear.modes[0].distortion[i] - linear.modes[0].distortion[i + 2]);
    BOOST_TEST(plan.gap() <= step);
  }
}

BOOST_AUTO_TEST_CASE(agrees_with_the_policy_of_one_linear) {
  Random random(3);
  for (int trial = 0; trial < 30; ++trial) {
    std::vector<double> scores;
    for (int c = 0; c < 64; ++c) scores.push_back(std::exp(4 * random.normal()));
    const std::vector<int> tiers{2, 3, 4, 6, 8};
    const double target = 2.2 + 4 * random.uniform();
    const RatePlan plan =
        allocate_rates(std::vector<LinearRates>{{{exponential(scores, tiers)}}}, 64 * target);
    const std::vector<std::uint8_t> other = Budget{}(scores, tiers, target);
    double loss = 0, rates = 0;
    for (std::size_t c = 0; c < 64; ++c) {
      loss += scores[c] * std::pow(4.0, -other[c]);
      rates += other[c];
    }
    BOOST_TEST(rates <= 64 * target + 1e-9);
    BOOST_TEST(plan.distortion <= loss * (1 + 0.02));
    BOOST_TEST(plan.bound <= loss * (1 + 1e-12));
  }
}

BOOST_AUTO_TEST_CASE(never_worse_than_uniform_widths) {
  Random random(4);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<LinearRates> linears(2);
    for (LinearRates& linear : linears) linear.modes = {random_mode(random, 30, true)};
    for (const std::size_t k : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      double bits = 0, loss = 0;
      for (const LinearRates& linear : linears) {
        bits += linear.modes[0].fixed_bits;
        for (std::size_t c = 0; c < 30; ++c) {
          bits += linear.modes[0].cost[3 * c + k];
          loss += linear.modes[0].distortion[3 * c + k];
        }
      }
      BOOST_TEST(allocate_rates(linears, bits).distortion <= loss * (1 + 1e-12));
    }
  }
}

BOOST_AUTO_TEST_CASE(scale_order_and_ties) {
  Random random(5);
  std::vector<LinearRates> linears{{{random_mode(random, 30, true), random_mode(random, 30, true)}},
                                   {{random_mode(random, 20, true)}}};
  const double budget = 500;
  const RatePlan plan = allocate_rates(linears, budget);
  const auto same = [](const RatePlan& a, const RatePlan& b) {
    for (std::size_t g = 0; g < a.linears.size(); ++g)
      if (a.linears[g].mode != b.linears[g].mode || a.linears[g].bits != b.linears[g].bits)
        return false;
    return true;
  };
  BOOST_TEST(same(plan, allocate_rates(linears, budget)));
  for (const double scale : {0x1p-40, 0x1p7, 0x1p60}) {
    std::vector<LinearRates> scaled = linears;
    for (LinearRates& linear : scaled)
      for (RateMode& mode : linear.modes)
        for (double& d : mode.distortion) d *= scale;
    const RatePlan other = allocate_rates(scaled, budget);
    BOOST_TEST(same(plan, other));
    BOOST_TEST(relative_difference(other.distortion, scale * plan.distortion) < 1e-12);
  }
  // Groups in another order.
  const RatePlan swapped = allocate_rates(std::vector<LinearRates>{linears[1], linears[0]}, budget);
  BOOST_TEST(relative_difference(swapped.distortion, plan.distortion) < 1e-12);
  // Equal channels: the first ones are the wider ones.
  const RatePlan ties =
      allocate_rates(std::vector<LinearRates>{{{exponential(std::vector<double>(4, 1.0), {2, 3})}}},
                     10);
  BOOST_TEST((ties.linears[0].bits == std::vector<std::uint8_t>{3, 3, 2, 2}));
  // Channels that lose nothing take nothing.
  const RatePlan idle =
      allocate_rates(std::vector<LinearRates>{{{exponential({0, 1, 0, 1}, {2, 3})}}}, 12);
  BOOST_TEST((idle.linears[0].bits == std::vector<std::uint8_t>{2, 3, 2, 3}));
}

BOOST_AUTO_TEST_CASE(a_mode_is_chosen_by_the_budget) {
  RateMode cheap = exponential({1, 1}, {2, 3}), dear = cheap;
  for (double& d : dear.distortion) d *= 0.01;
  dear.fixed_bits = 5;
  const std::vector<LinearRates> linears{{{cheap, dear}}};
  BOOST_TEST(allocate_rates(linears, 4).linears[0].mode == 0u);
  BOOST_TEST(allocate_rates(linears, 6).linears[0].mode == 0u);
  BOOST_TEST(allocate_rates(linears, 11).linears[0].mode == 1u);
}

BOOST_AUTO_TEST_CASE(wrong_tables_are_refused) {
  const RateMode good = exponential({1, 2, 3}, {2, 3});
  const auto refused = [](const RateMode& mode, double budget = 100) {
    BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{{{mode}}}, budget), argument_error);
  };
  BOOST_CHECK_NO_THROW(allocate_rates(std::vector<LinearRates>{{{good}}}, 6));
  BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{}, 6), argument_error);
  BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{{}}, 6), argument_error);
  BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{{{good}}}, 5.9), unattainable_error);
  BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{{{good}}}, std::nan("")),
                    unattainable_error);
  RateMode bad = good;
  bad.cost.pop_back();
  refused(bad);
  bad = good;
  bad.widths = {3, 2};
  refused(bad);
  bad = good;
  bad.distortion[3] = -1;
  refused(bad);
  bad = good;
  bad.distortion[0] = std::nan("");
  refused(bad);
  bad = good;
  bad.cost[1] = bad.cost[0];
  refused(bad);
  bad = good;
  bad.fixed_bits = -1;
  refused(bad);
  BOOST_CHECK_THROW(allocate_rates(std::vector<LinearRates>{{{good, exponential({1, 2}, {2, 3})}}},
                                   100),
                    argument_error);
}

BOOST_AUTO_TEST_CASE(linears_that_share_a_width_cost_and_lose_the_sum) {
  Random random(7);
  const LinearRates one{{random_mode(random, 3, true), random_mode(random, 3, true)}};
  const LinearRates other{{random_mode(random, 2, true), random_mode(random, 2, true)}};
  const std::vector<const LinearRates*> both{&one, &other};
  const LinearRates shared = shared_rates(both);
  BOOST_REQUIRE(shared.modes.size() == 2u);
  for (std::size_t m = 0; m < 2; ++m) {
    const RateMode& mode = shared.modes[m];
    BOOST_TEST(mode.channels() == 1u);
    BOOST_TEST(mode.fixed_bits == one.modes[m].fixed_bits + other.modes[m].fixed_bits);
    for (std::size_t k = 0; k < 3; ++k) {
      double cost = 0, distortion = 0;
      for (const RateMode* of : {&one.modes[m], &other.modes[m]})
        for (std::size_t c = 0; c < of->channels(); ++c) {
          cost += of->cost[3 * c + k];
          distortion += of->distortion[3 * c + k];
        }
      BOOST_TEST(mode.cost[k] == cost);
      BOOST_TEST(std::abs(mode.distortion[k] - distortion) < 1e-12);
    }
  }
  LinearRates fewer = other;
  fewer.modes.pop_back();
  const std::vector<const LinearRates*> unlike{&one, &fewer};
  BOOST_CHECK_THROW(shared_rates(unlike), argument_error);
  BOOST_CHECK_THROW(shared_rates({}), argument_error);
}

BOOST_AUTO_TEST_CASE(many_channels_come_close_to_the_bound) {
  Random random(6);
  std::vector<LinearRates> linears(64);
  for (LinearRates& linear : linears) {
    std::vector<double> scores;
    for (int c = 0; c < 4000; ++c) scores.push_back(std::exp(3 * random.normal()));
    linear.modes = {exponential(scores, {2, 3, 4, 6, 8})};
  }
  const RatePlan plan = allocate_rates(linears, 64 * 4000 * 3.0);
  BOOST_TEST(plan.gap() <= 1e-5 * plan.distortion);
}
