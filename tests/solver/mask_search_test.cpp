// Masks by alternating directions and weights by an exact solve, against the formulas in double.
#define BOOST_TEST_MODULE pare_mask_search
#include <boost/test/unit_test.hpp>

#include "pare/pipeline/linear_statistics.hpp"
#include "pare/report/json.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

using SearchShare = Compression<Unstructured, DynamicSearch>;
using SearchRuns = Compression<NofM<>, DynamicSearch>;
using SearchJoint = Compression<Unstructured, BaseQuantizer, DynamicSearch>;
using RefineGiven = Compression<Dense, DynamicSearch>;

constexpr index_t rows = 24, cols = 72;

Matrix<std::uint8_t> random_mask(double share, std::uint64_t seed) {
  Random random(seed);
  Matrix<std::uint8_t> mask(rows, cols);
  for (index_t i = 0; i < mask.size(); ++i)
    mask.data()[i] = random.uniform() < share ? std::uint8_t(1 + i % 3) : 0;
  return mask;
}

/// H + damping (in, in) of what a solve has used.
template <class B, class T>
std::vector<double> damped(const Data<B, T>& data, const CompressedLinear<B, T>& solved) {
  std::vector<double> H = data.H;
  const std::size_t n = std::size_t(data.W.cols());
  double mean = 0;
  for (std::size_t j = 0; j < n; ++j) mean += H[j * n + j] / double(n);
  for (std::size_t j = 0; j < n; ++j) H[j * n + j] += solved.damping * mean;
  return H;
}

/// The gradient (Q - W) H of what the mask leaves over W H, both Frobenius norms.
template <class B, class T>
double gradient_share(const Data<B, T>& data, const CompressedLinear<B, T>& solved) {
  const std::vector<double> H = damped(data, solved);
  const Matrix<T> Q = download<B>(solved.weights);
  const auto mask = download<B>(solved.mask);
  const index_t n = Q.cols();
  double gradient = 0, whole = 0;
  for (index_t i = 0; i < Q.rows(); ++i)
    for (index_t j = 0; j < n; ++j) {
      double g = 0, w = 0;
      for (index_t k = 0; k < n; ++k) {
        const double h = H[std::size_t(k * n + j)], weight = double(data.W(i, k));
        g += (double(Q(i, k)) - weight) * h;
        w += weight * h;
      }
      whole += w * w;
      if (mask(i, j) == 0) gradient += g * g;
    }
  return std::sqrt(gradient / whole);
}

