// What SparseGPTSolver promises beside its results: determinism (post-condition 7), errors, widths.
#define BOOST_TEST_MODULE pare_solver_behaviour
#include <boost/test/unit_test.hpp>

#include <set>

#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

template <class Config, class C>
std::string option_error(const SolverOptions& options) {
  return message_of<argument_error>(
      [&] { SparseGPTSolver<Config, typename C::backend, typename C::scalar>{options}; });
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_7_same_input_gives_the_same_bytes, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{40, 136, {3}, 50}), large(Problem{70, 200, {}, 51}),
      small(Problem{3, 8, {}, 52});
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto bytes = [&](const Data<B, T>& d, SparseGPTSolver<Config, B, T>& s) {
      return layer_bytes<B, T>(s.solve(d.weights.view(), d.calibration));
    };
    const std::string first = bytes(data, solver);
    BOOST_TEST((bytes(data, solver) == first));
    bytes(large, solver);  // the workspace is reused
    BOOST_TEST((bytes(data, solver) == first));
    const std::string little = bytes(small, solver);
    BOOST_TEST((bytes(data, solver) == first));
    SparseGPTSolver<Config, B, T> other(options);
    BOOST_TEST((bytes(small, other) == little));
    BOOST_TEST((bytes(data, other) == first));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_a_given_mask_marks_is_zero_and_counts_among_the_pruned, C,
                              Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{37, 136, {3}, 57});
  const index_t rows = 37, cols = 136;
  Random random(58);
  Matrix<std::uint8_t> none(rows, cols), some(rows, cols), many(rows, cols);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) {
      some(i, j) = random.below(5) == 0 ? 255 : 0;  // any byte but 0 marks
      many(i, j) = j < 40 || random.below(4) == 0;  // whole blocks, whole groups
    }
  const auto on_backend = [](const Matrix<std::uint8_t>& mask) {
    return B::from_host(MatrixView<const std::uint8_t>(mask.view()));
  };
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto solve = [&](const Matrix<std::uint8_t>& mask) {
      const auto given = on_backend(mask);
      return solver.solve({.weights = data.weights.view(),
                           .calibration = data.calibration,
                           .mask = detail::as_const(given.view())});
    };
    const auto plain = solver.solve(data.weights.view(), data.calibration);
    auto unmarked = solve(none);
    // On CUDA another kernel sweeps n:m beside a mask, which sums the errors in another order.
    BOOST_TEST(unmarked.loss == plain.loss, boost::test_tools::tolerance(1e-12));
    unmarked.row_loss = plain.row_loss;
    unmarked.loss = plain.loss;
    BOOST_TEST((layer_bytes<B, T>(unmarked) == layer_bytes<B, T>(plain)));
    for (const Matrix<std::uint8_t>* mask : {&some, &many}) {
      const auto linear = solve(*mask);
      BOOST_TEST(linear.given_mask);
      BOOST_TEST(linear.pruned());
      const Matrix<T> Q = B::to_host(detail::as_const(linear.weights.view()));
      const Matrix<std::uint8_t> pruned = B::to_host(detail::as_const(linear.mask.view()));
      for (index_t i = 0; i < rows; ++i)
        for (index_t j = 0; j < cols; ++j)
          if ((*mask)(i, j) != 0 && !(pruned(i, j) == 1 && Q(i, j) == T(0)))
            BOOST_REQUIRE_MESSAGE(false, "weight " << i << ", " << j << " was not pruned");
      // As many as the pattern asks for, more only where the mask has more.
      if (linear.pattern.kind == PatternKind::n_of_m) {
        const int of = linear.pattern.of;
        for (index_t i = 0; i < rows; ++i)
          for (index_t j = 0; j < cols; j += of) {
            int found = 0, forced = 0;
            for (index_t k = j; k < j + of; ++k) {
              found += pruned(i, k);
              forced += (*mask)(i, k) != 0;
            }
            BOOST_REQUIRE_EQUAL(found, std::max(forced, linear.pattern.zeros));
          }
        continue;
      }
      for (index_t begin = 0; begin < cols; begin += linear.block_size) {
        const index_t end = std::min(cols, begin + linear.block_size);
        index_t found = 0, forced = 0;
        for (index_t p = begin; p < end; ++p)
          for (index_t i = 0; i < rows; ++i) {
            const index_t j = linear.order[std::size_t(p)];
            found += pruned(i, j);
            forced += (*mask)(i, j) != 0;
          }
        BOOST_TEST(found ==
                   std::max(forced, pruned_count(linear.pattern.sparsity, rows * (end - begin))));
      }
    }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_zeros_of_a_pruned_linear_survive_its_rounding, C, FloatCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{24, 64, {}, 59});
  SparseGPTSolver<PruneGroups, B, T> prune({.zeros = 2, .of = 4});
  const auto sparse = prune.solve(data.weights.view(), data.calibration);
  const auto zero = zero_mask<B>(detail::as_const(sparse.weights.view()));
  SparseGPTSolver<Round, B, T> round({.bits = 4});
  const auto kept = round.solve({.weights = detail::as_const(sparse.weights.view()),
                                 .calibration = data.calibration,
                                 .mask = detail::as_const(zero.view())});
  const auto lost = round.solve(detail::as_const(sparse.weights.view()), data.calibration);
  const auto zeros_of = [](const auto& linear) {
    const Matrix<T> Q = B::to_host(detail::as_const(linear.weights.view()));
    return std::count(Q.data(), Q.data() + Q.size(), T(0));
  };
  BOOST_TEST(zeros_of(kept) >= zeros_of(sparse));
  BOOST_TEST(zeros_of(lost) < zeros_of(sparse));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_7_the_number_of_threads_changes_no_byte, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{150, 300, {3}, 53});
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    std::string first;
    for (const int threads : {1, 2, 3, 5})
      on_threads(threads, [&] {
        SparseGPTSolver<Config, B, T> solver(options);
        const std::string bytes =
            layer_bytes<B, T>(solver.solve(data.weights.view(), data.calibration));
        if (first.empty()) first = bytes;
        BOOST_TEST((bytes == first), threads << " threads");
      });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_7_backends_agree, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using R = Oracle;
  const Problem problem{40, 200, {3}, 54};
  const Data<B, T> mine(problem);
  const Data<R, T> other(problem);
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    SparseGPTSolver<Config, R, T> reference(options);
    const auto a = solver.solve(mine.weights.view(), mine.calibration);
    const auto b = reference.solve(other.weights.view(), other.calibration);
    BOOST_TEST(relative_difference(a.loss, b.loss) <= 5 * tolerance<T>);
    const std::vector<double> p = doubles(download<B>(a.mask)), q = doubles(download<R>(b.mask));
    std::size_t differing = 0;
    for (std::size_t i = 0; i < p.size(); ++i) differing += p[i] != q[i];
    BOOST_TEST(double(differing) <= 0.005 * double(p.size()));
    BOOST_TEST(a.bits == b.bits);
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_shared_factor_gives_the_same_bytes, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 136, {3}, 55});
  const auto other = upload<B>(random_normal<T>(7, 136, 56));
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto factor = solver.prepare(data.calibration);
    const auto first = solver.solve(
        {.weights = data.weights.view(), .calibration = data.calibration, .factor = factor});
    const auto second =
        solver.solve({.weights = other.view(), .calibration = data.calibration, .factor = factor});
    BOOST_TEST((layer_bytes<B, T>(first) ==
                layer_bytes<B, T>(solver.solve(data.weights.view(), data.calibration))));
    BOOST_TEST((layer_bytes<B, T>(second) ==
                layer_bytes<B, T>(solver.solve(other.view(), data.calibration))));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(linears_that_are_solved_together_are_as_if_alone, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 136, {3}, 55});
  const Matrix<T> small = random_normal<T>(7, 136, 56), large = random_normal<T>(41, 136, 57, 10);
  const auto second = upload<B>(small), third = upload<B>(large);
  Matrix<std::uint8_t> marks(7, 136);
  for (index_t i = 0; i < marks.size(); ++i) marks.data()[i] = i % 136 < 30 || i % 5 == 0;
  const auto zero = upload<B>(marks);
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    using Solver = SparseGPTSolver<Config, B, T>;
    using Inputs = typename Solver::Inputs;
    Solver solver(options);
    const auto factor = solver.prepare(data.calibration);
    for (const bool masked : {false, true})
      for (const bool prepared : {false, true}) {
        std::vector<Inputs> inputs;
        for (const MatrixView<const T> W :
             {MatrixView<const T>(data.weights.view()), MatrixView<const T>(second.view()),
              MatrixView<const T>(third.view())}) {
          inputs.push_back({.weights = W, .calibration = data.calibration});
          if (prepared) inputs.back().factor = factor;
          if (masked && inputs.size() == 2) inputs.back().mask = zero.view();
        }
        const auto together = solver.solve_together(inputs);
        const auto again = Solver(options).solve_together(inputs);
        BOOST_REQUIRE_EQUAL(together.size(), 3u);
        for (std::size_t i = 0; i < 3; ++i) {
          const auto& linear = together[i];
          const auto alone = solver.solve(inputs[i]);
          BOOST_TEST((layer_bytes<B, T>(linear) == layer_bytes<B, T>(again[i])));
          BOOST_TEST(relative_difference(linear.loss, alone.loss) <= 5 * tolerance<T>);
          BOOST_TEST((linear.bits == alone.bits && linear.order == alone.order));
          BOOST_TEST(linear.given_mask == alone.given_mask);
          BOOST_TEST(linear.damping == alone.damping);
          BOOST_TEST(linear.seconds > 0);
          const std::vector<double> p = doubles(download<B>(linear.mask)),
                                    q = doubles(download<B>(alone.mask));
          BOOST_REQUIRE_EQUAL(p.size(), q.size());
          std::size_t differing = 0;
          for (std::size_t k = 0; k < p.size(); ++k) differing += p[k] != q[k];
          BOOST_TEST(double(differing) <= 0.005 * double(p.size()));
        }
      }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_does_not_fit_together_is_an_error_that_names_it, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using Solver = SparseGPTSolver<Joint, B, T>;
  using Inputs = typename Solver::Inputs;
  const Data<B, T> data(Problem{20, 40, {3}, 55}), other(Problem{20, 40, {3}, 56});
  Solver solver({.sparsity = 0.5, .bits = 4});
  const auto factor = solver.prepare(data.calibration);
  const Inputs first{.weights = data.weights.view(), .calibration = data.calibration};
  const auto message = [&]<class Error>(std::type_identity<Error>, const Inputs& second) {
    const std::vector<Inputs> both{first, second};
    return message_of<Error>([&] { solver.solve_together(both); });
  };
  const std::type_identity<argument_error> argument;
  BOOST_TEST(message_of<argument_error>([&] { solver.solve_together({}); }) ==
             "linears: expected at least one, got none");
  const std::string expected =
      "v: linears: expected the calibration and the factor of the first, got others";
  BOOST_TEST(message(argument, {.weights = other.weights.view(),
                                .calibration = other.calibration,
                                .name = "v"}) == expected);
  BOOST_TEST(message(argument, {.weights = other.weights.view(),
                                .calibration = data.calibration,
                                .factor = factor,
                                .name = "v"}) == expected);
  Matrix<T> broken = data.W;
  broken(2, 5) = std::numeric_limits<T>::quiet_NaN();
  const auto weights = upload<B>(broken);
  const Inputs nan{.weights = weights.view(), .calibration = data.calibration, .name = "v"};
  const std::string found =
      "v: weights (out, in): expected finite numbers, got NaN or infinity at (2, 5) of shape (20, "
      "40)";
  BOOST_TEST(message(std::type_identity<non_finite_error>{}, nan) == found);
  Inputs with_factor = nan;  // the weights are looked at later then
  with_factor.factor = factor;
  BOOST_TEST(message_of<non_finite_error>([&] { solver.solve(with_factor); }) == found);

  // Of two linears the scales of the second are too large.
  Solver half({.sparsity = 0.5, .bits = 4, .grid = {.half_scale = true}});
  const auto large = upload<B>(random_normal<T>(9, 40, 57, 1e6));
  const std::vector<Inputs> both{
      first, {.weights = large.view(), .calibration = data.calibration, .name = "v"}};
  BOOST_TEST(contains(message_of<argument_error>([&] { half.solve_together(both); }),
                      "v: grid.half_scale: row 0 of the weights needs a scale beyond 65504"));
}

