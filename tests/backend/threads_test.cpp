// What OpenMP grants, and how many solvers work side by side, changes no byte (post-condition 7).
#define BOOST_TEST_MODULE pare_threads
#include <boost/test/unit_test.hpp>

#include <functional>
#include <thread>

#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

constexpr index_t rows = 150, cols = 300, tokens = 400;

/// Calibration, scores, factor, sweep and the products of a forward pass, as bytes. Everything it
/// works with is its own.
template <class B>
std::string all_of(std::uint64_t seed) {
  const auto W = upload<B>(random_normal<float>(rows, cols, seed, 0.1));
  const auto X = upload<B>(correlated_activations<float>(tokens, cols, seed + 100, 0.1));
  Calibration<B, float> calibration(cols);
  calibration.add(detail::as_const(X.view()), 4);
  SparseGPTSolver<JointBudget, B, float> solver({.sparsity = 0.5,
                                                 .bits = 4,
                                                 .target_average_bits = 3.0,
                                                 .axis = ChannelAxis::input,
                                                 .act_order = true});
  const auto solved = solver.solve(detail::as_const(W.view()), calibration);
  typename B::template matrix<float> Y;  // (tokens, out)
  Y.resize(tokens, rows);
  B::linear(Y.view(), detail::as_const(X.view()), detail::as_const(solved.weights.view()),
            MatrixView<const float>{});
  const auto host = download<B>(Y);
  return layer_bytes<B, float>(solved) + std::string(reinterpret_cast<const char*>(host.data()),
                                                     std::size_t(host.size()) * sizeof(float));
}

using Subject = std::tuple_element_t<0, Backends>;

/// What everything else is held against.
const std::string& expected() {
  static const std::string bytes = all_of<Subject>(1);
  return bytes;
}

}  // namespace

#if defined(_OPENMP)
BOOST_AUTO_TEST_CASE(a_region_of_the_caller_changes_no_byte) {
  for (const int levels : {0, 1, 2}) {
    const int before = omp_get_max_active_levels();
    omp_set_max_active_levels(levels);
    std::vector<std::string> bytes(3);
#pragma omp parallel for num_threads(3) schedule(static, 1)
    for (int i = 0; i < 3; ++i) bytes[std::size_t(i)] = all_of<Subject>(1);
    omp_set_max_active_levels(before);
    for (const std::string& of_thread : bytes)
      BOOST_TEST((of_thread == expected()), levels << " active levels");
  }
}

BOOST_AUTO_TEST_CASE(fewer_threads_than_asked_for_change_no_byte) {
  const int before = omp_get_max_active_levels();
  omp_set_max_active_levels(0);  // every region gets one thread
  for (const int asked : {1, 2, 5})
    on_threads(asked, [&] {
      const std::string bytes = all_of<Subject>(1);
      BOOST_TEST((bytes == expected()), asked << " threads asked for");
    });
  omp_set_max_active_levels(before);
  omp_set_dynamic(1);
  const std::string bytes = all_of<Subject>(1);
  omp_set_dynamic(0);
  BOOST_TEST((bytes == expected()));
}

#if defined(EIGEN_WORLD_VERSION)
BOOST_AUTO_TEST_CASE(threads_that_the_caller_gives_eigen_change_no_byte) {
  const int before = omp_get_max_active_levels();
  omp_set_max_active_levels(0);
  Eigen::setNbThreads(4);
  const std::string bytes = all_of<Subject>(1);
  BOOST_TEST(Eigen::nbThreads() == 4);  // the caller's setting stays
  Eigen::setNbThreads(0);
  omp_set_max_active_levels(before);
  BOOST_TEST((bytes == expected()));
}
#endif
#endif

BOOST_AUTO_TEST_CASE(solvers_side_by_side_give_the_bytes_of_one_after_the_other) {
  constexpr std::uint64_t count = 4;
  std::vector<std::string> apart, together(count);
  for (std::uint64_t i = 0; i < count; ++i) apart.push_back(all_of<Subject>(1 + i));
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < count; ++i)
    threads.emplace_back([&together, i] { together[i] = all_of<Subject>(1 + i); });
  for (std::thread& thread : threads) thread.join();
  for (std::uint64_t i = 0; i < count; ++i) BOOST_TEST((together[i] == apart[i]));
}

BOOST_AUTO_TEST_CASE(a_calibration_and_a_factor_serve_several_threads) {
  using B = Subject;
  const auto W = upload<B>(random_normal<float>(rows, cols, 1, 0.1));
  const auto X = upload<B>(correlated_activations<float>(tokens, cols, 101, 0.1));
  Calibration<B, float> calibration(cols);
  calibration.add(detail::as_const(X.view()), 4);
  const SolverOptions options{.sparsity = 0.5, .bits = 3};
  const auto factor = SparseGPTSolver<Joint, B, float>(options).prepare(calibration);
  const auto solved = [&] {
    SparseGPTSolver<Joint, B, float> solver(options);
    return layer_bytes<B, float>(solver.solve(
        {.weights = detail::as_const(W.view()), .calibration = calibration, .factor = factor}));
  };
  const std::string alone = solved();
  std::vector<std::string> together(3);
  std::vector<std::thread> threads;
  for (std::string& bytes : together) threads.emplace_back([&] { bytes = solved(); });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& bytes : together) BOOST_TEST((bytes == alone));
}
