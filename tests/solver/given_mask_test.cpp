// solve({.mask = mask}): weights that must be zero, alone and with further pruning.
#define BOOST_TEST_MODULE pare_given_mask
#include <boost/test/unit_test.hpp>

#include "pare/pipeline/linear_statistics.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

constexpr index_t rows = 21, cols = 140;

/// About `share` of the weights, in bytes other than 1 too.
Matrix<std::uint8_t> random_mask(double share, std::uint64_t seed) {
  Random random(seed);
  Matrix<std::uint8_t> mask(rows, cols);
  for (index_t i = 0; i < mask.size(); ++i)
    mask.data()[i] = random.uniform() < share ? std::uint8_t(1 + i % 3) : 0;
  return mask;
}

/// Solves with the mask and holds the result against the formulas in double.
template <class Config, class B, class T>
CompressedLinear<B, T> check(const SolverOptions& options, const Matrix<std::uint8_t>& mask) {
  const Data<B, T> data(Problem{rows, cols, {3, 77}, 70});
  const auto given = upload<B>(mask);
  SparseGPTSolver<Config, B, T> solver(options);
  auto solved = solver.solve(
      {.weights = data.weights.view(), .calibration = data.calibration, .mask = given.view()});

  PublishedOptions o;
  o.sparsity = options.sparsity.value_or(0);
  o.zeros = options.zeros.value_or(0);
  o.of = options.of.value_or(0);
  if (solved.quantized())
    (options.axis == ChannelAxis::input ? o.column_bits : o.row_bits)
        .assign(solved.bits.begin(), solved.bits.end());
  o.damping = options.damping;
  o.block_size = std::size_t(options.block_size);
  o.order = {solved.order.begin(), solved.order.end()};
  o.given.assign(mask.data(), mask.data() + mask.size());
  const PublishedResult expected = published_sparsegpt(doubles(data.W), data.H, o);

  const Matrix<T> Q = download<B>(solved.weights);
  const Matrix<std::uint8_t> pruned = download<B>(solved.mask);
  double largest = 0;
  for (const double w : expected.weights) largest = std::max(largest, std::abs(w));
  index_t differing = 0;
  for (index_t i = 0; i < Q.size(); ++i) {
    if (mask.data()[i] != 0) BOOST_REQUIRE_EQUAL(Q.data()[i], T(0));
    if (pruned.data()[i] != 0) BOOST_REQUIRE_EQUAL(Q.data()[i], T(0));
    if constexpr (sizeof(T) == 8) {
      BOOST_REQUIRE_LE(std::abs(double(Q.data()[i]) - expected.weights[std::size_t(i)]),
                       1e-9 * largest);
      BOOST_REQUIRE_EQUAL(int(pruned.data()[i]), int(expected.mask[std::size_t(i)]));
    }
    differing += pruned.data()[i] != expected.mask[std::size_t(i)];
  }
  BOOST_TEST(differing <= Q.size() / 200);
  BOOST_TEST(relative_difference(solved.loss, expected.loss) < (sizeof(T) == 8 ? 1e-9 : 5e-3));
  return solved;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_given_mask_is_kept_when_nothing_else_is_pruned, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<std::uint8_t> mask = random_mask(0.5, 1);
  const auto solved = check<Round, B, T>({.bits = 4, .act_order = true}, mask);
  const Matrix<std::uint8_t> pruned = download<B>(solved.mask);
  for (index_t i = 0; i < mask.size(); ++i)
    BOOST_REQUIRE_EQUAL(int(pruned.data()[i]), int(mask.data()[i] != 0));
  check<RoundQuantile, B, T>({.bits = 4, .target_average_bits = 4.0, .axis = ChannelAxis::input},
                             mask);
  // What is stored and counted holds the mask.
  const LinearStatistics statistics = linear_statistics("linear", solved, 32);
  index_t marked = 0;
  for (index_t i = 0; i < mask.size(); ++i) marked += mask.data()[i] != 0;
  BOOST_TEST(statistics.sparsity == double(marked) / double(mask.size()));
  BOOST_TEST(statistics.stored_bits < 4.0 * double(mask.size()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_given_mask_counts_in_what_is_pruned, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  // Less than the share, more than it, all of a row and none.
  for (const double share : {0.2, 0.8}) {
    Matrix<std::uint8_t> mask = random_mask(share, 2);
    for (index_t j = 0; j < cols; ++j) {
      mask(4, j) = 1;
      mask(5, j) = 0;
    }
    check<Prune, B, T>({.sparsity = 0.5, .block_size = 32}, mask);
    check<Joint, B, T>({.sparsity = 0.5, .bits = 3, .act_order = true}, mask);
    check<JointBudget, B, T>(
        {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.0, .axis = ChannelAxis::input}, mask);
    check<JointDistortion, B, T>({.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5}, mask);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(groups_lose_first_what_is_given, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const double share : {0.3, 0.6})  // of 0.6 some groups of four hold three
    for (const auto& [zeros, of] : {std::pair{2, 4}, std::pair{3, 5}}) {
      const auto solved = check<GroupsBudget, B, T>(
          {.zeros = zeros, .of = of, .bits = 4, .target_average_bits = 4.0, .act_order = true},
          random_mask(share, 3));
    }
  // A linear that is 2:4 already stays what it is.
  Matrix<std::uint8_t> mask(rows, cols);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; j += 4) {
      mask(i, j + (i + j / 4) % 4) = 1;
      mask(i, j + (i + j / 4 + 1 + i % 2) % 4) = 1;
    }
  const auto solved = check<PruneGroups, B, T>({.zeros = 2, .of = 4}, mask);
  BOOST_TEST(same_bytes(download<B>(solved.mask), mask));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_empty_mask_changes_nothing_and_a_wrong_one_is_an_error, C,
                              FloatCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{rows, cols, {3}, 71});
  SparseGPTSolver<Joint, B, T> solver({.sparsity = 0.5, .bits = 3});
  const auto none = upload<B>(Matrix<std::uint8_t>(rows, cols));
  const auto plain = solver.solve(data.weights.view(), data.calibration);
  const auto masked = solver.solve(
      {.weights = data.weights.view(), .calibration = data.calibration, .mask = none.view()});
  BOOST_TEST((layer_bytes<B, T>(plain) == layer_bytes<B, T>(masked)));
  const auto wrong = upload<B>(Matrix<std::uint8_t>(rows, cols - 1));
  BOOST_CHECK_THROW(solver.solve({.weights = data.weights.view(),
                                  .calibration = data.calibration,
                                  .mask = wrong.view()}),
                    shape_error);
}