namespace {

/// A backend that notes how much had been begun when its first result was waited for.
template <class Base>
struct NotesWaits : Base {
  static inline int begun = 0, before_wait = -1;

  template <class R>
  struct Awaited {
    R result;
    decltype(auto) get() {
      if (before_wait < 0) before_wait = begun;
      return result.get();
    }
  };
  template <class U>
  static auto start_to_host(MatrixView<const U> v) {
    return Awaited<decltype(detail::start_to_host<Base>(v))>{detail::start_to_host<Base>(v)};
  }
  template <class U>
  static Matrix<U> to_host(MatrixView<const U> v) {
    auto started = start_to_host(v);
    return std::move(started.get());
  }
  template <class T>
  static auto start_find_non_finite(MatrixView<const T> A) {
    return Awaited<decltype(detail::start_find_non_finite<Base>(A))>{
        detail::start_find_non_finite<Base>(A)};
  }
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    return start_find_non_finite(A).get();
  }
  template <class F>
  static void for_each_row(index_t n, const F& f) {
    ++begun;
    Base::for_each_row(n, f);
  }
  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    ++begun;
    Base::for_each_element(rows, cols, f);
  }
  template <class R>
  static void reduce_rows(index_t n, const R& reduction) {
    ++begun;
    Base::reduce_rows(n, reduction);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_solve_waits_when_everything_has_been_begun, C, Cases) {
  using B = NotesWaits<typename C::backend>;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 136, {3}, 55});
  const auto second = upload<B>(random_normal<T>(7, 136, 56));
  const auto check = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto factor = solver.prepare(data.calibration);
    using Inputs = typename SparseGPTSolver<Config, B, T>::Inputs;
    const std::vector<Inputs> inputs{
        {.weights = data.weights.view(), .calibration = data.calibration, .factor = factor},
        {.weights = second.view(), .calibration = data.calibration, .factor = factor}};
    B::begun = 0;
    B::before_wait = -1;
    solver.solve_together(inputs);
    BOOST_TEST(B::begun > 0);
    BOOST_TEST(B::before_wait == B::begun);
  };
  check(std::type_identity<Prune>{}, {.sparsity = 0.5});
  check(std::type_identity<PruneGroups>{}, {.zeros = 2, .of = 4, .act_order = true});
  check(std::type_identity<Joint>{},
        {.sparsity = 0.5, .bits = 3, .grid = {.half_scale = true}, .group_size = 32});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_input_weights_are_not_changed, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 40, {3}, 57});
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T>(options).solve(data.weights.view(), data.calibration);
  });
  BOOST_TEST(same_bytes(download<B>(data.weights), data.W));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_window_on_a_wider_matrix_is_solved_alike, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 40, {3}, 58});
  Matrix<T> wide(22, 47);
  for (index_t i = 0; i < wide.size(); ++i) wide.data()[i] = T(99);
  for (index_t i = 0; i < 20; ++i)
    for (index_t j = 0; j < 40; ++j) wide(i + 1, j + 5) = data.W(i, j);
  const auto device = upload<B>(wide);
  const MatrixView<const T> window = MatrixView<const T>(device.view()).block(1, 5, 20, 40);
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    BOOST_TEST((layer_bytes<B, T>(solver.solve(window, data.calibration)) ==
                layer_bytes<B, T>(solver.solve(data.weights.view(), data.calibration))));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(widths_come_from_the_importance_of_the_channels, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{30, 44, {3}, 59});
  const auto check = [&]<class Config, ChannelAxis Axis>(std::type_identity<Config>,
                                                         std::integral_constant<ChannelAxis, Axis>,
                                                         SolverOptions options) {
    options.axis = Axis;
    SparseGPTSolver<Config, B, T> solver(options);
    const auto linear = solver.solve(data.weights.view(), data.calibration);
    const auto factor = solver.prepare(data.calibration);
    const auto importance = ImportanceScorer<5, B, T, Axis>().score(
        {data.weights.view(), data.calibration, factor, *options.bits, options.grid});
    BOOST_TEST(linear.scores == importance.score);
    BOOST_TEST(linear.bits == BitAllocator<typename Config::policy>(
                                  {.target_average_bits = options.target_average_bits})
                                  .allocate(importance.score)
                                  .bits);
    BOOST_TEST((linear.axis == Axis));
  };
  using Output = std::integral_constant<ChannelAxis, ChannelAxis::output>;
  using Input = std::integral_constant<ChannelAxis, ChannelAxis::input>;
  const SolverOptions options{.bits = 3, .target_average_bits = 3.5};
  SolverOptions pruning = options;
  pruning.sparsity = 0.5;
  pruning.act_order = true;
  check(std::type_identity<RoundQuantile>{}, Output{}, options);
  check(std::type_identity<RoundQuantile>{}, Input{}, options);
  check(std::type_identity<JointBudget>{}, Output{}, pruning);
  check(std::type_identity<JointBudget>{}, Input{}, pruning);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(another_target_gives_other_weights_and_widths, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{30, 44, {}, 60});
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
    double loss = std::numeric_limits<double>::infinity();
    std::set<std::string> weights;
    std::set<std::vector<std::uint8_t>> histograms;
    for (const double target : {2.0, 2.5, 3.0, 4.0, 6.0}) {
      SparseGPTSolver<JointBudget, B, T> solver(
          {.sparsity = 0.3, .bits = 4, .target_average_bits = target, .axis = axis});
      const auto linear = solver.solve(data.weights.view(), data.calibration);
      std::vector<std::uint8_t> bits = linear.bits;
      std::sort(bits.begin(), bits.end());
      histograms.insert(bits);
      const auto host = download<B>(linear.weights);
      weights.insert(
          {reinterpret_cast<const char*>(host.data()), std::size_t(host.size()) * sizeof(T)});
      if (axis == ChannelAxis::output) BOOST_TEST(linear.loss < loss);
      loss = linear.loss;
    }
    BOOST_TEST(weights.size() == 5u);
    BOOST_TEST(histograms.size() == 5u);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rounding_at_two_bits_is_felt, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 60, {}, 61});
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
    SparseGPTSolver<RoundQuantile, B, T> solver(
        {.bits = 2, .target_average_bits = 2.0, .axis = axis});
    const auto linear = solver.solve(data.weights.view(), data.calibration);
    const Matrix<T> Q = download<B>(linear.weights);
    double error = 0, size = 0;
    for (index_t i = 0; i < Q.size(); ++i) {
      error += std::pow(double(Q.data()[i]) - double(data.W.data()[i]), 2);
      size += std::pow(double(data.W.data()[i]), 2);
    }
    BOOST_TEST(std::sqrt(error / size) > 0.1);
    for (index_t i = 0; i < Q.rows(); ++i)
      BOOST_TEST(std::set<T>(Q.view().row(i), Q.view().row(i) + Q.cols()).size() <= 4u);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(groups_hold_neighbours_and_blocks_change_nothing_of_n_of_m, C,
                              Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{18, 132, {}, 62});
  for (const bool act_order : {false, true}) {
    std::vector<std::vector<double>> results;
    for (const index_t block : {1, 8, 128, 1000}) {
      SparseGPTSolver<PruneGroups, B, T> solver(
          {.zeros = 1, .of = 3, .block_size = block, .act_order = act_order});
      const auto linear = solver.solve(data.weights.view(), data.calibration);
      BOOST_TEST(linear.block_size % 3 == 0);
      results.push_back(doubles(download<B>(linear.mask)));
      for (std::size_t p = 0; p < linear.order.size(); p += 3)  // a group is visited together
        for (std::size_t k = p; k < p + 3; ++k)
          BOOST_REQUIRE_EQUAL(linear.order[k] / 3, linear.order[p] / 3);
    }
    for (const auto& mask : results) {
      std::size_t differing = 0;
      for (std::size_t i = 0; i < mask.size(); ++i) differing += mask[i] != results[0][i];
      BOOST_TEST(double(differing) <= (sizeof(T) == 8 ? 0 : 0.005 * double(mask.size())));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(static_options_equal_run_time_options, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{18, 40, {}, 63});
  SparseGPTSolver<PruneGroups, B, T> groups({.zeros = 2, .of = 4});
  SparseGPTSolver<Compression<NofM<2, 4>>, B, T> static_groups(SolverOptions{});
  BOOST_TEST((layer_bytes<B, T>(groups.solve(data.weights.view(), data.calibration)) ==
              layer_bytes<B, T>(static_groups.solve(data.weights.view(), data.calibration))));
  SparseGPTSolver<Round, B, T> round({.bits = 3});
  SparseGPTSolver<Compression<Dense, UniformQuantizer<3>>, B, T> static_round(SolverOptions{});
  BOOST_TEST((layer_bytes<B, T>(round.solve(data.weights.view(), data.calibration)) ==
              layer_bytes<B, T>(static_round.solve(data.weights.view(), data.calibration))));
  SparseGPTSolver<RoundQuantile, B, T> mixed(
      {.bits = 4, .target_average_bits = 3.5, .tiers = {{2, 4, 8}}});
  using StaticMixed =
      Compression<Dense, UniformQuantizer<4>,
                  MixedPrecision<Quantile, Tiers<2, 4, 8>, TargetAverageBits<7, 2>>>;
  SparseGPTSolver<StaticMixed, B, T> static_mixed(SolverOptions{});
  BOOST_TEST((layer_bytes<B, T>(mixed.solve(data.weights.view(), data.calibration)) ==
              layer_bytes<B, T>(static_mixed.solve(data.weights.view(), data.calibration))));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_an_identity_hessian_pruning_is_by_magnitude, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t rows = 25, cols = 300, block = 128;
  Matrix<T> H(cols, cols);
  for (index_t j = 0; j < cols; ++j) H(j, j) = 1;
  const auto device = upload<B>(H);
  const auto calibration = Calibration<B, T>::from_hessian(device.view());
  const Matrix<T> W = random_normal<T>(rows, cols, 64);
  const auto weights = upload<B>(W);
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.4, .block_size = block});
  const Matrix<T> Q = download<B>(solver.solve(weights.view(), calibration).weights);
  for (index_t begin = 0; begin < cols; begin += block) {
    const index_t end = std::min(cols, begin + block);
    std::vector<T> sizes;
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = begin; j < end; ++j) sizes.push_back(std::abs(W(i, j)));
    std::sort(sizes.begin(), sizes.end());
    const T threshold = sizes[std::size_t(0.4 * double(sizes.size()) + 1e-6)];
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = begin; j < end; ++j)
        BOOST_REQUIRE_EQUAL(Q(i, j), std::abs(W(i, j)) < threshold ? T(0) : W(i, j));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(ties_are_pruned_by_position_and_exactly_k, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Matrix<T> H(8, 8), W(4, 8);
  for (index_t j = 0; j < 8; ++j) H(j, j) = 1;
  W.fill(T(0.5));
  const auto device = upload<B>(H), weights = upload<B>(W);
  const auto calibration = Calibration<B, T>::from_hessian(device.view());
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.4});
  const auto mask = download<B>(solver.solve(weights.view(), calibration).mask);
  for (index_t i = 0; i < 32; ++i) BOOST_TEST(int(mask.data()[i]) == int(i < 12));
  SparseGPTSolver<PruneGroups, B, T> groups({.zeros = 3, .of = 4});
  const auto zeros = download<B>(groups.solve(weights.view(), calibration).mask);
  for (index_t i = 0; i < 32; ++i) BOOST_TEST(int(zeros.data()[i]) == int(i % 4 < 3));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(compensation_beats_pruning_by_magnitude, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{30, 60, {}, 65});
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.5});
  const auto linear = solver.solve(data.weights.view(), data.calibration);
  std::vector<double> W = doubles(data.W), sizes, Q = W;
  for (const double w : W) sizes.push_back(std::abs(w));
  std::nth_element(sizes.begin(), sizes.begin() + 900, sizes.end());
  for (double& q : Q) q = std::abs(q) < sizes[900] ? 0 : q;
  const auto magnitude = closed_form_loss(W, Q, data.H, 0.01);
  BOOST_TEST(linear.loss < 0.8 * std::accumulate(magnitude.begin(), magnitude.end(), 0.0));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(weights_that_are_on_a_grid_already_stay_as_they_are, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{30, 150, {}, 70});
  double loss = 0;
  for (const double scale : {0.0137, 0.3, 1.0}) {
    Random random(71);
    Matrix<T> W(30, 150);
    for (index_t i = 0; i < W.rows(); ++i)
      for (index_t j = 0; j < W.cols(); ++j)
        W(i, j) =
            T(scale * (1 + 0.01 * double(i)) * double((j < 2 ? 15 * j : random.below(16)) - 7));
    const auto weights = upload<B>(W);
    SparseGPTSolver<Round, B, T> solver({.bits = 4});
    const auto linear = solver.solve(weights.view(), data.calibration);
    const Matrix<T> Q = download<B>(linear.weights);
    for (index_t i = 0; i < W.size(); ++i)
      BOOST_REQUIRE_SMALL(double(Q.data()[i]) - double(W.data()[i]),
                          50 * double(std::numeric_limits<T>::epsilon()) * scale);
    loss += linear.loss;
  }
  BOOST_TEST(loss > 0);  // rounding noise, in which the loss cannot be exact
}