/// What the linear has lost by row.
std::vector<index_t> by_row(const Matrix<std::uint8_t>& mask) {
  std::vector<index_t> counts;
  for (index_t i = 0; i < mask.rows(); ++i) {
    index_t count = 0;
    for (index_t j = 0; j < mask.cols(); ++j) count += mask(i, j) != 0;
    counts.push_back(count);
  }
  return counts;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_search_is_exact_on_its_support_and_repeats_its_bytes, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{rows, cols, {}, 71});
  const auto check = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto factor = solver.prepare(data.calibration);
    const auto solve = [&] {
      return solver.solve(
          {.weights = data.weights.view(), .calibration = data.calibration, .factor = factor});
    };
    const auto solved = solve();
    BOOST_TEST(solved.refined);
    BOOST_TEST((solved.mask_search == options.mask_search));
    BOOST_TEST(solved.loss < 0.97 * *solved.greedy_loss);
    BOOST_TEST(gradient_share(data, solved) <= 1e-3);
    const std::vector<double> losses =
        closed_form_loss(doubles(data.W), doubles(download<B>(solved.weights)), data.H,
                         solved.damping);
    const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
    BOOST_TEST(relative_difference(sum, solved.loss) <= 10 * tolerance<T>);
    // Inverses that the first solve has left change nothing, nor does a fresh solver.
    BOOST_TEST((layer_bytes<B, T>(solve()) == layer_bytes<B, T>(solved)));
    SparseGPTSolver<Config, B, T> other(options);
    BOOST_TEST((layer_bytes<B, T>(other.solve(data.weights.view(), data.calibration)) ==
                layer_bytes<B, T>(solved)));
    const LinearStatistics statistics = linear_statistics("linear", solved, 16);
    BOOST_TEST(statistics.mask_search ==
               (options.refine ? "greedy refined" : to_string(options.mask_search)));
    const LinearStatistics read = linear_statistics_of_json(record_json(statistics));
    BOOST_TEST(read.mask_search == statistics.mask_search);
    BOOST_TEST(*read.greedy_loss == *solved.greedy_loss);
  };
  const MaskSearch admm = MaskSearch::alternating;
  check(std::type_identity<SearchRuns>{}, {.zeros = 2, .of = 4, .mask_search = admm});
  check(std::type_identity<SearchShare>{},
        {.sparsity = 0.6, .act_order = true, .mask_search = admm});
  check(std::type_identity<SearchShare>{}, {.sparsity = 0.6, .refine = true});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_unstructured_mask_is_counted_over_what_was_asked_for, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{rows, cols, {5}, 72});
  const Matrix<std::uint8_t> none(rows, cols), some = random_mask(0.2, 73),
                                               many = random_mask(0.7, 74);
  for (const MaskRegion region : {MaskRegion::linear, MaskRegion::row, MaskRegion::block})
    for (const Matrix<std::uint8_t>* mask : {&none, &some, &many}) {
      const auto given = B::from_host(MatrixView<const std::uint8_t>(mask->view()));
      const SolverOptions options{.sparsity = 0.55,
                                  .block_size = 32,
                                  .act_order = true,
                                  .mask_search = MaskSearch::alternating,
                                  .mask_region = region};
      SparseGPTSolver<SearchShare, B, T> solver(options);
      const auto solved = solver.solve({.weights = data.weights.view(),
                                        .calibration = data.calibration,
                                        .mask = detail::as_const(given.view())});
      const auto found = download<B>(solved.mask);
      const Matrix<T> Q = download<B>(solved.weights);
      for (index_t i = 0; i < found.size(); ++i) {
        if (mask->data()[i] != 0) BOOST_REQUIRE_EQUAL(int(found.data()[i]), 1);
        if (found.data()[i] != 0) BOOST_REQUIRE_EQUAL(Q.data()[i], T(0));
      }
      BOOST_TEST(solved.loss <= *solved.greedy_loss);
      if (mask != &many) BOOST_TEST((solved.mask_search == MaskSearch::alternating));
      if (solved.mask_region != region) continue;  // the greedy result was kept
      const std::vector<index_t> lost = by_row(found), forced = by_row(*mask);
      if (region == MaskRegion::row)
        for (std::size_t i = 0; i < lost.size(); ++i)
          BOOST_TEST(lost[i] == std::max(forced[i], pruned_count(0.55, cols)));
      if (region == MaskRegion::linear)
        BOOST_TEST(std::accumulate(lost.begin(), lost.end(), index_t{0}) ==
                   std::max(std::accumulate(forced.begin(), forced.end(), index_t{0}),
                            pruned_count(0.55, rows * cols)));
      if (region == MaskRegion::row && mask == &none) {
        auto wrong = solved;  // a weight more, in one row
        Matrix<std::uint8_t> changed = found;
        const index_t at = std::find(found.data(), found.data() + cols, 0) - found.data();
        changed(0, at) = 1;
        wrong.mask = upload<B>(changed);
        Matrix<T> zeroed = Q;
        zeroed(0, at) = 0;
        wrong.weights = upload<B>(zeroed);
        const auto factor = solver.prepare(data.calibration);
        BOOST_TEST(contains(message_of<invariant_error>([&] {
                              verify_linear<B, T>(data.weights.view(), data.calibration, factor,
                                                  wrong, false);
                            }),
                            "row 0: expected 39 pruned weights, found 40"));
      }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_mask_from_elsewhere_is_refined, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{rows, cols, {}, 75});
  const Matrix<std::uint8_t> mask = random_mask(0.5, 76);
  const auto given = B::from_host(MatrixView<const std::uint8_t>(mask.view()));
  SparseGPTSolver<RefineGiven, B, T> solver({.refine = true});
  const auto solved = solver.solve({.weights = data.weights.view(),
                                    .calibration = data.calibration,
                                    .mask = detail::as_const(given.view())});
  const auto found = download<B>(solved.mask);
  for (index_t i = 0; i < found.size(); ++i)
    BOOST_REQUIRE_EQUAL(found.data()[i] != 0, mask.data()[i] != 0);
  BOOST_TEST(gradient_share(data, solved) <= 1e-3);
  BOOST_TEST(solved.loss < *solved.greedy_loss);
  BOOST_TEST(contains(
      message_of<argument_error>([&] { solver.solve(data.weights.view(), data.calibration); }),
      "mask: without a pattern only a mask that is given leaves weights to refine"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rounding_keeps_the_mask_that_was_searched_for, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{rows, cols, {}, 77});
  SparseGPTSolver<SearchJoint, B, T> solver(
      {.sparsity = 0.6, .bits = 4, .mask_search = MaskSearch::alternating});
  const auto solved = solver.solve(data.weights.view(), data.calibration);
  BOOST_TEST((solved.mask_search == MaskSearch::alternating));
  BOOST_TEST(solved.loss < *solved.greedy_loss);
  BOOST_TEST(solved.quantized());
  BOOST_TEST((solved.pattern == unstructured(0.6)));
  const auto lost = by_row(download<B>(solved.mask));
  BOOST_TEST(std::accumulate(lost.begin(), lost.end(), index_t{0}) ==
             pruned_count(0.6, rows * cols));
  const std::vector<double> losses =
      closed_form_loss(doubles(data.W), doubles(download<B>(solved.weights)), data.H,
                       solved.damping);
  for (std::size_t i = 0; i < losses.size(); ++i)
    BOOST_TEST(relative_difference(losses[i], solved.row_loss[i]) <= 100 * tolerance<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(options_of_a_search_that_would_be_ignored_are_errors, C, FloatCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto error = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    return message_of<argument_error>([&] { SparseGPTSolver<Config, B, T>{options}; });
  };
  const std::type_identity<SearchShare> share;
  const MaskSearch admm = MaskSearch::alternating;
  BOOST_TEST(contains(error(std::type_identity<Prune>{}, {.sparsity = 0.5, .mask_search = admm}),
                      "mask_search: the configuration has no search for masks"));
  BOOST_TEST(contains(error(std::type_identity<Prune>{}, {.sparsity = 0.5, .refine = true}),
                      "refine: the configuration has no search for masks"));
  BOOST_TEST(contains(error(share, {.sparsity = 0.5, .mask_search = admm, .refine = true}),
                      "refine: with mask_search alternating"));
  BOOST_TEST(contains(error(share, {.sparsity = 0.5, .mask_region = MaskRegion::row}),
                      "mask_region: only an unstructured mask"));
  BOOST_TEST(
      contains(error(std::type_identity<SearchRuns>{},
                     {.zeros = 2, .of = 4, .mask_search = admm, .mask_region = MaskRegion::row}),
               "mask_region: only an unstructured mask"));
  BOOST_TEST(contains(error(std::type_identity<RefineGiven>{}, {.mask_search = admm}),
                      "mask_search: the configuration has no pattern"));
}
