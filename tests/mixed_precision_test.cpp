// Bit widths per channel in the solver: given by the caller, or chosen by an objective.
#define BOOST_TEST_MODULE pare_mixed_precision
#include <boost/test/unit_test.hpp>

#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

using RoundAssigned = Compression<Dense, BaseQuantizer, MixedPrecision<Assigned>>;
using JointAssigned = Compression<Unstructured, BaseQuantizer, MixedPrecision<Assigned>>;
using GroupsAssigned = Compression<NofM<>, BaseQuantizer, MixedPrecision<Assigned>>;

/// The options without what chooses widths.
SolverOptions assigned(SolverOptions options) {
  options.bits.reset();
  options.target_average_bits.reset();
  options.tiers.reset();
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(assigned_widths_give_the_bytes_of_the_policy_that_chose_them, C,
                              Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{21, 136, {3}, 90});
  const auto check = [&]<class Chosen, class Given>(std::type_identity<Chosen>,
                                                    std::type_identity<Given>,
                                                    SolverOptions options) {
    for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
      options.axis = axis;
      SparseGPTSolver<Chosen, B, T> policy(options);
      SparseGPTSolver<Given, B, T> given(assigned(options));
      auto chosen = policy.solve(data.weights.view(), data.calibration);
      const auto factor = given.prepare(data.calibration);
      const auto layer = given.solve(data.weights.view(), data.calibration, factor, chosen.bits);
      BOOST_TEST(layer.scores.empty());
      BOOST_TEST((layer.mixed_widths && chosen.mixed_widths));
      chosen.scores.clear();
      BOOST_TEST((layer_bytes<B, T>(layer) == layer_bytes<B, T>(chosen)), to_string(axis));
    }
  };
  check(std::type_identity<RoundQuantile>{}, std::type_identity<RoundAssigned>{},
        {.bits = 4, .target_average_bits = 3.5, .grid = {.clip_search = true}});
  check(std::type_identity<JointBudget>{}, std::type_identity<JointAssigned>{},
        {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.0, .act_order = true});
  check(std::type_identity<GroupsBudget>{}, std::type_identity<GroupsAssigned>{},
        {.zeros = 2, .group = 4, .bits = 4, .target_average_bits = 2.7});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_width_for_all_is_the_base_quantizer, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{21, 136, {3}, 91});
  for (const int bits : {2, 3, 5, 8}) {
    SparseGPTSolver<Round, B, T> base({.bits = bits});
    SparseGPTSolver<RoundAssigned, B, T> given(SolverOptions{});
    const std::vector<std::uint8_t> widths(21, std::uint8_t(bits));
    const auto one = base.solve(data.weights.view(), data.calibration);
    const auto other = given.solve(data.weights.view(), data.calibration,
                                   given.prepare(data.calibration), widths);
    BOOST_TEST((layer_bytes<B, T>(one) == layer_bytes<B, T>(other)), bits << " bits");
    BOOST_TEST(!one.mixed_widths);
    BOOST_TEST(other.mixed_widths);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(assigned_widths_are_checked, C, FloatCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{21, 136, {3}, 92});
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
    SparseGPTSolver<RoundAssigned, B, T> solver({.axis = axis});
    const auto factor = solver.prepare(data.calibration);
    const auto refusal = [&](const std::vector<std::uint8_t>& bits) {
      return message_of<argument_error>(
          [&] { solver.solve(data.weights.view(), data.calibration, factor, bits); });
    };
    const std::size_t channels = axis == ChannelAxis::output ? 21 : 136;
    std::vector<std::uint8_t> bits(channels, 3);
    BOOST_TEST(refusal(bits).empty());
    for (const int wrong : {0, 1, 9, 255}) {
      bits[7] = std::uint8_t(wrong);
      BOOST_TEST(refusal(bits) == "bits: expected widths within 2..8, got " +
                                      std::to_string(wrong) + " for channel 7");
    }
    for (const std::size_t count : {channels - 1, channels + 1, std::size_t(0)})
      BOOST_TEST(refusal(std::vector<std::uint8_t>(count, 3)) ==
                 "bits: expected one width for each of " + std::to_string(channels) +
                     " channels, got " + std::to_string(count));
  }
}

BOOST_AUTO_TEST_CASE(options_that_assigned_widths_would_ignore_are_refused) {
  using B = test::Oracle;
  const auto refusal = [](SolverOptions options) {
    return message_of<argument_error>([&] { SparseGPTSolver<RoundAssigned, B, float>{options}; });
  };
  BOOST_TEST(refusal({}).empty());
  BOOST_TEST(contains(refusal({.bits = 4}), "bits: with MixedPrecision<Assigned>"));
  BOOST_TEST(contains(refusal({.target_average_bits = 3.0}),
                      "target_average_bits: with MixedPrecision<Assigned>"));
  BOOST_TEST(contains(refusal({.tiers = {{2, 3}}}), "tiers: with MixedPrecision<Assigned>"));
  BOOST_TEST(contains(refusal({.sparsity = 0.5}), "sparsity: the configuration has no"));
}