BOOST_AUTO_TEST_CASE_TEMPLATE(weights_that_are_pruned_already_stay_as_they_are, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 60, {3}, 72});
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    if constexpr (!Config::quantizes) {
      SparseGPTSolver<Config, B, T> solver(options);
      const auto once = solver.solve(data.weights.view(), data.calibration);
      const auto twice = solver.solve(once.weights.view(), data.calibration);
      BOOST_TEST(same_bytes(download<B>(twice.weights), download<B>(once.weights)));
      BOOST_TEST(twice.loss == 0.0);
    }
  });
  const auto zeros = upload<B>(Matrix<T>(20, 60));
  SparseGPTSolver<Joint, B, T> solver({.sparsity = 0.5, .bits = 3});
  const auto linear = solver.solve(zeros.view(), data.calibration);
  BOOST_TEST(same_bytes(download<B>(linear.weights), Matrix<T>(20, 60)));
  BOOST_TEST(linear.loss == 0.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(raised_damping_is_in_the_result, C, Cases) {
  using T = typename C::scalar;
  const auto check = [&]<class B>(std::type_identity<B>) {
    Matrix<T> H(6, 6);
    H.fill(T(4));
    const auto device = upload<B>(H), weights = upload<B>(random_normal<T>(3, 6, 66));
    const auto calibration = Calibration<B, T>::from_hessian(device.view());
    SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.5, .damping = 0});
    const auto linear = solver.solve(weights.view(), calibration);
    BOOST_TEST(linear.damping_retries == 1);
    BOOST_TEST(linear.damping == 0.001);
    // Nothing of what was solved before the failure was known is in the result.
    const auto factor = solver.prepare(calibration);
    BOOST_TEST(factor.retries == 1);
    BOOST_TEST((layer_bytes<B, T>(linear) ==
                layer_bytes<B, T>(solver.solve(
                    {.weights = weights.view(), .calibration = calibration, .factor = factor}))));
    H(0, 5) = H(5, 0) = T(1000);
    const auto hopeless = upload<B>(H);
    const auto bad = Calibration<B, T>::from_hessian(hopeless.view());
    BOOST_TEST(contains(message_of<factorization_error>([&] {
                          solver.solve(
                              {.weights = weights.view(), .calibration = bad, .name = "q"});
                        }),
                        "q: Hessian (6, 6): not positive definite"));
  };
  check(std::type_identity<typename C::backend>{});
  check(std::type_identity<Defers<typename C::backend>>{});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(options_of_no_use_are_errors, C, Cases) {
  const auto ignored = [](const std::string& option, const std::string& needs) {
    return option + ": the configuration has no " + needs +
           ", the option would be ignored; leave it unset or add the " + needs;
  };
  const SolverOptions prune{.sparsity = 0.5}, round{.bits = 4};
  const auto with = [](SolverOptions options, const auto& change) {
    change(options);
    return options;
  };
  using O = SolverOptions;
  BOOST_TEST((option_error<Prune, C>(prune)) == "");
  BOOST_TEST((option_error<Round, C>(round)) == "");
  BOOST_TEST((option_error<Round, C>(with(round, [](O& o) { o.sparsity = 0.5; }))) ==
             ignored("sparsity", "Unstructured pattern"));
  BOOST_TEST((option_error<PruneGroups, C>({.sparsity = 0.5, .zeros = 2, .of = 4})) ==
             ignored("sparsity", "Unstructured pattern"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.zeros = 2; }))) ==
             ignored("zeros, of", "NofM pattern"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.of = 4; }))) ==
             ignored("zeros, of", "NofM pattern"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.bits = 4; }))) ==
             ignored("bits", "BaseQuantizer"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.grid.symmetric = true; }))) ==
             ignored("grid.symmetric", "BaseQuantizer"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.grid.clip_search = true; }))) ==
             ignored("grid.clip_search", "BaseQuantizer"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.grid.half_scale = true; }))) ==
             ignored("grid.half_scale", "BaseQuantizer"));
  BOOST_TEST((option_error<Prune, C>(with(prune, [](O& o) { o.grid.scale_digits = 8; }))) ==
             ignored("grid.scale_digits", "BaseQuantizer"));
  BOOST_TEST((option_error<Round, C>(with(round, [](O& o) { o.target_average_bits = 3.0; }))) ==
             ignored("target_average_bits", "MixedPrecision"));
  BOOST_TEST((option_error<Round, C>(with(round, [](O& o) {
               o.tiers = {{2, 4}};
             }))) == ignored("tiers", "MixedPrecision"));
  BOOST_TEST((option_error<Round, C>(with(round, [](O& o) { o.axis = ChannelAxis::input; }))) ==
             ignored("axis", "MixedPrecision"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(options_out_of_range_are_errors, C, Cases) {
  using Static = Compression<NofM<2, 4>, UniformQuantizer<3>>;
  BOOST_TEST((option_error<Prune, C>({})) == "sparsity: Unstructured needs a share, got none");
  for (const auto& [share, text] :
       {std::pair<double, std::string>{1.0, "1"}, {-0.25, "-0.25"}, {std::nan(""), "nan"}})
    BOOST_TEST((option_error<Prune, C>({.sparsity = share})) ==
               "sparsity: expected a share within [0, 1), got " + text);
  BOOST_TEST((option_error<PruneGroups, C>({.zeros = 2})) ==
             "zeros, of: NofM<> needs both, for instance 2 and 4");
  for (const auto& [zeros, of] : {std::pair{4, 4}, {0, 4}, {5, 4}, {-1, 4}, {1, 1}})
    BOOST_TEST((option_error<PruneGroups, C>({.zeros = zeros, .of = of})) ==
               "zeros, of: expected 0 < zeros < of, got " + std::to_string(zeros) + " and " +
                   std::to_string(of));
  BOOST_TEST((option_error<Round, C>({})) == "bits: BaseQuantizer needs a width, got none");
  for (const int bits : {1, 9, 0, -4})
    BOOST_TEST((option_error<Round, C>({.bits = bits})) ==
               "bits: expected a width within 2..8, got " + std::to_string(bits));
  BOOST_TEST((option_error<Static, C>({})) == "");
  BOOST_TEST((option_error<Static, C>({.zeros = 2, .of = 4, .bits = 3})) == "");
  BOOST_TEST((option_error<Static, C>({.zeros = 1})) ==
             "zeros, of: the pattern is static, leave both unset");
  BOOST_TEST((option_error<Static, C>({.bits = 4})) ==
             "bits: the quantizer's width is static, leave it unset");
  using StaticBits = Compression<Dense, BaseQuantizer,
                                 MixedPrecision<Budget, Tiers<2, 4, 8>, TargetAverageBits<7, 2>>>;
  BOOST_TEST((option_error<StaticBits, C>({.bits = 4})) == "");
  BOOST_TEST((option_error<StaticBits, C>(
                 {.bits = 4, .target_average_bits = 3.5, .tiers = {{2, 4, 8}}})) == "");
  BOOST_TEST((option_error<StaticBits, C>({.bits = 4, .tiers = {{2, 4}}})) ==
             "tiers: the configuration's are static, leave them unset");
  BOOST_TEST((option_error<StaticBits, C>({.bits = 4, .target_average_bits = 4.0})) ==
             "target_average_bits: the configuration's is static, leave it unset");
  BOOST_TEST((option_error<JointBudget, C>({.sparsity = 0.5, .bits = 4})) ==
             "target average bits: the policy needs a target, got none");
  BOOST_TEST((option_error<RoundQuantile, C>({.bits = 4})) == "");  // equal shares
  BOOST_TEST((option_error<Prune, C>({.sparsity = 0.5, .block_size = 0})) ==
             "block_size: expected at least 1, got 0");
  BOOST_TEST((option_error<Prune, C>({.sparsity = 0.5, .damping = -1})) ==
             "damping: expected a number within 0..1, got -1");
  BOOST_TEST((option_error<Prune, C>({.sparsity = 0.5, .damping = 1.5})) ==
             "damping: expected a number within 0..1, got 1.5");
  // An unattainable target ends before any calibration.
  BOOST_TEST((option_error<RoundQuantile, C>({.bits = 4, .target_average_bits = 1.5})) ==
             "target average bits: tiers {2, 3, 4, 6, 8} can meet targets from 2 to 8, got 1.5");
  BOOST_TEST(contains((option_error<RoundQuantile, C>(
                          {.bits = 4, .target_average_bits = 3, .tiers = {{4, 2}}})),
                      "strictly increasing widths within 2..8, got {4, 2}"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(weights_that_do_not_fit_are_errors, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{5, 10, {}, 67});
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.5});
  const auto narrow = upload<B>(Matrix<T>(5, 9));
  const std::string text =
      message_of<shape_error>([&] { solver.solve(narrow.view(), data.calibration); });
  BOOST_TEST(contains(text, "(5, 10)"));
  BOOST_TEST(contains(text, "(5, 9)"));
  const auto empty = upload<B>(Matrix<T>(0, 10));
  BOOST_TEST(
      contains(message_of<shape_error>([&] { solver.solve(empty.view(), data.calibration); }),
               "(0, 10)"));

  const Data<B, T> other(Problem{5, 8, {}, 68});
  const auto factor = solver.prepare(other.calibration);
  const std::string factors = message_of<shape_error>([&] {
    solver.solve(
        {.weights = data.weights.view(), .calibration = data.calibration, .factor = factor});
  });
  BOOST_TEST(contains(factors, "(10, 10)"));
  BOOST_TEST(contains(factors, "(8, 8)"));

  SparseGPTSolver<PruneGroups, B, T> groups({.zeros = 2, .of = 4});
  const std::string group =
      message_of<argument_error>([&] { groups.solve(data.weights.view(), data.calibration); });
  BOOST_TEST(contains(group, "the m of n:m, 4"));
  BOOST_TEST(contains(group, "got 10"));
  SparseGPTSolver<PruneGroups, B, T> ordered({.zeros = 2, .of = 4, .act_order = true});
  BOOST_CHECK_THROW(ordered.solve(data.weights.view(), data.calibration), argument_error);

  const Calibration<B, T> nothing(10);
  BOOST_CHECK_THROW(solver.solve(data.weights.view(), nothing), argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(non_finite_weights_are_named, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 40, {}, 69});
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.5});
  const T infinity = std::numeric_limits<T>::infinity();
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), infinity, -infinity})
    for (const auto& [row, column] : {std::pair<index_t, index_t>{0, 0}, {19, 39}, {17, 3}}) {
      Matrix<T> W = data.W;
      W(row, column) = bad;
      const auto device = upload<B>(W);
      try {
        solver.solve(device.view(), data.calibration);
        BOOST_ERROR("accepted a non-finite weight");
      } catch (const non_finite_error& e) {
        BOOST_TEST(e.row() == row);
        BOOST_TEST(e.column() == column);
        BOOST_TEST(contains(e.what(), "weights (out, in)"));
      }
    }
}
