// Every backend's primitives on awkward shapes and on windows of larger matrices, against the
// oracle.
#define BOOST_TEST_MODULE pare_backend
#include <boost/test/unit_test.hpp>

#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "backend/reductions.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/matrices.hpp"
#include "pare/kernels/rotate.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

/// A window of a larger matrix where a backend computes; what lies around it is NaN and stays so.
template <class B, class T>
struct Window {
  static constexpr index_t above = 2, before = 3;
  typename B::template matrix<T> around;
  index_t rows, cols;

  explicit Window(const Matrix<T>& m) : rows(m.rows()), cols(m.cols()) {
    Matrix<T> larger(rows + above + 1, cols + before + 2);
    larger.fill(std::numeric_limits<T>::quiet_NaN());
    for (index_t r = 0; r < rows; ++r)
      std::copy_n(m.view().row(r), cols, larger.view().row(above + r) + before);
    around = upload<B>(larger);
  }
  MatrixView<T> view() { return around.view().block(above, before, rows, cols); }
  MatrixView<const T> read() const { return around.view().block(above, before, rows, cols); }

  /// The window on the host. Checks that nothing around it was written.
  Matrix<T> host() const {
    const Matrix<T> larger = download<B>(around);
    for (index_t r = 0; r < larger.rows(); ++r)
      for (index_t c = 0; c < larger.cols(); ++c)
        if (r < above || r >= above + rows || c < before || c >= before + cols)
          BOOST_REQUIRE(std::isnan(larger(r, c)));
    return Matrix<T>(larger.view().block(above, before, rows, cols));
  }
};

/// |a - b| <= allowed for every element.
template <class T>
void check_close(const Matrix<T>& a, const Matrix<T>& b, double allowed) {
  BOOST_REQUIRE_EQUAL(a.rows(), b.rows());
  BOOST_REQUIRE_EQUAL(a.cols(), b.cols());
  double worst = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double(a.data()[i]) - double(b.data()[i]));
    if (!(d <= worst)) worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  BOOST_TEST(worst <= allowed);
}

/// What rounding may change in a sum of `terms` products of numbers around 1.
template <class T>
double rounding(index_t terms) {
  return 8 * double(std::numeric_limits<T>::epsilon()) * double(terms + 4);
}

