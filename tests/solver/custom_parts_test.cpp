// Quantizers, patterns and objectives of one's own.
#define BOOST_TEST_MODULE pare_custom_parts
#include <boost/test/unit_test.hpp>

#include <numeric>
#include <set>

#include "../examples/custom_grid/codebook.hpp"
#include "../examples/custom_grid/nf4.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

/// Uniform grids, written as a quantizer of one's own.
struct Again : QuantizerOption {
  static constexpr int bits = dynamic;
  static constexpr bool takes_grid_options = true;
  template <class T>
  struct grid {
    T scale, zero, top;
  };
  template <class T>
  PARE_HOST_DEVICE static grid<T> fit(const T* w, index_t n, int width, GridOptions options) {
    const Grid<T> g = fit_grid(w, n, width, options);
    return {g.scale, g.zero, g.top};
  }
  template <class T>
  PARE_HOST_DEVICE static T round(T x, const grid<T>& g) {
    return round_to_grid(x, g.scale, g.zero, g.top);
  }
  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>& g) {
    return round(x, g) == x;
  }
  template <class T>
  static constexpr double grid_bits(int) {
    return 24;
  }
};

/// Rounds to values that it does not call its own.
struct Wrong : Again {
  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>&) {
    return x == T(0);
  }
};

template <class Config, class B, class T>
CompressedLinear<B, T> solved(const Data<B, T>& data, const SolverOptions& options) {
  return SparseGPTSolver<Config, B, T>(options).solve(data.weights.view(), data.calibration);
}

/// Solves with uniform grids and with the same written as one's own.
template <class Uniform, class Own, class C>
void same_as_uniform(const SolverOptions& options) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{17, 72, {5}, 40});
  const auto expected = solved<Uniform>(data, options), got = solved<Own>(data, options);
  const Matrix<T> Q = download<B>(expected.weights), P = download<B>(got.weights);
  index_t differing = 0;
  for (index_t i = 0; i < Q.size(); ++i)
    differing += std::abs(Q.data()[i] - P.data()[i]) > T(1e-5) * std::abs(Q.data()[i]);
  // The tuned sweeps add in another order; a code may tip over.
  BOOST_TEST(differing <= Q.size() / 100);
  BOOST_TEST(relative_difference(got.loss, expected.loss) < 1e-2);
  BOOST_TEST(got.bits == expected.bits, boost::test_tools::per_element());
  BOOST_TEST((got.grids.of_column == expected.grids.of_column));
  const auto of = [](const auto& linear) { return linear_statistics("w", linear, 32); };
  BOOST_TEST(of(got).stored_bits == of(expected).stored_bits);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_quantizer_of_ones_own_rounds_as_uniform_grids_do, C, Cases) {
  same_as_uniform<Round, Compression<Dense, Again>, C>({.bits = 3});
  same_as_uniform<Round, Compression<Dense, Again>, C>(
      {.bits = 4, .grid = {.symmetric = true, .clip_search = true}, .act_order = true});
  same_as_uniform<Joint, Compression<Unstructured, Again>, C>(
      {.sparsity = 0.5, .bits = 4, .block_size = 32});
  same_as_uniform<Compression<NofM<>, BaseQuantizer>, Compression<NofM<>, Again>, C>(
      {.zeros = 2, .of = 4, .bits = 4});
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input})
    same_as_uniform<JointBudget, Compression<Unstructured, Again, MixedPrecision<Budget>>, C>(
        {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5, .axis = axis});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(codebooks_hold_sixteen_values_per_row, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{9, 130});
  const auto check = [&](const auto& linear) {
    const Matrix<T> Q = download<B>(linear.weights);
    for (index_t i = 0; i < Q.rows(); ++i)
      BOOST_TEST(std::set<T>(Q.view().row(i), Q.view().row(i) + Q.cols()).size() <= 16);
    BOOST_CHECK_THROW(pack_linear(linear, DType::f32), argument_error);
  };
  const auto nf4 = solved<Compression<Dense, Nf4>>(data, SolverOptions{});
  const auto codebook = solved<Compression<Unstructured, Codebook>>(data, {.sparsity = 0.5});
  check(nf4);
  check(codebook);
  // 9 x 130 codes of 4 bits in rows of 32-bit words, and a float16 scale per row.
  const LinearStatistics s = linear_statistics("w", nf4, 32);
  BOOST_TEST(s.stored_bits - 9 * 16 >= 9 * 130 * 4);
  BOOST_TEST(s.stored_bits - 9 * 16 < 9 * (130 * 4 + 64));
  BOOST_TEST(*s.average_bits == 4);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_quantizer_that_leaves_its_grid_is_found_out, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{});
  try {
    solved<Compression<Dense, Wrong>>(data, {.bits = 4});
    BOOST_ERROR("no error");
  } catch (const invariant_error& e) {
    BOOST_TEST(contains(e.what(), "holds a value that is not on its grid"));
  }
}

