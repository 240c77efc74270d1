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
      const auto linear = given.solve({.weights = data.weights.view(),
                                       .calibration = data.calibration,
                                       .factor = factor,
                                       .bits = chosen.bits});
      BOOST_TEST(linear.scores.empty());
      BOOST_TEST((linear.mixed_widths && chosen.mixed_widths));
      chosen.scores.clear();
      BOOST_TEST((layer_bytes<B, T>(linear) == layer_bytes<B, T>(chosen)), to_string(axis));
    }
  };
  check(std::type_identity<RoundQuantile>{}, std::type_identity<RoundAssigned>{},
        {.bits = 4, .target_average_bits = 3.5, .grid = {.clip_search = true}});
  check(std::type_identity<JointBudget>{}, std::type_identity<JointAssigned>{},
        {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.0, .act_order = true});
  check(std::type_identity<GroupsBudget>{}, std::type_identity<GroupsAssigned>{},
        {.zeros = 2, .of = 4, .bits = 4, .target_average_bits = 2.7});
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
    const auto other = given.solve(
        {.weights = data.weights.view(), .calibration = data.calibration, .bits = widths});
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
      return message_of<argument_error>([&] {
        solver.solve({.weights = data.weights.view(),
                      .calibration = data.calibration,
                      .factor = factor,
                      .bits = bits});
      });
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

// ---------------------------------------------------------------- the distortion objective

namespace {

using RoundDistortion = Compression<Dense, BaseQuantizer, MixedPrecision<Budget, GridDistortion>>;
using JointDistortion =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, GridDistortion>>;
using RankDistortion = Compression<Dense, BaseQuantizer, MixedPrecision<Quantile, GridDistortion>>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(distortion_is_the_sum_over_a_channel, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t rows = 21, cols = 136;
  Data<B, T> data(Problem{rows, cols, {3}, 93});
  for (index_t i = 0; i < rows; ++i) data.W(i, 3) = 100;  // dead
  data.weights = upload<B>(data.W);
  const auto factor = factorize(data.calibration);
  const std::vector<int> widths{2, 5, 8};
  Matrix<std::uint8_t> mask(rows, cols);
  for (index_t i = 0; i < mask.size(); ++i) mask.data()[i] = i % 3 == 1;
  const auto on_mask = upload<B>(mask);
  for (const bool clip_search : {false, true})
    for (const bool masked : {false, true}) {
      const ScoringInput<B, T> input{
          data.weights.view(), data.calibration, factor, 4, {.clip_search = clip_search}};
      std::vector<double> by_row(std::size_t(rows * 3)), by_column(std::size_t(cols * 3));
      for (index_t i = 0; i < rows; ++i)
        for (std::size_t k = 0; k < 3; ++k) {
          std::vector<T> row(data.W.view().row(i), data.W.view().row(i) + cols);
          row[3] = 0;
          const Grid<T> grid = fit_grid(row.data(), cols, widths[k], {.clip_search = clip_search});
          for (index_t j = 0; j < cols; ++j) {
            if (j == 3) continue;  // dead: nothing is lost there
            const double w = data.W(i, j), u = factor.upper_diagonal[std::size_t(j)];
            const double q =
                masked && mask(i, j) != 0
                    ? 0
                    : double(round_to_grid(data.W(i, j), grid.scale, grid.zero, grid.top));
            by_row[std::size_t(i) * 3 + k] += (w - q) * (w - q) / (u * u);
            by_column[std::size_t(j) * 3 + k] += (w - q) * (w - q) / (u * u);
          }
        }
      const MatrixView<const std::uint8_t> none;
      const auto compare = [&](ChannelAxis axis, const std::vector<double>& expected) {
        const auto got = channel_distortion(input, axis, widths,
                                            masked ? detail::as_const(on_mask.view()) : none);
        BOOST_REQUIRE_EQUAL(got.size(), expected.size());
        for (std::size_t i = 0; i < got.size(); ++i)
          // A code on the border of two may differ by the grid's last digit.
          BOOST_TEST(relative_difference(got[i], expected[i]) < 1e-3, to_string(axis) << " " << i);
      };
      compare(ChannelAxis::output, by_row);
      compare(ChannelAxis::input, by_column);
      BOOST_CHECK_THROW(channel_distortion(input, ChannelAxis::output, std::vector<int>{9}),
                        argument_error);
      const auto small = upload<B>(Matrix<std::uint8_t>(rows, cols - 1));
      BOOST_CHECK_THROW(channel_distortion(input, ChannelAxis::output, widths,
                                           detail::as_const(small.view())),
                        shape_error);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(budget_spends_along_the_curves_of_distortion, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  // Rows of very different size, so that there is something to gain.
  Problem problem{40, 136, {3}, 94};
  Data<B, T> data(problem);
  Matrix<T> W = data.W;
  Random random(9);
  for (index_t i = 0; i < W.rows(); ++i) {
    const T size = T(std::exp(random.normal()));
    for (index_t j = 0; j < W.cols(); ++j) W(i, j) *= size;
  }
  for (index_t j = 0; j < W.cols(); ++j) W(7, j) = 0;  // a row that loses nothing at any width
  const auto weights = upload<B>(W);
  const auto loss = [&]<class Config>(std::type_identity<Config>, SolverOptions options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto linear = solver.solve(weights.view(), data.calibration);
    double mean = 0;
    for (const std::uint8_t b : linear.bits) mean += double(b) / double(linear.bits.size());
    BOOST_TEST(mean <= 3 + 1e-9);
    BOOST_TEST(mean > 3 - 2.0 / double(linear.bits.size()));  // less than a step is left
    if (Config::mixed) BOOST_TEST(linear.scores.size() == linear.bits.size());
    return linear.loss;
  };
  using std::type_identity;
  const double uniform = loss(type_identity<Round>{}, {.bits = 3});
  const SolverOptions mixed{.bits = 3, .target_average_bits = 3.0};
  BOOST_TEST(loss(type_identity<RoundDistortion>{}, mixed) < 0.7 * uniform);
  BOOST_TEST(loss(type_identity<RankDistortion>{}, mixed) > 0);
  SolverOptions by_input = mixed;
  by_input.axis = ChannelAxis::input;
  BOOST_TEST(loss(type_identity<RoundDistortion>{}, by_input) > 0);

  const double pruned = loss(type_identity<Joint>{}, {.sparsity = 0.5, .bits = 3});
  SolverOptions joint = mixed;
  joint.sparsity = 0.5;
  BOOST_TEST(loss(type_identity<JointDistortion>{}, joint) < pruned);
}
