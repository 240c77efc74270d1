// Calibration (H, moments) and the factor of the inverse Hessian.
#define BOOST_TEST_MODULE pare_calibration
#include <boost/test/unit_test.hpp>

#include "pare/calibration/drift.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

struct NotABackend {};
using AnyBackend = Oracle;
struct WithoutScalars : AnyBackend {
  template <class>
  static constexpr bool supports = false;
};
struct WithoutName : AnyBackend {
 private:
  using AnyBackend::name;
};

static_assert(Backend<AnyBackend, float> && Backend<AnyBackend, double>);
static_assert(!Backend<NotABackend, float>);
static_assert(!Backend<AnyBackend, int>);
static_assert(!Backend<WithoutScalars, float>);
static_assert(!Backend<WithoutName, float>);
static_assert(std::tuple_size_v<Cases> == std::tuple_size_v<Scalars> * std::tuple_size_v<Backends>);

/// The rows [begin, begin + count) of X.
template <class T>
MatrixView<const T> tokens_of(const Matrix<T>& X, index_t begin, index_t count) {
  return X.view().block(begin, 0, count, X.cols());
}

/// A calibration from a host matrix.
template <class B, class T>
Calibration<B, T> calibrate(const Matrix<T>& X, index_t sequences = 1) {
  Calibration<B, T> calibration(X.cols());
  const auto device = upload<B>(X);
  calibration.add(device.view(), sequences);
  return calibration;
}

template <class B, class T>
Calibration<B, T> calibration_of(const Matrix<T>& H) {
  const auto device = upload<B>(H);
  return Calibration<B, T>::from_hessian(device.view());
}

struct NaiveMoments {
  std::vector<double> mean_abs, mean, variance;
};

template <class T>
NaiveMoments naive_moments(const Matrix<T>& X) {
  NaiveMoments m;
  for (index_t j = 0; j < X.cols(); ++j) {
    long double magnitude = 0, sum = 0, squares = 0;
    for (index_t t = 0; t < X.rows(); ++t) {
      magnitude += std::abs((long double)(X(t, j)));
      sum += X(t, j);
    }
    const long double mean = sum / (long double)(X.rows());
    for (index_t t = 0; t < X.rows(); ++t) squares += (X(t, j) - mean) * (X(t, j) - mean);
    m.mean_abs.push_back(double(magnitude / (long double)(X.rows())));
    m.mean.push_back(double(mean));
    m.variance.push_back(double(squares / (long double)(X.rows())));
  }
  return m;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double relative,
                 double absolute = 0) {
  BOOST_REQUIRE_EQUAL(a.size(), b.size());
  for (std::size_t j = 0; j < a.size(); ++j)
    BOOST_REQUIRE_LE(std::abs(a[j] - b[j]), relative * std::abs(b[j]) + absolute);
}

template <class T>
void check_moments(const InputMoments& given, const Matrix<T>& X, double relative) {
  const NaiveMoments naive = naive_moments(X);
  check_close(given.mean_abs, naive.mean_abs, relative);
  check_close(given.mean, naive.mean, relative, relative);
  check_close(given.variance, naive.variance, relative);
}