namespace {

/// Every second column, whatever it costs.
struct EverySecond : PatternOption {
  template <class B, class T>
  static void mark(const MaskBlock<T>& block, const SolverOptions&, MatrixView<std::uint8_t> mask) {
    Matrix<std::uint8_t> marks(mask.rows, mask.cols);
    for (index_t i = 0; i < mask.rows; ++i)
      for (index_t j = 0; j < mask.cols; ++j)
        marks(i, j) = block.inputs[std::size_t(j)] % 2 == 0 ? 1 : 0;
    const auto there = upload<B>(marks);
    B::copy(MatrixView<const std::uint8_t>(there.view()), mask);
  }
  static std::string fault(MatrixView<const std::uint8_t> mask, std::span<const index_t> order,
                           const SolverOptions& options) {
    BOOST_TEST(index_t(order.size()) == mask.cols);
    if (options.zeros) return "as asked for";
    for (index_t i = 0; i < mask.rows; ++i)
      for (index_t j = 0; j < mask.cols; ++j)
        if (mask(i, j) != (j % 2 == 0 ? 1 : 0)) return "another column";
    return {};
  }
};

/// The same, inputs visited from the last to the first, beside marks of a caller in even columns.
struct Backwards : EverySecond {
  static std::vector<index_t> visit_order(const std::vector<double>& diagonal,
                                          const SolverOptions&) {
    std::vector<index_t> order(diagonal.size());
    std::iota(order.rbegin(), order.rend(), index_t{0});
    return order;
  }
  static index_t together(const SolverOptions&) { return 4; }
  static std::string refusal(MatrixView<const std::uint8_t> given, const SolverOptions&) {
    for (index_t j = 1; j < given.cols; j += 2)
      if (given(0, j) != 0) return "an odd column";
    return {};
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_pattern_of_ones_own_says_what_goes, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{7, 44});
  for (const bool act_order : {false, true}) {
    const auto linear = solved<Compression<EverySecond, BaseQuantizer>>(
        data, {.bits = 4, .block_size = 10, .act_order = act_order});
    const Matrix<T> Q = download<B>(linear.weights);
    for (index_t j = 0; j < Q.cols(); j += 2) BOOST_TEST(Q(3, j) == T(0));
    BOOST_TEST(linear_statistics("w", linear, 32).sparsity == 0.5);
  }
  // Widths by what rounding loses: weights that the pattern takes do not count.
  const auto by_distortion =
      solved<Compression<EverySecond, BaseQuantizer, MixedPrecision<Budget, GridDistortion>>>(
          data,
          {.bits = 4, .target_average_bits = 3.0, .axis = ChannelAxis::input, .block_size = 10});
  for (std::size_t j = 0; j < 44; j += 2) BOOST_TEST(int(by_distortion.bits[j]) == 2);
  BOOST_TEST(std::accumulate(by_distortion.bits.begin(), by_distortion.bits.end(), 0) == 3 * 44);
  const auto linear = solved<Compression<Backwards>>(data, {.block_size = 10});
  BOOST_TEST(linear.order.front() == 43);
  BOOST_TEST(linear.block_size == 8);
  const auto refused = [&](const auto& f) { return message_of<argument_error>(f); };
  BOOST_TEST(contains(refused([&] { solved<Compression<Backwards>>(data, {.act_order = true}); }),
                      "the pattern says in which order"));
  const Data<B, T> odd(Problem{7, 42});
  BOOST_TEST(contains(refused([&] { solved<Compression<Backwards>>(odd, SolverOptions{}); }),
                      "divisible by the 4"));
  BOOST_TEST(contains(message_of<invariant_error>(
                          [&] { solved<Compression<EverySecond>>(data, {.zeros = 1, .of = 2}); }),
                      "as asked for"));
}

namespace {

/// The same, but fails where it is shown numbers that are not finite, or a U that is none.
struct SeesFinite : EverySecond {
  template <class B, class T>
  static void mark(const MaskBlock<T>& block, const SolverOptions& options,
                   MatrixView<std::uint8_t> mask) {
    BOOST_TEST(B::find_non_finite(block.weights) == -1);
    const Matrix<T> u = B::to_host(block.diagonal);
    for (index_t j = 0; j < u.cols(); ++j) BOOST_TEST((u(0, j) > 0 && std::isfinite(u(0, j))));
    EverySecond::mark<B, T>(block, options, mask);
  }
};

/// The same, but cannot.
struct Throws : EverySecond {
  template <class B, class T>
  static void mark(const MaskBlock<T>& block, const SolverOptions&, MatrixView<std::uint8_t>) {
    if (block.weights.rows == 3) throw argument_error("three rows");
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_pattern_of_ones_own_sees_weights_and_u_that_are_known_to_be_good, C,
                              Cases) {
  using B = Defers<typename C::backend>;
  using T = typename C::scalar;
  Matrix<T> H(8, 8);
  H.fill(T(4));  // is factored with damping only
  const auto hessian = upload<B>(H);
  const auto calibration = Calibration<B, T>::from_hessian(hessian.view());
  Matrix<T> W = random_normal<T>(3, 8, 5);
  const auto good = upload<B>(W);
  W(1, 2) = std::numeric_limits<T>::infinity();
  const auto bad = upload<B>(W);
  SparseGPTSolver<Compression<SeesFinite, BaseQuantizer>, B, T> solver({.bits = 4, .damping = 0});
  BOOST_TEST(solver.solve(good.view(), calibration).damping_retries == 1);
  const auto factor = solver.prepare(calibration);
  BOOST_CHECK_THROW(solver.solve(
                        {.weights = bad.view(), .calibration = calibration, .factor = factor}),
                    non_finite_error);
  SparseGPTSolver<Compression<SeesFinite, BaseQuantizer>, B, T> half(
      {.bits = 4, .grid = {.half_scale = true}});
  const auto large = upload<B>(random_normal<T>(3, 8, 6, 1e7));
  BOOST_TEST(contains(message_of<argument_error>([&] { half.solve(large.view(), calibration); }),
                      "grid.half_scale: row 0"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(parts_of_ones_own_treat_linears_together_as_alone, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{7, 44});
  const auto other = upload<B>(random_normal<T>(3, 44, 8));
  const auto check = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    using Solver = SparseGPTSolver<Config, B, T>;
    Solver solver(options);
    const std::vector<typename Solver::Inputs> inputs{
        {.weights = data.weights.view(), .calibration = data.calibration},
        {.weights = other.view(), .calibration = data.calibration, .name = "v"}};
    const auto together = solver.solve_together(inputs);
    for (std::size_t i = 0; i < 2; ++i) {
      const auto alone = solver.solve(inputs[i]);
      BOOST_TEST(relative_difference(together[i].loss, alone.loss) <= 5 * tolerance<T>);
      BOOST_TEST(together[i].grids.custom_bits == alone.grids.custom_bits);
      BOOST_TEST(together[i].custom_pattern == alone.custom_pattern);
      BOOST_TEST(same_bytes(download<B>(together[i].mask), download<B>(alone.mask)));
      BOOST_TEST((together[i].order == alone.order));
    }
  };
  check(std::type_identity<Compression<EverySecond, Again>>{}, {.bits = 3, .block_size = 10});
  check(std::type_identity<Compression<Backwards>>{}, {.block_size = 10});
  check(std::type_identity<Compression<Unstructured, Again>>{}, {.sparsity = 0.5, .bits = 4});
  using Throwing = SparseGPTSolver<Compression<Throws>, B, T>;
  const std::vector<typename Throwing::Inputs> inputs{
      {.weights = data.weights.view(), .calibration = data.calibration, .name = "q"},
      {.weights = other.view(), .calibration = data.calibration, .name = "v"}};
  BOOST_TEST(message_of<argument_error>(
                 [&] { Throwing(SolverOptions{}).solve_together(inputs); }) == "v: three rows");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_mask_that_contradicts_a_pattern_is_refused, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{7, 44});
  const auto with = [&]<class P>(std::type_identity<P>, index_t column) {
    Matrix<std::uint8_t> mask(7, 44);
    std::fill_n(mask.data(), mask.size(), std::uint8_t{0});
    mask(0, column) = 1;
    const auto there = upload<B>(mask);
    return message_of<argument_error>([&] {
      SparseGPTSolver<Compression<P>, B, T>(SolverOptions{})
          .solve({.weights = data.weights.view(),
                  .calibration = data.calibration,
                  .mask = there.view()});
    });
  };
  BOOST_TEST(contains(with(std::type_identity<EverySecond>{}, 0), "refusal"));
  BOOST_TEST(contains(with(std::type_identity<Backwards>{}, 3), "an odd column"));
  BOOST_TEST(with(std::type_identity<Backwards>{}, 2).empty());
}

namespace {

/// Channels in falling order.
struct Falling {
  static constexpr ChannelAxis axis = ChannelAxis::output;
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input) const {
    std::vector<double> scores(std::size_t(input.weights.rows));
    std::iota(scores.rbegin(), scores.rend(), 1.0);
    return scores;
  }
};

struct FirstChannels : ObjectiveOption {
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis) const {
    return Falling{}(input);
  }
};

/// One number too few.
struct TooFew : ObjectiveOption {
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis) const {
    return std::vector<double>(std::size_t(input.weights.rows) - 1, 1.0);
  }
};

/// What FiveSignals does, written as an objective of one's own.
struct Five : ObjectiveOption {
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis axis) const {
    using In = ImportanceScorer<5, B, T, ChannelAxis::input>;
    using Out = ImportanceScorer<5, B, T>;
    return axis == ChannelAxis::input ? In().score(input).score : Out().score(input).score;
  }
};

