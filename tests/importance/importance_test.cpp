// Importance signals and the scorer.
#define BOOST_TEST_MODULE pare_importance
#include <boost/test/unit_test.hpp>

#include "pare/importance/scorer.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

using Signals = std::array<std::vector<double>, 5>;

/// A linear, its activations and everything a signal may look at.
template <class B, class T>
struct Linear {
  Matrix<T> W, X;  // (out, in), (tokens, in)
  index_t sequences;
  typename B::template matrix<T> weights;
  Calibration<B, T> calibration;
  Factor<B, T> factor;

  Linear(Matrix<T> w, Matrix<T> x, index_t n, FactorOptions options = {})
      : W(std::move(w)),
        X(std::move(x)),
        sequences(n),
        weights(upload<B>(W)),
        calibration(calibrated(X, n)),
        factor(factorize(calibration, options)) {}

  static Calibration<B, T> calibrated(const Matrix<T>& X, index_t sequences) {
    Calibration<B, T> calibration(X.cols());
    const auto device = upload<B>(X);
    calibration.add(device.view(), sequences);
    return calibration;
  }
  ScoringInput<B, T> input(int bits = 4, GridOptions grid = {}) const {
    return {weights.view(), calibration, factor, bits, grid};
  }
};

template <class C>
auto example(double mean = 0.3) {
  using T = typename C::scalar;
  return Linear<typename C::backend, T>(random_normal<T>(11, 19, 1, 0.2),
                                        correlated_activations<T>(300, 19, 2, mean), 4);
}

void divide_by_mean(std::vector<double>& v) {
  const double mean = std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
  if (mean > 0)
    for (double& x : v) x /= mean;
}

template <class T>
double mean_abs_input(const Matrix<T>& X, index_t j) {
  double sum = 0;
  for (index_t t = 0; t < X.rows(); ++t) sum += std::abs(double(X(t, j)));
  return sum / double(X.rows());
}

/// The five signals of input channels straight from the formulas, not normalised.
template <class B, class T>
Signals naive_input_signals(const Linear<B, T>& l) {
  const index_t n = l.W.cols(), rows = l.W.rows(), tokens = l.X.rows();
  std::vector<double> H(std::size_t(n * n));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      for (index_t t = 0; t < tokens; ++t)
        H[std::size_t(i * n + j)] +=
            2.0 / double(l.sequences) * double(l.X(t, i)) * double(l.X(t, j));
  const std::vector<double> U = published_factor(H, std::size_t(n), 0.01);
  Signals s;
  for (index_t j = 0; j < n; ++j) {
    const double a = mean_abs_input(l.X, j);
    double magnitude = 0, sensitivity = 0, mean = 0, variance = 0;
    for (index_t i = 0; i < rows; ++i) {
      magnitude += std::abs(double(l.W(i, j))) / double(rows);
      sensitivity += double(l.W(i, j)) * double(l.W(i, j)) * a * a / double(rows);
    }
    for (index_t t = 0; t < tokens; ++t) mean += double(l.X(t, j)) / double(tokens);
    for (index_t t = 0; t < tokens; ++t)
      variance += std::pow(double(l.X(t, j)) - mean, 2) / double(tokens);
    s[0].push_back(a);
    s[1].push_back(U[std::size_t(j * n + j)]);
    s[2].push_back(magnitude);
    s[3].push_back(std::sqrt(sensitivity));
    s[4].push_back(variance);
  }
  return s;
}

double folded_normal(double mean, double variance) {
  const double sigma = std::sqrt(variance);
  return sigma * std::sqrt(2 / 3.141592653589793) * std::exp(-mean * mean / (2 * variance)) +
         mean * std::erf(mean / std::sqrt(2 * variance));
}