struct CountVisit {
  MatrixView<std::int32_t> counts;
  PARE_HOST_DEVICE void operator()(index_t r) const { counts(0, r) += 1 + std::int32_t(r); }
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    counts(r, c) += 1 + std::int32_t(100 * r + c);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(every_row_and_element_is_visited_once, C, Cases) {
  using B = typename C::backend;
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {17, 5}, {100, 33}}) {
    auto counts = upload<B>(Matrix<std::int32_t>(rows, cols));
    B::for_each_element(rows, cols, CountVisit{counts.view()});
    B::for_each_row(cols, CountVisit{counts.view()});
    const Matrix<std::int32_t> got = download<B>(counts);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < cols; ++c)
        BOOST_REQUIRE_EQUAL(got(r, c), 1 + 100 * r + c + (r == 0 ? 1 + c : 0));
    B::for_each_row(0, CountVisit{counts.view()});
    B::for_each_element(0, cols, CountVisit{counts.view()});
    BOOST_TEST(same_bytes(got, download<B>(counts)));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(windows_are_copied_both_ways, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> m = random_normal<T>(13, 9, 1);
  const Window<B, T> from(m);
  Window<B, T> to(random_normal<T>(13, 9, 2));
  B::copy(from.read(), to.view());
  BOOST_TEST(same_bytes(to.host(), m));
  BOOST_TEST(same_bytes(Matrix<T>(B::to_host(from.read())), m));
  BOOST_CHECK_THROW(B::copy(from.read(), to.view().columns(0, 8)), shape_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_first_non_finite_element_is_found, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  const index_t rows = 70, cols = 41;
  for (const T bad : {nan, infinity, -infinity})
    for (const index_t at : {index_t{0}, 3 * cols + 40, 40 * cols + 17, rows * cols - 1}) {
      Matrix<T> m = random_normal<T>(rows, cols, 3);
      for (index_t i = at; i < m.size(); i += 37) m.data()[i] = i == at ? bad : nan;
      BOOST_TEST(B::find_non_finite(Window<B, T>(m).read()) == at);
    }
  Matrix<T> finite = random_normal<T>(rows, cols, 3);
  finite(5, 5) = std::numeric_limits<T>::max();
  finite(6, 6) = std::numeric_limits<T>::lowest();
  BOOST_TEST(B::find_non_finite(Window<B, T>(finite).read()) == -1);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(column_moments_match, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const auto& [tokens, in] : {std::pair<index_t, index_t>{1, 1}, {5, 70}, {300, 130}}) {
    const Matrix<T> X = random_normal<T>(tokens, in, 4);
    auto moments = upload<B>(Matrix<double>(3, in));
    B::column_moments(Window<B, T>(X).read(), moments.view());
    Matrix<double> expected(3, in);
    Oracle::column_moments(X.view(), expected.view());
    check_close(download<B>(moments), expected, 1e-11 * double(tokens));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(gram_matrices_match, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const auto& [tokens, in] :
       {std::pair<index_t, index_t>{1, 1}, {3, 5}, {20, 129}, {150, 300}}) {
    const Matrix<T> X = random_normal<T>(tokens, in, 5);
    Matrix<T> expected(in, in);
    for (index_t i = 0; i < in; ++i)
      for (index_t j = 0; j < in; ++j) expected(i, j) = T(i + j) / T(in);
    Window<B, T> G(expected);
    B::gram_accumulate(G.view(), Window<B, T>(X).read());
    Oracle::gram_accumulate(expected.view(), MatrixView<const T>(X.view()));
    const Matrix<T> got = G.host();
    check_close(got, expected, rounding<T>(tokens));
    for (index_t i = 0; i < in; ++i)
      for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(got(i, j), got(j, i));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(products_match, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const std::tuple<index_t, index_t, index_t> shapes[] = {
      {1, 1, 1}, {1, 9, 4}, {130, 1, 7}, {7, 130, 1}, {257, 65, 33}};
  for (const auto& [rows, cols, inner] : shapes) BOOST_TEST_CONTEXT(rows << " x " << cols) {
      const Matrix<T> A = random_normal<T>(rows, inner, 6);
      const Matrix<T> right = random_normal<T>(inner, cols, 7);
      Matrix<T> W = random_normal<T>(rows, cols, 8), expected(rows, cols);
      const Window<B, T> a(A), b(right);
      Window<B, T> c(W);
      B::trailing_update(c.view(), a.read(), b.read());
      Oracle::trailing_update(W.view(), MatrixView<const T>(A), MatrixView<const T>(right));
      check_close(c.host(), W, rounding<T>(inner));
      B::multiply(c.view(), a.read(), b.read());
      Oracle::multiply(expected.view(), MatrixView<const T>(A), MatrixView<const T>(right));
      check_close(c.host(), expected, rounding<T>(inner));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(inverse_factors_match, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t n : {1, 2, 5, 127, 128, 129, 300}) BOOST_TEST_CONTEXT(n) {
      Matrix<T> A = correlated_hessian<T>(n, 9);
      Window<B, T> factor(A);
      BOOST_TEST(B::inverse_factor(factor.view()));
      BOOST_TEST(Oracle::inverse_factor(A.view()));
      const Matrix<T> U = factor.host();
      check_close(U, A, rounding<T>(n));
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(U(i, j), T(0));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(matrices_without_a_factor_are_reported, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t n : {1, 130, 300})
    for (const index_t at : {index_t{0}, n / 2, n - 1})
      for (const T pivot : {T(0), T(-1), std::numeric_limits<T>::quiet_NaN()}) {
        Matrix<T> A(n, n);
        for (index_t i = 0; i < n; ++i) A(i, i) = i == at ? pivot : T(2);
        auto a = upload<B>(A);
        BOOST_TEST(!B::inverse_factor(a.view()), n << " with " << pivot << " at " << at);
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(exactly_the_k_smallest_are_selected, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {1, 64}, {37, 1}, {90, 33}})
    for (const int distinct : {1, 5, 1000000}) {  // 1 and 5: mostly ties
      Random random(10);
      Matrix<T> W(rows, cols), d(1, cols);
      for (index_t i = 0; i < W.size(); ++i)
        W.data()[i] = T(double(random.below(2 * distinct + 1) - distinct) / distinct);
      for (index_t c = 0; c < cols; ++c) d(0, c) = distinct == 5 ? T(1) : T(0.1 + random.uniform());
      const Window<B, T> w(W), diagonal(d);
      for (const index_t k : {index_t{0}, index_t{1}, rows * cols / 3, rows * cols}) {
        Matrix<std::uint8_t> expected(rows, cols), wide(rows, cols + 4);
        wide.fill(7);
        Oracle::select_smallest(MatrixView<const T>(W), MatrixView<const T>(d), k, expected.view());
        auto mask = upload<B>(wide);
        B::select_smallest(w.read(), diagonal.read(), k, mask.view().columns(1, cols));
        const Matrix<std::uint8_t> got = download<B>(mask);
        BOOST_TEST_CONTEXT(rows << " x " << cols << ", " << distinct << " values, k = " << k) {
          BOOST_TEST(same_bytes(Matrix<std::uint8_t>(got.view().columns(1, cols)), expected));
          for (index_t r = 0; r < rows; ++r)
            for (const index_t c : {index_t{0}, cols + 1, cols + 3})
              BOOST_REQUIRE_EQUAL(got(r, c), 7);
        }
      }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_are_reduced_whole, C, Cases) {
  check_reductions<typename C::backend, typename C::scalar>();
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_row_gets_grids_of_its_own_width, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const index_t rows = 35, cols = 300;
  const Matrix<T> W = random_normal<T>(rows, cols, 9);
  const std::vector<index_t> borders{0, 1, 20, 20, 290, cols};  // one grid has no columns
  const index_t several = index_t(borders.size()) - 1;
  std::vector<std::uint8_t> widths;
  for (index_t k = 0; k < several * rows; ++k) widths.push_back(std::uint8_t(2 + k % 7));
  const Window<B, T> device(W);
  const auto on_device = detail::to_backend<B>(widths);
  const auto begin = detail::to_backend<B>(borders);
  for (const bool clip_search : {false, true})
    for (const index_t grids : {index_t{1}, several})
      for (const index_t per_row : {0, 1}) {
        auto scale = upload<B>(Matrix<T>(grids, rows)), zero = scale, top = scale;
        const GridOptions options{.clip_search = clip_search};
        B::fit_grids(kernels::GridFit<T>{.weights = device.read(),
                                         .begin = grids > 1 ? begin.view().data : nullptr,
                                         .bits = on_device.view().data,
                                         .per_grid = rows,
                                         .per_row = per_row,
                                         .options = options,
                                         .grids = {scale.view(), zero.view(), top.view()}});
        const Matrix<T> s = download<B>(scale), z = download<B>(zero), t = download<B>(top);
        BOOST_TEST_CONTEXT(grids << " grids, clip search " << clip_search << ", per row "
                                 << per_row)
        for (index_t g = 0; g < grids; ++g)
          for (index_t i = 0; i < rows; ++i) {
            const index_t first = grids > 1 ? borders[std::size_t(g)] : 0;
            const index_t last = grids > 1 ? borders[std::size_t(g) + 1] : cols;
            const Grid<T> expected = fit_grid(W.view().row(i) + first, last - first,
                                              widths[std::size_t(g * rows + i * per_row)], options);
            BOOST_REQUIRE_SMALL(relative_difference(double(s(g, i)), double(expected.scale)),
                                tolerance<T>);
            BOOST_REQUIRE_EQUAL(z(g, i), expected.zero);
            BOOST_REQUIRE_EQUAL(t(g, i), expected.top);
          }
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_turn_as_by_the_matrix, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const kernels::HadamardRotation rotation{7};
  for (const index_t n : {1, 2, 3, 8, 12, 96, 128, 640}) BOOST_TEST_CONTEXT(n) {
      const index_t block = n & -n;
      Matrix<double> R(n, n);
      R.fill(0);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = i / block * block; j < (i / block + 1) * block; ++j) {
          int odd = 0;  // bits that the two have in common
          for (index_t both = i % block & j % block; both > 0; both >>= 1) odd ^= int(both & 1);
          R(i, j) = rotation.sign(j) * (odd != 0 ? -1 : 1) / std::sqrt(double(block));
        }
      const Matrix<T> X = random_normal<T>(5, n, 3), S = correlated_hessian<T>(n, 4);
      Window<B, T> from(X), to(X);
      rotate_rows<B, T>(from.read(), to.view(), rotation);
      Matrix<T> expected(5, n), hessian(n, n);
      for (index_t t = 0; t < 5; ++t)
        for (index_t i = 0; i < n; ++i) {
          double sum = 0;
          for (index_t j = 0; j < n; ++j) sum += R(i, j) * double(X(t, j));
          expected(t, i) = T(sum);
        }
      check_close(to.host(), expected, 8 * tolerance<T>);
      rotate_rows<B, T>(to.read(), to.view(), rotation, Turn::back);  // in place
      check_close(to.host(), X, 8 * tolerance<T>);

      auto H = upload<B>(S);
      rotate_hessian<B, T>(H.view(), rotation);
      const Matrix<T> turned = download<B>(H);
      Matrix<double> half(n, n);  // S R^T
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j) {
          half(i, j) = 0;
          for (index_t k = j / block * block; k < (j / block + 1) * block; ++k)
            half(i, j) += double(S(i, k)) * R(j, k);
        }
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j) {
          double sum = 0;
          for (index_t k = i / block * block; k < (i / block + 1) * block; ++k)
            sum += R(i, k) * half(k, j);
          hessian(i, j) = T(sum);
          BOOST_REQUIRE(turned(i, j) == turned(j, i));
        }
      check_close(turned, hessian, 64 * tolerance<T>);
    }
  Matrix<T> narrow(2, 4), wide(2, 8);
  BOOST_CHECK_THROW((rotate_rows<B, T>(detail::as_const(upload<B>(narrow).view()),
                                       upload<B>(wide).view(), rotation)),
                    shape_error);
}