/// |A - B| within `relative` of sqrt(B_ii B_jj).
template <class T>
void check_same_hessian(const Matrix<T>& A, const Matrix<T>& B, double relative) {
  BOOST_REQUIRE_EQUAL(A.rows(), B.rows());
  for (index_t i = 0; i < A.rows(); ++i)
    for (index_t j = 0; j < A.cols(); ++j)
      BOOST_REQUIRE_LE(std::abs(double(A(i, j)) - double(B(i, j))),
                       relative * std::sqrt(double(B(i, i)) * double(B(j, j))));
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(hessian_is_twice_the_sum_of_outer_products_per_sequence, C, Cases) {
  using T = typename C::scalar;
  const Matrix<T> X = correlated_activations<T>(37, 131, 1, 0.3);
  const auto calibration = calibrate<typename C::backend>(X, 3);
  Matrix<double> expected(131, 131);
  for (index_t i = 0; i < 131; ++i)
    for (index_t j = 0; j < 131; ++j) {
      double sum = 0;
      for (index_t t = 0; t < 37; ++t) sum += double(X(t, i)) * double(X(t, j));
      expected(i, j) = 2.0 / 3.0 * sum;
    }
  const Matrix<T> H = calibration.hessian();
  check_same_hessian(cast<double>(H), expected, 1e-2 * tolerance<T>);
  const std::vector<double> diagonal = calibration.hessian_diagonal();
  for (index_t j = 0; j < 131; ++j) {
    BOOST_TEST(relative_difference(diagonal[std::size_t(j)], expected(j, j)) <= tolerance<T>);
    for (index_t i = 0; i < j; ++i) BOOST_REQUIRE_EQUAL(H(i, j), H(j, i));
  }
  BOOST_TEST(calibration.tokens() == 37);
  BOOST_TEST(calibration.sequences() == 3);
  BOOST_TEST(calibration.in_features() == 131);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(moments_are_those_of_all_tokens, C, Cases) {
  using T = typename C::scalar;
  const Matrix<T> X = correlated_activations<T>(90, 70, 2, 0.2);
  check_moments(calibrate<typename C::backend>(X).moments(), X, 1e-10);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(how_tokens_are_split_into_batches_changes_nothing, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t tokens = 60;
  const Matrix<T> X = correlated_activations<T>(tokens, 130, 3, -0.4);
  const auto device = upload<B>(X);
  const Matrix<T> whole = calibrate<B>(X, tokens).hessian();
  for (const index_t step : {index_t{1}, index_t{7}, index_t{23}, tokens}) {
    Calibration<B, T> calibration(X.cols());
    for (index_t begin = 0; begin < tokens; begin += step) {
      const index_t count = std::min(step, tokens - begin);
      calibration.add(device.view().block(begin, 0, count, X.cols()), count);
    }
    BOOST_TEST(calibration.tokens() == tokens);
    BOOST_TEST(calibration.sequences() == tokens);
    check_same_hessian(calibration.hessian(), whole, 1e-2 * tolerance<T>);
    check_moments(calibration.moments(), X, 1e-10);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(merged_calibrations_equal_one_stream, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> X = correlated_activations<T>(50, 65, 4, 0.7);
  auto first = calibrate<B>(Matrix<T>(tokens_of(X, 0, 13)), 2);
  const auto second = calibrate<B>(Matrix<T>(tokens_of(X, 13, 37)), 3);
  const Calibration<B, T> nothing(X.cols());
  Calibration<B, T> merged(X.cols());
  merged.merge(nothing);
  merged.merge(first);
  merged.merge(nothing);
  merged.merge(second);
  const auto stream = calibrate<B>(X, 5);
  BOOST_TEST(merged.tokens() == 50);
  BOOST_TEST(merged.sequences() == 5);
  check_same_hessian(merged.hessian(), stream.hessian(), 1e-2 * tolerance<T>);
  check_moments(merged.moments(), X, 1e-10);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(moments_survive_a_mean_far_above_the_spread, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Matrix<T> X = random_normal<T>(400, 9, 5);
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] += T(1e4);
  const auto device = upload<B>(X);
  for (const index_t step : {index_t{1}, index_t{33}, X.rows()}) {
    Calibration<B, T> calibration(X.cols());
    for (index_t begin = 0; begin < X.rows(); begin += step)
      calibration.add(device.view().block(begin, 0, std::min(step, X.rows() - begin), X.cols()));
    check_moments(calibration.moments(), X, 1e-8);
    for (const double v : calibration.moments().variance) BOOST_TEST((v > 0.8 && v < 1.2));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(non_finite_activations_are_named_and_leave_no_trace, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> good = correlated_activations<T>(20, 40, 6);
  auto calibration = calibrate<B>(good);
  const Matrix<T> before = calibration.hessian();
  const InputMoments moments = calibration.moments();
  const T infinity = std::numeric_limits<T>::infinity();
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), infinity, -infinity})
    for (const auto& [row, column] :
         {std::pair<index_t, index_t>{0, 0}, {3, 39}, {7, 5}, {19, 33}}) {
      Matrix<T> X = good;
      X(row, column) = bad;
      if (row + 1 < X.rows()) X(row + 1, 0) = bad;  // the first one is named
      const auto device = upload<B>(X);
      try {
        calibration.add(device.view());
        BOOST_ERROR("accepted a non-finite activation");
      } catch (const non_finite_error& e) {
        BOOST_TEST(e.row() == row);
        BOOST_TEST(e.column() == column);
        BOOST_TEST(contains(e.what(), "X (tokens, in)"));
        BOOST_TEST(contains(e.what(), shape_text(row, column)));
        BOOST_TEST(contains(e.what(), "(20, 40)"));
      }
    }
  BOOST_TEST(same_bytes(calibration.hessian(), before));
  BOOST_TEST(calibration.tokens() == 20);
  BOOST_TEST(calibration.sequences() == 1);
  BOOST_TEST(calibration.moments().variance == moments.variance);
  BOOST_TEST(calibration.moments().mean_abs == moments.mean_abs);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(activations_that_overflow_when_squared_are_named, C, Cases) {
  using T = typename C::scalar;
  Matrix<T> X = correlated_activations<T>(9, 6, 9);
  X(4, 3) = std::sqrt(std::numeric_limits<T>::max()) * T(2);
  const auto calibration = calibrate<typename C::backend>(X);
  try {
    factorize(calibration);
    BOOST_ERROR("factored an infinite H");
  } catch (const non_finite_error& e) {
    BOOST_TEST(e.column() == 3);
    BOOST_TEST(contains(e.what(), "input 3"));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(wrong_shapes_and_counts_are_errors_that_show_both, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Calibration<B, T> calibration(3);
  const auto wide = upload<B>(Matrix<T>(5, 4));
  const std::string text = message_of<shape_error>([&] { calibration.add(wide.view()); });
  BOOST_TEST(contains(text, "X (tokens, in)"));
  BOOST_TEST(contains(text, "(5, 3)"));
  BOOST_TEST(contains(text, "(5, 4)"));
  const auto empty = upload<B>(Matrix<T>(0, 3));
  BOOST_TEST(contains(message_of<shape_error>([&] { calibration.add(empty.view()); }), "(0, 3)"));
  const auto fine = upload<B>(Matrix<T>(2, 3));
  BOOST_TEST(
      contains(message_of<argument_error>([&] { calibration.add(fine.view(), 0); }), "sequences"));
  const Calibration<B, T> other(4);
  const std::string merging = message_of<shape_error>([&] { calibration.merge(other); });
  BOOST_TEST(contains(merging, "(3, 3)"));
  BOOST_TEST(contains(merging, "(4, 4)"));
  BOOST_TEST(calibration.tokens() == 0);
  BOOST_CHECK_THROW((Calibration<B, T>(0)), argument_error);
  BOOST_CHECK_THROW((Calibration<B, T>(-2)), argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(nothing_added_is_an_error, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Calibration<B, T> calibration(3);
  BOOST_CHECK_THROW(calibration.hessian(), argument_error);
  BOOST_CHECK_THROW(calibration.hessian_diagonal(), argument_error);
  BOOST_CHECK_THROW(calibration.hessian_scale(), argument_error);
  BOOST_CHECK_THROW(calibration.moments(), argument_error);
  BOOST_CHECK_THROW(factorize(calibration), argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(from_hessian_knows_h_and_the_normal_moments, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> H = correlated_hessian<T>(12, 7);
  auto calibration = calibration_of<B>(H);
  BOOST_TEST(calibration.hessian_only());
  BOOST_TEST(same_bytes(calibration.hessian(), H));
  const InputMoments moments = calibration.moments();
  for (index_t j = 0; j < 12; ++j) {
    const std::size_t at = std::size_t(j);
    BOOST_TEST(moments.mean[at] == 0);
    BOOST_TEST(moments.variance[at] == double(H(j, j)));
    BOOST_TEST(relative_difference(moments.mean_abs[at],
                                   std::sqrt(double(H(j, j))) * 0.79788456080286541) < 1e-12);
  }
  const auto X = upload<B>(Matrix<T>(2, 12));
  BOOST_CHECK_THROW(calibration.add(X.view()), argument_error);
  BOOST_CHECK_THROW(calibration.merge(calibration_of<B>(H)), argument_error);
  Calibration<B, T> streamed(12);
  BOOST_CHECK_THROW(streamed.merge(calibration), argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(from_hessian_rejects_what_is_no_hessian, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> good = correlated_hessian<T>(6, 8);

  const std::string square = message_of<shape_error>([] { calibration_of<B>(Matrix<T>(3, 4)); });
  BOOST_TEST(contains(square, "square"));
  BOOST_TEST(contains(square, "(3, 4)"));

  Matrix<T> H = good;
  H(4, 1) += T(0.5);
  const std::string symmetric = message_of<argument_error>([&] { calibration_of<B>(H); });
  BOOST_TEST(contains(symmetric, "symmetric"));
  BOOST_TEST(contains(symmetric, "(4, 1)"));
  BOOST_TEST(contains(symmetric, "(1, 4)"));

  H = good;
  H(2, 2) = T(-0.25);
  const std::string negative = message_of<argument_error>([&] { calibration_of<B>(H); });
  BOOST_TEST(contains(negative, "-0.25"));
  BOOST_TEST(contains(negative, "(2, 2)"));

  H = good;
  H(5, 3) = std::numeric_limits<T>::quiet_NaN();
  try {
    calibration_of<B>(H);
    BOOST_ERROR("accepted NaN");
  } catch (const non_finite_error& e) {
    BOOST_TEST(e.row() == 5);
    BOOST_TEST(e.column() == 3);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(factor_is_the_upper_cholesky_of_the_inverse, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t n : {1, 2, 127, 128, 129, 300}) {
    const Matrix<T> H = correlated_hessian<T>(n, std::uint64_t(10 + n));
    const auto factor = factorize(calibration_of<B>(H), {.damping = 0.02});
    const Matrix<T> U = download<B>(factor.upper);
    const std::size_t size = std::size_t(n);
    const std::vector<double> expected = published_factor(doubles(H), size, 0.02);
    const std::vector<double> A = damped(doubles(H), size, 0.02, {});
    double largest = 0;
    for (index_t j = 0; j < n; ++j)
      largest = std::max(largest, expected[std::size_t(j) * size + std::size_t(j)]);
    Matrix<double> UA(n, n);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        if (j < i) BOOST_REQUIRE_EQUAL(U(i, j), T(0));
        BOOST_REQUIRE_LE(std::abs(double(U(i, j)) - expected[std::size_t(i * n + j)]),
                         0.1 * tolerance<T> * largest);
        for (index_t k = 0; k < n; ++k) UA(i, k) += double(U(i, j)) * A[std::size_t(j * n + k)];
      }
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        double sum = 0;
        for (index_t k = j; k < n; ++k) sum += UA(i, k) * double(U(j, k));
        BOOST_REQUIRE_LE(std::abs(sum - (i == j ? 1 : 0)), tolerance<T>);
      }
    for (index_t j = 0; j < n; ++j) {
      BOOST_REQUIRE_EQUAL(factor.upper_diagonal[std::size_t(j)], double(U(j, j)));
      BOOST_REQUIRE_EQUAL(factor.order[std::size_t(j)], j);
      BOOST_REQUIRE_EQUAL(factor.hessian_diagonal[std::size_t(j)], double(H(j, j)));
    }
    BOOST_TEST(factor.retries == 0);
    BOOST_TEST(factor.damping == 0.02);
    double mean = 0;
    for (index_t j = 0; j < n; ++j) mean += double(H(j, j)) / double(n);
    BOOST_TEST(relative_difference(factor.added, 0.02 * mean) < 1e-12);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(dead_inputs_get_a_diagonal_of_one, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t n = 20;
  Matrix<T> H = correlated_hessian<T>(n, 11);
  for (const index_t dead : {0, 5, 6, 19})
    for (index_t j = 0; j < n; ++j) H(dead, j) = H(j, dead) = 0;
  const auto factor = factorize(calibration_of<B>(H));
  double mean = 0;
  for (index_t j = 0; j < n; ++j) mean += double(H(j, j)) / 16;
  BOOST_TEST(relative_difference(factor.mean_diagonal, mean) < 1e-12);
  BOOST_TEST(factor.added == 0.01 * factor.mean_diagonal);
  BOOST_TEST(!factor.identity);
  const std::vector<double> expected = published_factor(doubles(H), 20, 0.01);
  const Matrix<T> U = download<B>(factor.upper);
  for (index_t i = 0; i < n; ++i) {
    const bool dead = i == 0 || i == 5 || i == 6 || i == 19;
    BOOST_TEST(int(factor.dead[std::size_t(i)]) == int(dead));
    if (dead) BOOST_TEST(factor.hessian_diagonal[std::size_t(i)] == 1.0);
    for (index_t j = 0; j < n; ++j)
      BOOST_REQUIRE_SMALL(double(U(i, j)) - expected[std::size_t(i * n + j)], 0.1 * tolerance<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(where_all_inputs_are_dead_the_hessian_is_the_identity, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Matrix<T> H(5, 5);
  const auto factor = factorize(calibration_of<B>(H), {.damping = 0.25});
  BOOST_TEST(factor.identity);
  BOOST_TEST(factor.added == 0.25);
  const Matrix<T> U = download<B>(factor.upper);
  for (index_t i = 0; i < 5; ++i) {
    BOOST_TEST(int(factor.dead[std::size_t(i)]) == 0);
    for (index_t j = 0; j < 5; ++j)
      BOOST_REQUIRE_SMALL(double(U(i, j)) - (i == j ? 1 / std::sqrt(1.25) : 0.0), tolerance<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(factor_in_an_order_is_that_of_the_permuted_hessian, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t n = 140;
  const Matrix<T> H = correlated_hessian<T>(n, 12);
  std::vector<index_t> order(std::size_t(n), 0);
  for (index_t p = 0; p < n; ++p) order[std::size_t(p)] = (p * 37 + 5) % n;
  const auto factor = factorize(calibration_of<B>(H), {.damping = 0.01, .order = order});
  const std::vector<double> expected = published_factor(doubles(H), std::size_t(n), 0.01, order);
  const Matrix<T> U = download<B>(factor.upper);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      BOOST_REQUIRE_SMALL(double(U(i, j)) - expected[std::size_t(i * n + j)], 0.1 * tolerance<T>);
  BOOST_TEST(factor.order == order);
  BOOST_TEST(factor.hessian_diagonal[3] == double(H(3, 3)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bad_orders_and_dampings_are_errors, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto calibration = calibration_of<B>(correlated_hessian<T>(4, 13));
  for (const std::vector<index_t>& order :
       {std::vector<index_t>{0, 1, 2}, {0, 1, 2, 2}, {0, 1, 2, 4}, {-1, 1, 2, 3}, {0, 1, 2, 3, 4}})
    BOOST_TEST(contains(message_of<argument_error>(
                            [&] { factorize(calibration, {.damping = 0.01, .order = order}); }),
                        "permutation of 0..3"));
  for (const double damping : {-0.1, 1.5, std::nan("")})
    BOOST_TEST(contains(message_of<argument_error>(
                            [&] { factorize(calibration, {.damping = damping, .order = {}}); }),
                        "damping: expected a number within 0..1"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_singular_hessian_climbs_the_damping_ladder, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t n : {2, 5, 130}) {
    Matrix<T> H(n, n);
    H.fill(T(4));  // rank one, and its elimination is exact
    const auto factor = factorize(calibration_of<B>(H), {.damping = 0, .order = {}});
    BOOST_TEST(factor.retries == 1);
    BOOST_TEST(factor.damping == 0.001);
    BOOST_TEST(relative_difference(factor.added, 0.004) < 1e-12);
    const std::vector<double> expected =
        published_factor(doubles(H), std::size_t(n), factor.damping);
    const Matrix<T> U = download<B>(factor.upper);
    for (index_t j = 0; j < n; ++j)
      BOOST_REQUIRE_LE(relative_difference(double(U(j, j)), expected[std::size_t(j * n + j)]),
                       50 * tolerance<T>);
  }
  // Eigenvalues 2.3 and -0.3: damping 0.01 and 0.1 are not enough, 1 is.
  Matrix<T> H(2, 2);
  H(0, 0) = H(1, 1) = 1;
  H(0, 1) = H(1, 0) = T(1.3);
  const auto factor = factorize(calibration_of<B>(H));
  BOOST_TEST(factor.retries == 2);
  BOOST_TEST(factor.damping == 1.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_end_of_the_ladder_is_an_error, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t n : {2, 150}) {
    Matrix<T> H(n, n);
    for (index_t j = 0; j < n; ++j) H(j, j) = 1;
    H(0, n - 1) = H(n - 1, 0) = 100;  // an eigenvalue of -99
    const auto calibration = calibration_of<B>(H);
    const std::string text = message_of<factorization_error>([&] { factorize(calibration); });
    BOOST_TEST(contains(text, shape_text(n, n)));
    BOOST_TEST(contains(text, "2 retries"));
    BOOST_TEST(contains(text, "0.01"));
    BOOST_TEST(contains(message_of<factorization_error>(
                            [&] { factorize(calibration, {.damping = 0, .order = {}}); }),
                        "4 retries"));
  }
}

// ---------------------------------------------------------------- drift of the inputs

namespace {

/// sum |W x_dense - V x|^2 + ridge |V - W|^2.
double corrected_objective(const Matrix<double>& W, const Matrix<double>& V,
                           const Matrix<double>& dense, const Matrix<double>& X, double ridge) {
  double sum = 0;
  for (index_t r = 0; r < W.rows(); ++r) {
    for (index_t t = 0; t < X.rows(); ++t) {
      double difference = 0;
      for (index_t j = 0; j < W.cols(); ++j)
        difference += W(r, j) * dense(t, j) - V(r, j) * X(t, j);
      sum += difference * difference;
    }
    for (index_t j = 0; j < W.cols(); ++j) sum += ridge * (V(r, j) - W(r, j)) * (V(r, j) - W(r, j));
  }
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(corrected_weights_minimise_their_objective, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t tokens = 90, in = 21, out = 7;
  const auto dense = random_normal<T>(tokens, in, 5);
  auto X = dense;
  const auto noise = random_normal<T>(tokens, in, 6);
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] += T(0.3) * noise.data()[i];
  for (index_t t = 0; t < tokens; ++t) X(t, 4) = 0;  // a dead input
  const auto W = random_normal<T>(out, in, 7);
  const auto on_dense = upload<B>(dense), on_x = upload<B>(X), on_w = upload<B>(W);

  Calibration<B, T> calibration(in);
  InputDrift<B, T> drift(in);
  for (const index_t begin : {0, 40}) {  // in two batches
    const index_t count = begin == 0 ? 40 : tokens - 40;
    const MatrixView<const T> x = on_x.view().block(begin, 0, count, in);
    calibration.add(x, 2);
    drift.add(on_dense.view().block(begin, 0, count, in), x);
  }
  std::vector<index_t> order(std::size_t(in), 0);
  for (index_t p = 0; p < in; ++p) order[std::size_t(p)] = (5 * p + 3) % in;
  const auto factor = factorize(calibration, {.damping = 0.02, .order = order});
  const auto corrected = [&](double share) {
    return cast<double>(
        download<B>(corrected_weights<B, T>(on_w.view(), drift, calibration, factor, share)));
  };
  const Matrix<double> V = corrected(1), w = cast<double>(W), d = cast<double>(dense),
                       x = cast<double>(X);
  // H is 2 / sequences times the sum over tokens, and so is what is added to it.
  const double ridge = factor.added / calibration.hessian_scale();
  const double best = corrected_objective(w, V, d, x, ridge);
  BOOST_TEST(best < 0.9 * corrected_objective(w, w, d, x, ridge));
  for (index_t j = 0; j < in; ++j)
    for (const double step : {-1e-2, 1e-2}) {
      Matrix<double> moved = V;
      moved(2, j) += step;
      // Of the dead input the ridge alone knows, of which rounding in T moves nothing.
      BOOST_TEST(corrected_objective(w, moved, d, x, ridge) > best, "input " << j);
    }
  for (index_t r = 0; r < out; ++r) BOOST_TEST(V(r, 4) == w(r, 4));

  const Matrix<double> none = corrected(0), half = corrected(0.5);
  for (index_t i = 0; i < w.size(); ++i) {
    BOOST_TEST(none.data()[i] == w.data()[i]);
    BOOST_TEST(std::abs(half.data()[i] - (w.data()[i] + V.data()[i]) / 2) < 1e-5);
  }

  InputDrift<B, T> still(in);
  still.add(on_x.view(), on_x.view());
  const auto same =
      download<B>(corrected_weights<B, T>(on_w.view(), still, calibration, factor, 1));
  for (index_t i = 0; i < w.size(); ++i) BOOST_TEST(same.data()[i] == W.data()[i]);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(drift_refuses_what_does_not_fit, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto X = upload<B>(random_normal<T>(8, 5, 1)), fewer = upload<B>(random_normal<T>(7, 5, 2));
  const auto wide = upload<B>(random_normal<T>(8, 6, 3)), W = upload<B>(random_normal<T>(3, 5, 4));
  auto bad_values = random_normal<T>(8, 5, 5);
  bad_values(6, 2) = std::numeric_limits<T>::quiet_NaN();
  const auto bad = upload<B>(bad_values);
  BOOST_CHECK_THROW((InputDrift<B, T>(0)), argument_error);
  InputDrift<B, T> drift(5);
  BOOST_CHECK_THROW(drift.add(fewer.view(), X.view()), shape_error);
  BOOST_CHECK_THROW(drift.add(wide.view(), wide.view()), shape_error);
  BOOST_CHECK_THROW(drift.add(bad.view(), X.view()), non_finite_error);
  BOOST_CHECK_THROW(drift.add(X.view(), bad.view()), non_finite_error);
  const Matrix<T> sum = B::to_host(drift.sum());
  for (index_t i = 0; i < sum.size(); ++i) BOOST_TEST(sum.data()[i] == 0);

  Calibration<B, T> calibration(5), other(6);
  calibration.add(X.view());
  other.add(wide.view());
  const auto factor = factorize(calibration), other_factor = factorize(other);
  const auto correct = [&](const auto& w, const auto& c, const auto& f, double share) {
    corrected_weights<B, T>(w.view(), drift, c, f, share);
  };
  BOOST_CHECK_NO_THROW(correct(W, calibration, factor, 1));
  BOOST_CHECK_THROW(correct(wide, calibration, factor, 1), shape_error);
  BOOST_CHECK_THROW(correct(W, other, factor, 1), shape_error);
  BOOST_CHECK_THROW(correct(W, calibration, other_factor, 1), shape_error);
  for (const double share : {-0.1, 1.1, std::nan("")})
    BOOST_CHECK_THROW(correct(W, calibration, factor, share), argument_error);
}