/// The five signals of output channels from the outputs Y = X W^T themselves, not normalised.
template <class B, class T>
Signals naive_output_signals(const Linear<B, T>& l, int bits, bool symmetric = false) {
  const index_t n = l.W.cols(), tokens = l.X.rows();
  Signals s;
  for (index_t i = 0; i < l.W.rows(); ++i) {
    std::vector<double> y(std::size_t(tokens), 0.0), row;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t j = 0; j < n; ++j) y[std::size_t(t)] += double(l.X(t, j)) * double(l.W(i, j));
    double mean = 0, variance = 0, energy = 0, magnitude = 0, distortion = 0;
    for (const double v : y) {
      mean += v / double(tokens);
      energy += 2.0 / double(l.sequences) * v * v;
    }
    for (const double v : y) variance += (v - mean) * (v - mean) / double(tokens);
    for (index_t j = 0; j < n; ++j) row.push_back(double(l.W(i, j)));
    const PublishedGrid grid = published_grid(row, bits, symmetric, false);
    for (index_t j = 0; j < n; ++j) {
      const double w = row[std::size_t(j)];
      double diagonal = 0;
      for (index_t t = 0; t < tokens; ++t)
        diagonal += 2.0 / double(l.sequences) * double(l.X(t, j)) * double(l.X(t, j));
      magnitude += std::abs(w) / double(n);
      distortion += (w - grid.round(w)) * (w - grid.round(w)) * diagonal;
    }
    s[0].push_back(folded_normal(mean, variance));
    s[1].push_back(std::sqrt(energy));
    s[2].push_back(magnitude);
    s[3].push_back(std::sqrt(distortion));
    s[4].push_back(variance);
  }
  return s;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double relative) {
  BOOST_REQUIRE_EQUAL(a.size(), b.size());
  for (std::size_t c = 0; c < a.size(); ++c)
    BOOST_REQUIRE_LE(relative_difference(a[c], b[c]), relative);
}

void check_importance(const Importance<5>& given, Signals expected,
                      const std::array<double, 5>& weights, double relative) {
  std::vector<double> score(expected[0].size(), 0.0);
  for (std::size_t s = 0; s < 5; ++s) {
    divide_by_mean(expected[s]);
    check_close(given.signals[s], expected[s], relative);
    for (std::size_t c = 0; c < score.size(); ++c) score[c] += weights[s] * expected[s][c];
  }
  check_close(given.score, score, relative);
}

/// A user's own signals: w_0j^2, and the number of the channel.
struct FirstRow {
  static constexpr ChannelAxis axis = ChannelAxis::input;
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    const Matrix<T> W = B::to_host(in.weights);
    std::vector<double> signal;
    for (index_t j = 0; j < W.cols(); ++j) signal.push_back(double(W(0, j)) * double(W(0, j)));
    return signal;
  }
};
struct Position {
  static constexpr ChannelAxis axis = ChannelAxis::input;
  double first = 1;
  template <class Input>
  std::vector<double> operator()(const Input& in) const {
    std::vector<double> signal(std::size_t(in.weights.cols));
    std::iota(signal.begin(), signal.end(), first);
    return signal;
  }
};
/// A signal of output channels that gives whatever it is told.
struct Given {
  static constexpr ChannelAxis axis = ChannelAxis::output;
  std::vector<double> values;
  template <class Input>
  std::vector<double> operator()(const Input&) const {
    return values;
  }
};
struct WithoutAxis {
  template <class Input>
  std::vector<double> operator()(const Input&) const {
    return {};
  }
};
struct WrongResult {
  static constexpr ChannelAxis axis = ChannelAxis::input;
  template <class Input>
  int operator()(const Input&) const {
    return 0;
  }
};