template <class Objective>
using With = Compression<Unstructured, BaseQuantizer, MixedPrecision<Quantile, Objective>>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(an_objective_of_ones_own_ranks_channels, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{20, 44});
  SolverOptions options{.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0};
  const auto first = solved<With<FirstChannels>>(data, options);
  BOOST_TEST(std::is_sorted(first.bits.rbegin(), first.bits.rend()));
  BOOST_TEST(first.bits.front() > first.bits.back());
  BOOST_TEST(contains(message_of<shape_error>([&] { solved<With<TooFew>>(data, options); }),
                      "objective: expected a number for each of 20 channels, got 19"));
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
    options.axis = axis;
    BOOST_TEST(layer_bytes(solved<With<Five>>(data, options)) ==
               layer_bytes(solved<With<FiveSignals>>(data, options)));
  }

  // The five built-in signals but one.
  const auto factor = factorize(data.calibration, FactorOptions{});
  const ScoringInput<B, T> input{data.weights.view(), data.calibration, factor};
  using Scorer = ImportanceScorer<5, B, T>;
  const auto mixed = Scorer::template with<2>(Falling{}).score(input);
  const auto usual = Scorer().score(input);
  for (std::size_t s = 0; s < 5; ++s)
    for (std::size_t c = 0; c < 20; ++c) {
      const double expected = s == 2 ? double(20 - c) / 10.5 : usual.signals[s][c];
      BOOST_TEST(relative_difference(mixed.signals[s][c], expected) < 1e-4);
    }
}

BOOST_AUTO_TEST_CASE(options_that_a_part_of_ones_own_would_ignore_are_refused) {
  using B = backend::Reference;
  const auto refusal = [](const SolverOptions& options) {
    return message_of<argument_error>(
        [&] { SparseGPTSolver<Compression<Dense, Nf4>, B, float>{options}; });
  };
  BOOST_TEST(contains(refusal({.grid = {.symmetric = true}}), "grid.symmetric"));
  BOOST_TEST(contains(refusal({.grid = {.clip_search = true}}), "takes_grid_options"));
  BOOST_TEST(contains(refusal({.bits = 3}), "the quantizer's width is static"));
  BOOST_TEST(refusal({.bits = 4}).empty());
}