template <class S, class C, ChannelAxis Axis>
constexpr bool is_signal = Signal<S, typename C::backend, typename C::scalar, Axis>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_signal_belongs_to_one_axis, C, Cases) {
  constexpr ChannelAxis in = ChannelAxis::input, out = ChannelAxis::output;
  static_assert(is_signal<input_signal::Activation, C, in>);
  static_assert(is_signal<input_signal::Hessian, C, in>);
  static_assert(is_signal<input_signal::InverseHessian, C, in>);
  static_assert(is_signal<input_signal::Weight, C, in>);
  static_assert(is_signal<input_signal::OutputSensitivity, C, in>);
  static_assert(is_signal<input_signal::Stability, C, in>);
  static_assert(is_signal<output_signal::Activation, C, out>);
  static_assert(is_signal<output_signal::Hessian, C, out>);
  static_assert(is_signal<output_signal::Weight, C, out>);
  static_assert(is_signal<output_signal::OutputSensitivity, C, out>);
  static_assert(is_signal<output_signal::Stability, C, out>);
  static_assert(!is_signal<input_signal::Activation, C, out>);
  static_assert(!is_signal<input_signal::Hessian, C, out>);
  static_assert(!is_signal<output_signal::Weight, C, in>);
  static_assert(!is_signal<output_signal::Stability, C, in>);
  static_assert(is_signal<FirstRow, C, in> && !is_signal<FirstRow, C, out>);
  static_assert(!is_signal<WithoutAxis, C, in> && !is_signal<WrongResult, C, in>);
  static_assert(!is_signal<int, C, in>);
  BOOST_TEST((ImportanceScorer<5, typename C::backend, typename C::scalar>::axis == out));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(five_input_signals_match_their_formulas, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const double mean : {0.0, 0.5}) {
    const auto linear = example<C>(mean);
    const Importance<5> importance =
        ImportanceScorer<5, B, T, ChannelAxis::input>().score(linear.input());
    check_importance(importance, naive_input_signals(linear), {0.25, 0.25, 0.15, 0.25, 0.10},
                     tolerance<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(five_output_signals_match_the_actual_outputs, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const double mean : {0.0, 0.5})
    for (const int bits : {2, 4}) {
      const auto linear = example<C>(mean);
      const Importance<5> importance = ImportanceScorer<5, B, T>().score(linear.input(bits));
      check_importance(importance, naive_output_signals(linear, bits),
                       {0.25, 0.25, 0.15, 0.25, 0.10}, tolerance<T>);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(output_moments_are_in_the_unit_of_the_outputs, C, Cases) {
  using T = typename C::scalar;
  const auto linear = example<C>();
  const OutputMoments moments = output_moments(linear.input(3));
  const Signals naive = naive_output_signals(linear, 3);
  check_close(moments.mean_abs, naive[0], tolerance<T>);
  check_close(moments.energy, naive[1], tolerance<T>);
  check_close(moments.weight, naive[2], tolerance<T>);
  check_close(moments.distortion, naive[3], tolerance<T>);
  check_close(moments.variance, naive[4], tolerance<T>);
  // The activations are normal, so the folded normal is what |y| averages to.
  for (index_t i = 0; i < linear.W.rows(); ++i) {
    double mean_abs = 0;
    for (index_t t = 0; t < linear.X.rows(); ++t) {
      double y = 0;
      for (index_t j = 0; j < linear.W.cols(); ++j)
        y += double(linear.W(i, j)) * double(linear.X(t, j));
      mean_abs += std::abs(y) / double(linear.X.rows());
    }
    BOOST_TEST(relative_difference(mean_abs, moments.mean_abs[std::size_t(i)]) < 0.1);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_distortion_is_that_of_the_grid_given, C, Cases) {
  using T = typename C::scalar;
  const auto linear = example<C>();
  const auto symmetric = output_moments(linear.input(3, {.symmetric = true})).distortion;
  check_close(symmetric, naive_output_signals(linear, 3, true)[3], tolerance<T>);
  BOOST_TEST(symmetric != output_moments(linear.input(3)).distortion);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(single_signals_are_those_of_the_five, C, Cases) {
  using T = typename C::scalar;
  const auto linear = example<C>();
  const auto input = linear.input();
  const Signals in = naive_input_signals(linear), out = naive_output_signals(linear, 4);
  check_close(input_signal::Activation{}(input), in[0], tolerance<T>);
  check_close(input_signal::Hessian{}(input), in[1], tolerance<T>);
  check_close(input_signal::Weight{}(input), in[2], tolerance<T>);
  check_close(input_signal::OutputSensitivity{}(input), in[3], tolerance<T>);
  check_close(input_signal::Stability{}(input), in[4], tolerance<T>);
  check_close(output_signal::Activation{}(input), out[0], tolerance<T>);
  check_close(output_signal::Hessian{}(input), out[1], tolerance<T>);
  check_close(output_signal::Weight{}(input), out[2], tolerance<T>);
  check_close(output_signal::OutputSensitivity{}(input), out[3], tolerance<T>);
  check_close(output_signal::Stability{}(input), out[4], tolerance<T>);
  std::vector<double> corrected = in[1];
  for (double& u : corrected) u = 1 / u;
  check_close(input_signal::InverseHessian{}(input), corrected, tolerance<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_hessian_signal_belongs_to_its_input_in_any_visit_order, C,
                              Cases) {
  using T = typename C::scalar;
  std::vector<index_t> order(19);
  for (index_t p = 0; p < 19; ++p) order[std::size_t(p)] = (p * 7 + 4) % 19;
  const Linear<typename C::backend, T> linear(random_normal<T>(3, 19, 1),
                                              correlated_activations<T>(80, 19, 2), 1,
                                              {.damping = 0.01, .order = order});
  const std::vector<double> U =
      published_factor(doubles(linear.calibration.hessian()), 19, 0.01, order);
  const std::vector<double> signal = input_signal::Hessian{}(linear.input());
  for (std::size_t p = 0; p < 19; ++p)
    BOOST_TEST(relative_difference(signal[std::size_t(order[p])], U[p * 19 + p]) <= tolerance<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(normalised_signals_have_a_mean_of_one, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  const auto check = [](const Importance<5>& importance) {
    for (const auto& signal : importance.signals)
      BOOST_TEST(
          std::abs(std::accumulate(signal.begin(), signal.end(), 0.0) / double(signal.size()) - 1) <
          1e-12);
    const auto& score = importance.score;
    BOOST_TEST(std::abs(std::accumulate(score.begin(), score.end(), 0.0) / double(score.size()) -
                        1) < 1e-12);  // the default weights sum to 1
  };
  check(ImportanceScorer<5, B, T>().score(linear.input()));
  check(ImportanceScorer<5, B, T, ChannelAxis::input>().score(linear.input()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(other_weights_weigh_the_same_signals, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  const std::array<double, 5> weights{0, 2, 0, 0.5, 3};
  check_importance(ImportanceScorer<5, B, T>(weights).score(linear.input()),
                   naive_output_signals(linear, 4), weights, tolerance<T>);
  const ImportanceScorer<5, B, T, ChannelAxis::input> only_one({0, 0, 1, 0, 0});
  const Importance<5> importance = only_one.score(linear.input());
  BOOST_TEST(importance.score == importance.signals[2]);
  BOOST_TEST(only_one.weights()[2] == 1.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bad_weights_are_errors, C, Cases) {
  using Scorer = ImportanceScorer<5, typename C::backend, typename C::scalar>;
  BOOST_TEST(contains(message_of<argument_error>([] {
                        Scorer(std::array<double, 5>{1, 1, -0.5, 1, 1});
                      }),
                      "-0.500000 at 2"));
  BOOST_CHECK_THROW(Scorer(std::array<double, 5>{1, 1, 1, 1, std::nan("")}), argument_error);
  BOOST_CHECK_THROW(Scorer(std::array<double, 5>{double(INFINITY), 1, 1, 1, 1}), argument_error);
  BOOST_CHECK_THROW(Scorer(std::array<double, 5>{}), argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_only_h_the_inputs_are_normal_and_its_unit_drops_out, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> H = correlated_hessian<T>(19, 5);
  const Matrix<T> W = random_normal<T>(11, 19, 6);
  const auto weights = upload<B>(W);
  const auto score = [&](T unit, auto scorer) {
    Matrix<T> scaled = H;
    for (index_t i = 0; i < H.size(); ++i) scaled.data()[i] *= unit;
    const auto device = upload<B>(scaled);
    const auto calibration = Calibration<B, T>::from_hessian(device.view());
    const auto factor = factorize(calibration);
    return scorer.score({weights.view(), calibration, factor});
  };
  const ImportanceScorer<5, B, T> output;
  const ImportanceScorer<5, B, T, ChannelAxis::input> input;

  Signals in, out;
  const std::vector<double> U = published_factor(doubles(H), 19, 0.01);
  for (index_t j = 0; j < 19; ++j) {
    const double h = double(H(j, j));
    double magnitude = 0, square = 0;
    for (index_t i = 0; i < 11; ++i) {
      magnitude += std::abs(double(W(i, j))) / 11;
      square += double(W(i, j)) * double(W(i, j)) / 11;
    }
    in[0].push_back(std::sqrt(h));
    in[1].push_back(U[std::size_t(j * 19 + j)]);
    in[2].push_back(magnitude);
    in[3].push_back(std::sqrt(square * h));
    in[4].push_back(h);
  }
  for (index_t i = 0; i < 11; ++i) {
    std::vector<double> row;
    double quadratic = 0, magnitude = 0, distortion = 0;
    for (index_t j = 0; j < 19; ++j) {
      row.push_back(double(W(i, j)));
      magnitude += std::abs(row.back());
      for (index_t k = 0; k < 19; ++k)
        quadratic += double(W(i, j)) * double(H(j, k)) * double(W(i, k));
    }
    const PublishedGrid grid = published_grid(row, 4, false, false);
    for (std::size_t j = 0; j < 19; ++j)
      distortion += std::pow(row[j] - grid.round(row[j]), 2) * double(H(index_t(j), index_t(j)));
    out[0].push_back(std::sqrt(quadratic));
    out[1].push_back(std::sqrt(quadratic));
    out[2].push_back(magnitude);
    out[3].push_back(std::sqrt(distortion));
    out[4].push_back(quadratic);
  }
  for (const T unit : {T(1), T(1e-4), T(37)}) {
    check_importance(score(unit, input), in, input.weights(), tolerance<T>);
    check_importance(score(unit, output), out, output.weights(), tolerance<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_scale_of_the_weights_drops_out_of_the_score, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  for (const T unit : {T(4), T(1e-3)}) {
    Matrix<T> W = linear.W;
    for (index_t i = 0; i < W.size(); ++i) W.data()[i] *= unit;
    const Linear<B, T> scaled(W, linear.X, linear.sequences);
    const ImportanceScorer<5, B, T> output;
    const ImportanceScorer<5, B, T, ChannelAxis::input> input;
    check_close(output.score(scaled.input()).score, output.score(linear.input()).score,
                tolerance<T>);
    check_close(input.score(scaled.input()).score, input.score(linear.input()).score, tolerance<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_signal_that_is_zero_everywhere_stays_zero, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Linear<B, T> linear(Matrix<T>(4, 6), correlated_activations<T>(20, 6, 3), 1);
  const auto output = ImportanceScorer<5, B, T>().score(linear.input());
  BOOST_TEST(output.score == std::vector<double>(4, 0.0));
  const auto input = ImportanceScorer<5, B, T, ChannelAxis::input>().score(linear.input());
  BOOST_TEST(input.signals[2] == std::vector<double>(6, 0.0));
  BOOST_TEST(input.signals[3] == std::vector<double>(6, 0.0));
  for (const double s : input.score) BOOST_TEST(s > 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_users_own_signals_make_a_scorer, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  const ImportanceScorer<2, B, T, ChannelAxis::input> scorer({0.75, 0.5}, FirstRow{}, Position{3});
  const Importance<2> importance = scorer.score(linear.input());
  std::vector<double> first, position;
  for (index_t j = 0; j < 19; ++j) {
    first.push_back(double(linear.W(0, j)) * double(linear.W(0, j)));
    position.push_back(double(j) + 3);
  }
  divide_by_mean(first);
  divide_by_mean(position);
  check_close(importance.signals[0], first, 1e-12);
  check_close(importance.signals[1], position, 1e-12);
  for (std::size_t j = 0; j < 19; ++j)
    BOOST_TEST(relative_difference(importance.score[j], 0.75 * first[j] + 0.5 * position[j]) <
               1e-12);
  static_assert(Signal<FirstRow, B, T, ChannelAxis::input>);
  static_assert(!Signal<FirstRow, B, T, ChannelAxis::output> &&
                !Signal<int, B, T, ChannelAxis::input>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bad_signals_are_errors_that_name_signal_and_channel, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  const std::vector<double> good(11, 1.0);
  const auto score = [&](std::vector<double> values) {
    ImportanceScorer<2, B, T>({1, 1}, Given{good}, Given{std::move(values)}).score(linear.input());
  };
  BOOST_CHECK_NO_THROW(score(good));
  std::vector<double> values = good;
  values[7] = -0.5;
  const std::string negative = message_of<argument_error>([&] { score(values); });
  BOOST_TEST(contains(negative, "signal 1"));
  BOOST_TEST(contains(negative, "channel 7"));
  for (const double bad : {std::nan(""), double(INFINITY)}) {
    values[7] = bad;
    const std::string text = message_of<non_finite_error>([&] { score(values); });
    BOOST_TEST(contains(text, "signal 1"));
    BOOST_TEST(contains(text, "channel 7"));
  }
  values.assign(12, 1.0);
  const std::string length = message_of<shape_error>([&] { score(values); });
  BOOST_TEST(contains(length, "expected 11"));
  BOOST_TEST(contains(length, "got 12"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(weights_that_do_not_fit_the_calibration_are_an_error, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto linear = example<C>();
  const auto W = upload<B>(Matrix<T>(11, 18));
  const Linear<B, T> narrow(Matrix<T>(11, 18), correlated_activations<T>(300, 18, 2), 4);
  using Input = ScoringInput<B, T>;
  const auto refuse = [](const Input& input, const std::string& against,
                         const std::string& shapes) {
    const std::string text = "weights (out, in) against " + against + ": expected shape " + shapes;
    BOOST_TEST(message_of<shape_error>([&] { ImportanceScorer<5, B, T>().score(input); }) == text);
    BOOST_TEST(message_of<shape_error>([&] { output_moments(input); }) == text);
    BOOST_TEST(message_of<shape_error>([&] { output_signal::Activation{}(input); }) == text);
  };
  refuse({W.view(), linear.calibration, linear.factor}, "calibration (in)",
         "(11, 19), got (11, 18)");
  refuse({W.view(), narrow.calibration, linear.factor}, "factor (in, in)",
         "(11, 19), got (11, 18)");
}
