// Kernels of the CUDA backend against the functors and the reference they stand for; its memory and
// its errors.
#define BOOST_TEST_MODULE pare_cuda
#include <boost/test/unit_test.hpp>

#include <array>
#include <iostream>
#include <set>
#include <thread>

#include "backend/reductions.hpp"
#include "matrix_support.hpp"
#include "pare/kernels/rotate.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

using Cuda = backend::Thrust<backend::system::cuda>;
using Host = backend::Reference;

static_assert(Backend<Cuda, float> && Backend<Cuda, double> && !Backend<Cuda, int>);

template <class T>
double largest(const Matrix<T>& m) {
  double size = 0;
  for (index_t i = 0; i < m.size(); ++i) size = std::max(size, std::abs(double(m.data()[i])));
  return size;
}

template <class T>
double largest_difference(const Matrix<T>& a, const Matrix<T>& b) {
  BOOST_REQUIRE_EQUAL(a.rows(), b.rows());
  BOOST_REQUIRE_EQUAL(a.cols(), b.cols());
  double difference = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double(a.data()[i]) - double(b.data()[i]));
    if (!(d <= difference)) difference = d;  // keeps a NaN
  }
  return difference;
}

/// Everything a sweep of one block reads and writes, in host memory. Weights and errors lie in
/// wider matrices, `offset` columns from their left edge.
template <class T>
struct SweepData {
  index_t rows, count, offset;
  Matrix<T> weights, errors, factor, scale, zero, top;
  Matrix<std::uint8_t> mask;
  Matrix<std::int32_t> column_grid;
  Matrix<double> row_loss;

  SweepData(index_t r, index_t c, index_t grids, index_t shift, index_t of)
      : rows(r),
        count(c),
        offset(shift),
        weights(random_normal<T>(r, c + 2 * shift, 1, 0.1)),
        errors(r, c + 2 * shift),
        factor(c, c),
        scale(grids, r),
        zero(grids, r),
        top(grids, r),
        mask(r, c),
        column_grid(1, c),
        row_loss(random_normal<double>(1, r, 2)) {
    errors.fill(T(99));
    Random random(3);
    for (index_t i = 0; i < c; ++i)
      for (index_t j = i; j < c; ++j)
        factor(i, j) = T(i == j ? 1 + random.uniform() : 0.2 * random.normal() / (1 + j - i));
    for (index_t g = 0; g < grids; ++g)
      for (index_t i = 0; i < r; ++i) {
        top(g, i) = T((1 << (2 + (g + i) % 3)) - 1);
        scale(g, i) = T(0.5 * (0.5 + random.uniform())) / top(g, i);
        zero(g, i) = std::nearbyint(T(random.uniform()) * top(g, i));
      }
    for (index_t j = 0; j < c; ++j) column_grid(0, j) = std::int32_t(j * grids / c);
    if (of == 0)
      for (index_t i = 0; i < mask.size(); ++i) mask.data()[i] = random.uniform() < 0.5;
  }

  /// Sweeps on backend B and brings back what changed.
  template <class B, kernels::MaskSource Mask, bool Quantize>
  void sweep(int zeros, int of) {
    auto w = upload<B>(weights), e = upload<B>(errors), s = upload<B>(scale), z = upload<B>(zero),
         t = upload<B>(top), u = upload<B>(factor);
    auto m = upload<B>(mask);
    auto c = upload<B>(column_grid);
    auto l = upload<B>(row_loss);
    B::row_sweep(kernels::RowSweep<T, Mask, Quantize>{w.view().columns(offset, count),
                                                      e.view().columns(offset, count),
                                                      m.view(),
                                                      u.view(),
                                                      {s.view(), z.view(), t.view()},
                                                      c.view().data,
                                                      l.view().data,
                                                      zeros,
                                                      of});
    weights = download<B>(w);
    errors = download<B>(e);
    mask = download<B>(m);
    row_loss = download<B>(l);
  }
};

/// The sweep of a whole block on both backends. A weight that rounds the other way after a
/// difference in the last digit changes its row from there on, so rows are counted.
template <class T, kernels::MaskSource Mask, bool Quantize, class Given = Cuda>
void check_sweep(index_t rows, index_t count, index_t grids, index_t offset, int zeros, int of) {
  BOOST_TEST_CONTEXT("rows " << rows << " columns " << count << " grids " << grids << " offset "
                             << offset << " of " << of) {
    SweepData<T> expected(rows, count, grids, offset, of), given = expected;
    const Matrix<T> before = expected.weights;
    expected.template sweep<Host, Mask, Quantize>(zeros, of);
    given.template sweep<Given, Mask, Quantize>(zeros, of);
    const double limit = tolerance<T> * largest(expected.weights);
    index_t other_rows = 0;
    for (index_t i = 0; i < rows; ++i) {
      bool same = true;
      for (index_t j = 0; j < expected.weights.cols(); ++j) {
        const bool inside = j >= offset && j < offset + count;
        if (!inside) {  // what lies beside the block is left alone
          BOOST_REQUIRE_EQUAL(given.weights(i, j), before(i, j));
          BOOST_REQUIRE_EQUAL(given.errors(i, j), T(99));
          continue;
        }
        same &= std::abs(double(given.weights(i, j)) - double(expected.weights(i, j))) <= limit;
        same &= std::abs(double(given.errors(i, j)) - double(expected.errors(i, j))) <=
                10 * tolerance<T>;
        same &= given.mask(i, j - offset) == expected.mask(i, j - offset);
      }
      if (same)
        BOOST_REQUIRE_LE(std::abs(given.row_loss(0, i) - expected.row_loss(0, i)),
                         tolerance<T> * (1 + std::abs(expected.row_loss(0, i))));
      other_rows += !same;
    }
    BOOST_TEST(double(other_rows) <= (sizeof(T) == 8 ? 0.0 : 0.02) * double(rows) + 0.0);
  }
}

}  // namespace

namespace {

/// Sweeps as a GPU of sm_89 does, whose blocks have less shared memory.
struct CudaAsSm89 : Cuda {
  template <class T, kernels::MaskSource Mask, bool Quantize>
  static void row_sweep(const kernels::RowSweep<T, Mask, Quantize>& sweep) {
    using Cut = backend::cuda::tuning::Sm89::sweep<T>;
    static_assert(sizeof(backend::cuda::SweepShared<T, Cut::columns, 8>) <= 99 << 10);
    backend::cuda::run_sweep_cut<Cut>(sweep, [](index_t rows, const auto& f) {
      Cuda::for_each_row(rows, f);
    });
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(sweeps_fit_the_shared_memory_of_sm_89) {
  using enum kernels::MaskSource;
  for (const index_t count : {1, 63, 64, 65, 128, 300}) {
    check_sweep<double, given, true, CudaAsSm89>(37, count, 1, 4, 0, 0);
    check_sweep<double, none, true, CudaAsSm89>(37, count, 1, 5, 0, 0);
  }
  check_sweep<double, n_of_m, true, CudaAsSm89>(37, 160, 1, 0, 2, 4);
  check_sweep<double, n_of_m, true, CudaAsSm89>(37, 160, 1, 0, 4, 8);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_tuned_sweep_is_row_sweep, T, Scalars) {
  for (const index_t count : {1, 3, 4, 31, 64, 100, 127, 128, 129, 300})
    for (const index_t offset : {0, 4, 5}) {
      const index_t rows = count == 128 ? 500 : 37;
      check_sweep<T, kernels::MaskSource::given, true>(rows, count, 1, offset, 0, 0);
      check_sweep<T, kernels::MaskSource::given, false>(rows, count, 1, offset, 0, 0);
      check_sweep<T, kernels::MaskSource::none, true>(rows, count, std::min<index_t>(3, count),
                                                      offset, 0, 0);
    }
  for (const int of : {2, 3, 4, 5, 8, 12, 150})
    for (const index_t groups : {1, 5, 16, 40}) {
      const index_t count = groups * of;
      if (count > 500) continue;
      check_sweep<T, kernels::MaskSource::n_of_m, true>(37, count, 1, 0, (of + 1) / 2, of);
      check_sweep<T, kernels::MaskSource::n_of_m, false>(37, count, 1, 4, 1, of);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(selection_is_that_of_a_stable_sort, T, Scalars) {
  struct Shape {
    index_t rows, cols;
  };
  for (const auto& [rows, cols] :
       {Shape{1, 1}, {1, 70}, {70, 1}, {7, 33}, {300, 127}, {300, 128}, {2000, 128}, {129, 1000}}) {
    const index_t offset = cols % 4 == 0 ? 4 : 2;  // several columns at a time, or one
    Matrix<T> W = random_normal<T>(rows, cols, 4);
    const Matrix<T> noise = random_normal<T>(1, cols, 5);
    Matrix<T> d(1, cols), ones(1, cols);
    ones.fill(T(1));
    for (index_t j = 0; j < cols; ++j) d(0, j) = T(std::exp(double(noise(0, j))));
    Matrix<T> few = W, zeros(rows, cols);  // many ties, and nothing but ties
    for (index_t i = 0; i < few.size(); ++i)
      few.data()[i] = std::nearbyint(few.data()[i] * T(2)) / T(2);
    for (const auto& [weights, divisors] : {std::pair<const Matrix<T>*, const Matrix<T>*>{&W, &d},
                                            {&few, &ones},
                                            {&few, &d},
                                            {&zeros, &d}})
      for (const double share : {0.0, 0.3, 0.5, 0.99, 1.0}) {
        const index_t k = index_t(share * double(rows * cols));
        const auto on = [&]<class B>(std::type_identity<B>) {
          const auto w = upload<B>(*weights), s = upload<B>(*divisors);
          Matrix<std::uint8_t> poison(rows, cols + 2 * offset);
          poison.fill(7);
          auto mask = upload<B>(poison);
          B::select_smallest(w.view(), s.view(), k, mask.view().columns(offset, cols));
          return download<B>(mask);
        };
        BOOST_TEST((same_bytes(on(std::type_identity<Cuda>{}), on(std::type_identity<Host>{}))),
                   "shape " << shape_text(rows, cols) << " k " << k);
      }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(runs_of_rows_are_selected_by_themselves, T, Scalars) {
  const index_t rows = 4000;
  for (const index_t cols : {33, 128}) {
    const Matrix<T> W = random_normal<T>(rows, cols, 6);
    Matrix<T> d(1, cols), few = W;
    for (index_t j = 0; j < cols; ++j) d(0, j) = T(1 + j % 3);
    for (index_t i = 0; i < few.size(); ++i)  // many ties
      few.data()[i] = std::nearbyint(few.data()[i] * T(2)) / T(2);
    // Of very different lengths, more than a launch takes; rows 700 to 899 are in none.
    std::vector<kernels::RowRun> runs{{0, 700, 350 * cols}, {900, 1, cols / 2},
                                      {901, 299, 0},        {1200, 800, 800 * cols},
                                      {2000, 3, 1},         {2003, 1500, 100 * cols}};
    for (index_t begin = 3503; begin < rows; begin += 71)
      runs.push_back({begin, 71, 71 * cols / 3});
    for (const Matrix<T>* weights : {&W, static_cast<const Matrix<T>*>(&few)}) {
      const auto on = [&]<class B>(std::type_identity<B>) {
        const auto w = upload<B>(*weights), s = upload<B>(d);
        Matrix<std::uint8_t> poison(rows, cols);
        poison.fill(7);
        auto mask = upload<B>(poison);
        detail::select_smallest_of<B>(detail::as_const(w.view()), detail::as_const(s.view()),
                                      std::span<const kernels::RowRun>(runs), mask.view());
        return download<B>(mask);
      };
      BOOST_TEST((same_bytes(on(std::type_identity<Cuda>{}), on(std::type_identity<Host>{}))),
                 cols << " columns");
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_factor_inverts_large_matrices, T, Scalars) {
  for (const index_t n : {1, 2, 63, 64, 65, 127, 192, 320, 1000, 2304}) {
    // I + a a^T with a known inverse: (I + a a^T)^-1 = I - a a^T / (1 + a^T a).
    const Matrix<double> a = random_normal<double>(1, n, 6);
    double square = 0;
    for (index_t i = 0; i < n; ++i) square += a(0, i) * a(0, i);
    Matrix<T> A(n, n);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) A(i, j) = T((i == j ? 1 : 0) + a(0, i) * a(0, j));
    auto device = upload<Cuda>(A);
    BOOST_REQUIRE(Cuda::inverse_factor(device.view()));
    const Matrix<T> U = download<Cuda>(device);
    double worst = 0;
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(U(i, j), T(0));
      BOOST_REQUIRE(U(i, i) > T(0));
    }
    for (index_t i = 0; i < n; i += 1 + n / 50)
      for (index_t j = i; j < n; j += 1 + n / 60) {
        double sum = 0;
        for (index_t k = 0; k <= i; ++k) sum += double(U(k, i)) * double(U(k, j));
        const double expected = (i == j ? 1 : 0) - a(0, i) * a(0, j) / (1 + square);
        worst = std::max(worst, std::abs(sum - expected));
      }
    BOOST_TEST(worst <= tolerance<T>, "n " << n << ": " << worst);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(products_and_moments_agree_with_the_reference, T, Scalars) {
  for (const index_t n : {1, 31, 64, 150}) {
    const Matrix<T> X = correlated_activations<T>(2 * n + 3, n, 7, 0.3);
    const Matrix<T> W = random_normal<T>(9, n, 8);
    const auto on = [&]<class B>(std::type_identity<B>) {
      const auto x = upload<B>(X), w = upload<B>(W);
      auto G = upload<B>(Matrix<T>(n, n));
      auto C = upload<B>(Matrix<T>(9, n));
      auto M = upload<B>(Matrix<double>(3, n));
      B::gram_accumulate(G.view(), x.view());
      B::gram_accumulate(G.view(), MatrixView<const T>(x.view()).block(1, 0, n, n));
      B::multiply(C.view(), w.view(), MatrixView<const T>(G.view()));
      B::trailing_update(C.view(), w.view(), MatrixView<const T>(G.view()).block(0, 0, n, n));
      B::trailing_update(C.view(), w.view(), MatrixView<const T>(G.view()));
      B::column_moments(x.view(), M.view());
      return std::tuple(download<B>(G), download<B>(C), download<B>(M));
    };
    const auto [G, C, M] = on(std::type_identity<Cuda>{});
    const auto [expected_G, expected_C, expected_M] = on(std::type_identity<Host>{});
    BOOST_TEST(largest_difference(G, expected_G) <= 1e-2 * tolerance<T> * largest(expected_G));
    BOOST_TEST(largest_difference(C, expected_C) <= tolerance<T> * largest(expected_C));
    BOOST_TEST(largest_difference(M, expected_M) <= 1e-9 * largest(expected_M));
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(G(i, j), G(j, i));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_grid_fit_chooses_the_ranges_of_fit_grid, T, Scalars) {
  const index_t rows = 40;
  for (const index_t cols : {1, 5, 32, 300, 1031})
    for (const bool symmetric : {false, true})
      for (const int steps : {0, detail::clip_steps, detail::group_clip_steps}) {
        const bool clip = steps > 0;
        Matrix<T> W = random_normal<T>(rows, cols, 9, 0.02);
        for (index_t j = 0; j < cols; ++j) W(3, j) = 0;
        Matrix<std::uint8_t> bits(1, rows);
        for (index_t i = 0; i < rows; ++i) bits(0, i) = std::uint8_t(2 + i % 7);
        const auto on = [&]<class B>(std::type_identity<B>) {
          const auto w = upload<B>(W);
          const auto b = upload<B>(bits);
          auto grid = upload<B>(Matrix<T>(3, rows));
          const auto row = [&](index_t r) { return grid.view().block(r, 0, 1, rows); };
          B::fit_grids(kernels::GridFit<T>{.weights = w.view(),
                                           .bits = b.view().data,
                                           .per_row = 1,
                                           .options = {.symmetric = symmetric, .clip_search = clip},
                                           .clip_steps = clip ? steps : detail::clip_steps,
                                           .grids = {row(0), row(1), row(2)}});
          return download<B>(grid);
        };
        const Matrix<T> given = on(std::type_identity<Cuda>{});
        const Matrix<T> expected = on(std::type_identity<Host>{});
        const auto error_of = [&](const Matrix<T>& grid, index_t i) {
          double sum = 0;
          for (index_t j = 0; j < cols; ++j) {
            const double w = W(i, j);
            const double q = round_to_grid(W(i, j), grid(0, i), grid(1, i), grid(2, i));
            sum += std::pow(std::abs(q - w), 2.4);
          }
          return sum;
        };
        for (index_t i = 0; i < rows; ++i) BOOST_TEST_CONTEXT("columns " << cols << " row " << i) {
            BOOST_TEST(given(2, i) == expected(2, i));
            const bool same =
                relative_difference(double(given(0, i)), double(expected(0, i))) <= 1e-6 &&
                given(1, i) == expected(1, i);
            // Only candidates of the clip search that are equally good may change places.
            BOOST_TEST((same || clip));
            const double rounding = std::numeric_limits<T>::epsilon() * 0.02;
            BOOST_TEST(error_of(given, i) <=
                       (1 + 1e-3) * error_of(expected, i) + double(cols) * std::pow(rounding, 2.4));
          }
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_grid_fit_fits_all_grids_of_a_row_at_once, T, Scalars) {
  const index_t rows = 21, cols = 300;
  const Matrix<T> W = random_normal<T>(rows, cols, 12);
  const std::vector<index_t> borders{0, 1, 40, 40, 296, cols};  // one grid has no columns
  const index_t grids = index_t(borders.size()) - 1;
  const std::vector<std::uint8_t> widths{8, 6, 4, 3, 2};
  const auto on = [&]<class B>(std::type_identity<B>) {
    const auto w = upload<B>(W);
    const auto begin = detail::to_backend<B>(borders);
    const auto bits = detail::to_backend<B>(widths);
    auto grid = upload<B>(Matrix<T>(3 * grids, rows));
    const auto part = [&](index_t k) { return grid.view().block(k * grids, 0, grids, rows); };
    B::fit_grids(kernels::GridFit<T>{.weights = w.view(),
                                     .begin = begin.view().data,
                                     .bits = bits.view().data,
                                     .per_grid = 1,
                                     .grids = {part(0), part(1), part(2)}});
    return download<B>(grid);
  };
  const Matrix<T> given = on(std::type_identity<Cuda>{});
  const Matrix<T> expected = on(std::type_identity<Host>{});
  for (index_t k = 0; k < 3 * grids; ++k)
    for (index_t i = 0; i < rows; ++i)
      BOOST_REQUIRE_LE(relative_difference(double(given(k, i)), double(expected(k, i))), 1e-6);
}

BOOST_AUTO_TEST_CASE(more_grids_than_a_launch_has_blocks_are_fitted) {
  const index_t rows = 3, cols = 70000;  // a grid for every weight
  const Matrix<float> W = random_normal<float>(rows, cols, 14);
  const auto w = upload<Cuda>(W);
  const std::vector<std::uint8_t> bits{4};
  const GridMap map = grid_map(ChannelAxis::output, bits, cols, 1);
  const auto begin = detail::to_backend<Cuda>(map.begin);
  const auto width = detail::to_backend<Cuda>(bits);
  auto scale = upload<Cuda>(Matrix<float>(cols, rows)),
       zero = upload<Cuda>(Matrix<float>(cols, rows)),
       top = upload<Cuda>(Matrix<float>(cols, rows));
  Cuda::fit_grids(kernels::GridFit<float>{.weights = w.view(),
                                          .begin = begin.view().data,
                                          .bits = width.view().data,
                                          .grids = {scale.view(), zero.view(), top.view()}});
  const Matrix<float> found = download<Cuda>(scale);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j)
      BOOST_REQUIRE_LE(relative_difference(found(j, i), std::abs(W(i, j)) / 15), 1e-6);
}

BOOST_AUTO_TEST_CASE(a_rough_product_has_the_digits_of_tf32) {
  const Matrix<float> A = random_normal<float>(65, 257, 14), M = random_normal<float>(257, 130, 15);
  const auto a = upload<Cuda>(A), m = upload<Cuda>(M);
  Cuda::matrix<float> rough(65, 130), exact(65, 130);
  Cuda::rough_multiply(rough.view(), a.view(), m.view());
  Cuda::multiply(exact.view(), MatrixView<const float>(a.view()),
                 MatrixView<const float>(m.view()));
  const Matrix<float> given = download<Cuda>(rough), expected = download<Cuda>(exact);
  // Sums of 257 products, each factor off by 2^-11 at most.
  for (index_t i = 0; i < given.size(); ++i)
    BOOST_REQUIRE_LE(std::abs(double(given.data()[i]) - double(expected.data()[i])), 0.05);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_are_reduced_whole, T, Scalars) { check_reductions<Cuda, T>(); }

BOOST_AUTO_TEST_CASE(rows_and_elements_are_each_visited_once) {
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {3, 700}, {70000, 2}}) {
    auto counts = detail::zeros<Cuda, double>(rows, cols);
    const auto ones = upload<Cuda>([&] {
      Matrix<double> m(rows, cols);
      m.fill(1);
      return m;
    }());
    Cuda::for_each_element(rows, cols, kernels::AddElement<double>{counts.view(), ones.view()});
    const Matrix<double> host = download<Cuda>(counts);
    BOOST_TEST(std::count(host.data(), host.data() + host.size(), 1.0) == host.size());
  }
  Cuda::for_each_element(0, 5, detail::NoOpElement{});
  Cuda::for_each_row(0, detail::NoOpRow{});
  Cuda::reduce_rows(0, detail::NoOpReduction{});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(columns_in_another_order_are_those_of_the_host, T, Scalars) {
  for (const auto& [rows, cols] :
       {std::pair<index_t, index_t>{1, 1}, {5, 7}, {70, 300}, {3, 20000}}) {
    const Matrix<T> W = random_normal<T>(rows, cols, 21);
    Matrix<std::uint8_t> marks(rows, cols);
    for (index_t i = 0; i < marks.size(); ++i) marks.data()[i] = W.data()[i] > T(0);
    std::vector<index_t> order(static_cast<std::size_t>(cols));
    for (index_t p = 0; p < cols; ++p) order[std::size_t(p)] = (p * 7919 + 3) % cols;
    const index_t block = 33, blocks = (cols + block - 1) / block;
    const auto on = [&]<class B>(std::type_identity<B>) {
      const auto w = upload<B>(W);
      const auto m = upload<B>(marks);
      const auto at = detail::to_backend<B>(order);
      auto gathered = upload<B>(Matrix<T>(rows, cols)), back = upload<B>(Matrix<T>(rows, cols));
      auto counts = upload<B>(Matrix<T>(rows, blocks));
      const index_t* const by = at.view().data;
      B::for_each_element(rows, cols, kernels::GatherColumns<T>{w.view(), gathered.view(), by});
      B::for_each_element(rows, cols,
                          kernels::ScatterColumns<T>{detail::as_const(gathered.view()), back.view(),
                                                     by});
      const kernels::CountBlocks<T> count{m.view(), by, block, counts.view()};
      B::reduce_rows(count.rows(), count);
      return std::tuple(download<B>(gathered), download<B>(back), download<B>(counts));
    };
    const auto given = on(std::type_identity<Cuda>{}), expected = on(std::type_identity<Host>{});
    BOOST_TEST((same_bytes(std::get<0>(given), std::get<0>(expected))));
    BOOST_TEST((same_bytes(std::get<1>(given), W)));
    BOOST_TEST((same_bytes(std::get<2>(given), std::get<2>(expected))));
  }
}

namespace {

/// The faults that a backend finds in rows of a wider matrix, `offset` columns from its left edge.
/// @param of_column  the grid of each column (1, cols)
/// @param grids      scale, zero and top (grids, rows) each; no rows: there is no quantizer
template <class B, class T>
Matrix<std::int32_t> row_faults(const Matrix<T>& Q, const Matrix<std::uint8_t>& mask,
                                index_t offset, const Matrix<std::int32_t>& of_column,
                                const std::array<Matrix<T>, 3>& grids,
                                const Matrix<std::uint8_t>& widths, bool given) {
  const index_t rows = Q.rows(), cols = of_column.cols();
  const auto q = upload<B>(Q);
  const auto m = upload<B>(mask), bits = upload<B>(widths);
  const auto by = upload<B>(of_column);
  const auto scale = upload<B>(grids[0]), zero = upload<B>(grids[1]), top = upload<B>(grids[2]);
  auto fault = upload<B>(Matrix<std::int32_t>(1, rows));
  const auto marks = MatrixView<const std::uint8_t>(m.view()).columns(offset, cols);
  B::reduce_rows(rows, kernels::RowFaults<T>{MatrixView<const T>(q.view()).columns(offset, cols),
                                             marks,
                                             {scale.view(), zero.view(), top.view()},
                                             by.view().data,
                                             bits.view().data,
                                             1,
                                             0,
                                             fault.view().data,
                                             given ? marks : MatrixView<const std::uint8_t>()});
  return download<B>(fault);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(faults_of_rows_are_those_of_the_host, T, Scalars) {
  for (const index_t cols : {1, 37, 64, 1028, 1100, 4096}) {
    for (const auto& [count, offset] :
         {std::pair<index_t, index_t>{0, 0}, {1, 0}, {1, 1}, {1, 4}, {3, 0}, {3, 3}}) {
      const index_t rows = 24, width = cols + 2 * offset;
      Random random(std::uint64_t(cols + count));
      std::array<Matrix<T>, 3> grids{Matrix<T>(count, rows), Matrix<T>(count, rows),
                                     Matrix<T>(count, rows)};
      Matrix<std::uint8_t> widths(1, std::max<index_t>(count, 1)), mask(rows, width);
      Matrix<std::int32_t> of_column(1, cols);
      for (index_t g = 0; g < count; ++g) {
        widths(0, g) = std::uint8_t(2 + g);
        for (index_t i = 0; i < rows; ++i) {
          grids[2](g, i) = T((1 << widths(0, g)) - 1);
          grids[0](g, i) = T(0.5 + random.uniform());
          grids[1](g, i) = std::nearbyint(T(random.uniform()) * grids[2](g, i));
        }
      }
      for (index_t j = 0; j < cols; ++j)
        of_column(0, j) = std::int32_t(
            std::min(double(count) * random.uniform(), std::max(0.0, double(count) - 1)));
      Matrix<T> Q = random_normal<T>(rows, width, 5);
      for (index_t i = 0; i < rows; ++i)
        for (index_t j = 0; j < cols; ++j) {
          T& q = Q(i, offset + j);
          const index_t g = of_column(0, j);
          if (count > 0) q = round_to_grid(q, grids[0](g, i), grids[1](g, i), grids[2](g, i));
          if (q == 0) mask(i, offset + j) = random.uniform() < 0.5;
        }
      // One fault in each row but every fourth, somewhere.
      std::set<std::int32_t> planted{0};
      for (index_t i = 0; i < rows; ++i) {
        const index_t j = index_t(double(cols) * random.uniform());
        T& q = Q(i, offset + j);
        std::uint8_t& marked = mask(i, offset + j);
        const index_t g = of_column(0, j);
        if (i % 4 == 1) {  // pruned and on its grid, but not zero
          q = count == 0 ? T(0.3) : grids[0](g, i) * ((grids[1](g, i) == 0) - grids[1](g, i));
          marked = 1;
        } else if (i % 4 == 2 && count > 0) {
          q += grids[0](g, i) / 2;
          marked = 0;
        } else if (i % 4 == 3 && count > 0) {
          grids[2](count - 1, i) += 1;
        }
      }
      for (const bool given : {false, true}) {
        const auto found = row_faults<Cuda>(Q, mask, offset, of_column, grids, widths, given);
        const auto expected = row_faults<Host>(Q, mask, offset, of_column, grids, widths, given);
        BOOST_TEST((same_bytes(found, expected)), cols << " columns, " << count << " grids, offset "
                                                       << offset << ", given " << given);
        for (index_t i = 0; i < rows; ++i) {
          planted.insert(expected(0, i));
          BOOST_TEST((expected(0, i) == 0) == (i % 4 == 0 || (count == 0 && i % 4 > 1)));
        }
      }
      BOOST_TEST(planted.size() == (count == 0 ? 2u : 4u));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_first_non_finite_element_of_touching_rows_is_found, T, Scalars) {
  for (const index_t cols : {1, 3, 4, 1027, 40000}) {
    Matrix<T> W = random_normal<T>(5, cols, 22);
    BOOST_TEST(Cuda::find_non_finite(detail::as_const(upload<Cuda>(W).view())) == -1);
    for (const index_t at : {W.size() - 1, W.size() / 2, index_t{0}}) {
      W.data()[at] = std::numeric_limits<T>::infinity();
      BOOST_TEST(Cuda::find_non_finite(detail::as_const(upload<Cuda>(W).view())) == at);
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(copies_keep_every_element, T, Scalars) {
  const Matrix<T> m = random_normal<T>(13, 29, 10);
  BOOST_TEST(same_bytes(download<Cuda>(upload<Cuda>(m)), m));
  const auto window = m.view().block(2, 3, 7, 11);
  const auto device = upload<Cuda>(m);
  BOOST_TEST(same_bytes(Cuda::to_host(MatrixView<const T>(device.view()).block(2, 3, 7, 11)),
                        Matrix<T>(window)));
  BOOST_TEST(same_bytes(Cuda::to_host(MatrixView<const T>(Cuda::from_host(window).view())),
                        Matrix<T>(window)));
  BOOST_CHECK_THROW(Cuda::matrix<T>(-1, 2), shape_error);
  Cuda::matrix<T> small(2, 2);
  BOOST_CHECK_THROW(Cuda::copy(MatrixView<const T>(device.view()), small.view()), shape_error);
}

namespace {

/// Turns rows on both backends, into another matrix and in place, and back.
template <class S>
void check_rotations(index_t rows, index_t cols, double limit) {
  const kernels::HadamardRotation rotation{9};
  const Matrix<float> normal = random_normal<float>(rows, cols, 5);
  Matrix<S> X(rows, cols), expected(rows, cols);
  for (index_t k = 0; k < X.size(); ++k) X.data()[k] = S(compute_scalar<S>(normal.data()[k]));
  for (const Turn turn : {Turn::forth, Turn::back})
    BOOST_TEST_CONTEXT(rows << " x " << cols << (turn == Turn::back ? " back" : "")) {
      rotate_rows<Host, S>(detail::as_const(X.view()), expected.view(), rotation, turn);
      const auto check = [&](const Matrix<S>& given) {
        double worst = 0;
        for (index_t k = 0; k < given.size(); ++k) {
          const double error = std::abs(double(compute_scalar<S>(given.data()[k])) -
                                        double(compute_scalar<S>(expected.data()[k])));
          if (!(error <= worst)) worst = error;
        }
        BOOST_TEST(worst <= limit);
      };
      auto from = upload<Cuda>(X);
      Cuda::matrix<S> to(rows, cols);
      rotate_rows<Cuda, S>(detail::as_const(from.view()), to.view(), rotation, turn);
      check(download<Cuda>(to));
      BOOST_TEST((same_bytes(download<Cuda>(from), X)));
      rotate_rows<Cuda, S>(detail::as_const(from.view()), from.view(), rotation, turn);
      check(download<Cuda>(from));
      // Rows that lie apart and not at multiples of 16 bytes.
      Cuda::matrix<S> around(rows, cols + 3);
      const MatrixView<S> inside = around.view().columns(1, cols);
      Cuda::copy(MatrixView<const S>(upload<Cuda>(X).view()), inside);
      rotate_rows<Cuda, S>(detail::as_const(inside), inside, rotation, turn);
      Cuda::copy(MatrixView<const S>(inside), to.view());
      check(download<Cuda>(to));
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_are_turned_as_on_the_host) {
  for (const index_t cols :
       {1, 2, 4, 12, 8, 16, 32, 64, 576, 1536, 4096, 11008, 16384, 32768, 65536})
    for (const index_t rows : {1, 5, 67}) {
      check_rotations<float>(rows, cols, 1e-5);
      check_rotations<double>(rows, cols, 1e-13);
      check_rotations<float16>(rows, cols, 8e-3);
      check_rotations<bfloat16>(rows, cols, 6e-2);
    }
  // More than the blocks of threads that are launched at once.
  check_rotations<float>(1200, 16384, 1e-5);
  check_rotations<bfloat16>(150000, 64, 6e-2);
}

namespace {

/// Attention in T of float numbers that begin `margin` columns from a multiple of 16 bytes, as float64.
/// @param attend  (out, q, k, v)
template <class T, class F>
Matrix<double> attention_of(const Matrix<float>& qkv, const kernels::AttentionShape& shape,
                            index_t margin, const F& attend) {
  const index_t cols = shape.heads * shape.head_dim;
  Matrix<T> placed(qkv.rows(), qkv.cols() + 4);
  for (index_t i = 0; i < qkv.rows(); ++i)
    for (index_t j = 0; j < qkv.cols(); ++j) placed(i, j + margin) = T(qkv(i, j));
  const auto on_device = upload<Cuda>(placed);
  const auto part = [&](index_t at) {
    return std::as_const(on_device).view().columns(margin + at * cols, cols);
  };
  Cuda::matrix<T> out(qkv.rows(), cols), again(qkv.rows(), cols);
  for (auto* to : {&out, &again}) attend(to->view(), part(0), part(1), part(2));
  BOOST_TEST(same_bytes(download<Cuda>(out), download<Cuda>(again)));
  return widen(download<Cuda>(out));
}

double norm_of_difference(const Matrix<double>& a, const Matrix<double>& b) {
  double sum = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double d = a.data()[i] - b.data()[i];
    sum += d * d;
  }
  return std::sqrt(sum);
}

}  // namespace

BOOST_AUTO_TEST_CASE(attention_in_one_kernel_has_the_accuracy_of_float_products) {
  for (const index_t width : {16, 64, 80, 96, 128, 160, 256})
    for (const double size : {1.0, 4.0})
      for (const index_t window : {0, 100}) {
        const index_t heads = 2, seqlen = 700, cols = heads * width;
        const kernels::AttentionShape shape{.heads = heads,
                                            .kv_heads = heads,
                                            .head_dim = width,
                                            .seqlen = seqlen,
                                            .q_step = width,
                                            .kv_step = width,
                                            .scale = 1 / std::sqrt(double(width)),
                                            .window = window};
        const Matrix<float> qkv = random_normal<float>(2 * seqlen, 3 * cols, 17, size);
        const auto attend = [&]<class T>(MatrixView<T> out, auto q, auto k, auto v) {
          Cuda::attention<T>(out, q, k, v, {}, shape);
        };
        const auto as_sm_89 = [&](MatrixView<float> out, auto q, auto k, auto v) {
          BOOST_TEST(
              backend::cuda::flash_attention<backend::cuda::tuning::Sm89>(out, q, k, v, {}, shape));
        };
        const Matrix<double> exact = attention_of<double>(qkv, shape, 0, attend);
        const Matrix<double> got = attention_of<float>(qkv, shape, 0, attend);
        const double kernel = norm_of_difference(got, exact);
        const double products =
            norm_of_difference(attention_of<float>(qkv, shape, 1, attend), exact);
        BOOST_TEST(norm_of_difference(attention_of<float>(qkv, shape, 0, as_sm_89), exact) <=
                   4 * products);
        BOOST_TEST(kernel <= 4 * products, "heads of " << width << ", size " << size << ", window "
                                                       << window << ": " << kernel << " against "
                                                       << products);
        BOOST_TEST_MESSAGE("heads of " << width << ", size " << size << ", window " << window
                                       << ": error " << kernel / products << " times");
      }
}

BOOST_AUTO_TEST_CASE(memory_that_is_not_there_is_a_typed_error) {
  std::size_t free = 0, total = 0;
  backend::cuda::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const index_t side = index_t{1} << 22;
  try {
    Cuda::matrix<double> huge(side, side);
    BOOST_ERROR("allocated 128 TiB");
  } catch (const out_of_memory_error& e) {
    BOOST_TEST(contains(e.what(), std::to_string(side * side * 8)));
    BOOST_TEST(contains(e.what(), std::to_string(total)));
  }
  // and nothing is broken behind it
  const Matrix<float> m = random_normal<float>(5, 5, 11);
  BOOST_TEST(same_bytes(download<Cuda>(upload<Cuda>(m)), m));
}

BOOST_AUTO_TEST_CASE(a_failed_call_is_an_error_with_its_name) {
  BOOST_TEST(contains(message_of<device_error>(
                          [] { backend::cuda::check(cudaSetDevice(1 << 20), "cudaSetDevice"); }),
                      "cudaSetDevice: cudaErrorInvalidDevice"));
  BOOST_TEST(contains(message_of<device_error>(
                          [] { backend::cuda::check(CUBLAS_STATUS_INVALID_VALUE, "cublasSgemm"); }),
                      "cublasSgemm: CUBLAS_STATUS_INVALID_VALUE"));
  BOOST_TEST(contains(message_of<device_error>([] {
                        backend::cuda::check(CUSOLVER_STATUS_ALLOC_FAILED, "cusolverDnSpotrf");
                      }),
                      "cusolverDnSpotrf"));
}

BOOST_AUTO_TEST_CASE(a_large_solve_repeats_its_bytes_and_keeps_within_its_memory) {
  using T = float;
  const index_t rows = 768, cols = 1024;
  const auto W = upload<Cuda>(random_normal<T>(rows, cols, 12, 0.02));
  Calibration<Cuda, T> calibration(cols);
  {
    const auto X = upload<Cuda>(correlated_activations<T>(2 * cols, cols, 13));
    calibration.add(X.view(), 8);
  }
  cudaMemPool_t pool;
  backend::cuda::check(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    std::uint64_t high = 0;
    Cuda::to_host(MatrixView<const T>(W.view()).block(0, 0, 1, 1));
    backend::cuda::check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high),
                         "cudaMemPoolSetAttribute");
    SparseGPTSolver<Config, Cuda, T> solver(options);
    const std::string first = layer_bytes<Cuda, T>(solver.solve(W.view(), calibration));
    backend::cuda::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high),
                         "cudaMemPoolGetAttribute");
    const std::uint64_t allowed =
        sizeof(T) * std::uint64_t(4 * rows * cols + 3 * cols * cols) + (std::uint64_t{4} << 20);
    BOOST_TEST(high <= allowed);
    for (int run = 0; run < 5; ++run)
      BOOST_TEST((layer_bytes<Cuda, T>(solver.solve(W.view(), calibration)) == first));
  });
}

namespace {

/// The bytes that a solve, a product with a bias and an attention give on one GPU, which becomes
/// current.
std::string bytes_on(int device) {
  backend::cuda::check(cudaSetDevice(device), "cudaSetDevice");
  const index_t rows = 96, cols = 256;
  const auto W = upload<Cuda>(random_normal<float>(rows, cols, 12, 0.02));
  Calibration<Cuda, float> calibration(cols);
  const auto X = upload<Cuda>(correlated_activations<float>(2 * cols, cols, 13));
  calibration.add(X.view(), 8);
  SparseGPTSolver<Compression<Unstructured, BaseQuantizer>, Cuda, float> solver(
      SolverOptions{.sparsity = 0.5, .bits = 4});
  std::string bytes = layer_bytes<Cuda, float>(solver.solve(W.view(), calibration));

  const auto half = [](index_t r, index_t c, unsigned seed) {
    const Matrix<float> wide = random_normal<float>(r, c, seed);
    Matrix<float16> narrow(r, c);
    for (index_t i = 0; i < wide.size(); ++i) narrow.data()[i] = float16(wide.data()[i]);
    return upload<Cuda>(narrow);
  };
  const auto x = half(64, 128, 14), w = half(192, 128, 15), bias = half(1, 192, 16);
  Cuda::matrix<float16> y(64, 192), mixed(64, 64);
  Cuda::linear<float16>(y.view(), x.view(), w.view(), bias.view());
  const auto columns = [&](index_t at) { return std::as_const(y).view().columns(at, 64); };
  Cuda::attention<float16>(mixed.view(), columns(0), columns(64), columns(128), {},
                           {.heads = 1, .kv_heads = 1, .head_dim = 64, .seqlen = 32});
  for (const auto* m : {&y, &mixed}) {
    const Matrix<float16> host = Cuda::to_host(m->view());
    bytes.append(reinterpret_cast<const char*>(host.data()), std::size_t(host.size()) * 2);
    cudaPointerAttributes where{};
    backend::cuda::check(cudaPointerGetAttributes(&where, m->data()), "cudaPointerGetAttributes");
    BOOST_TEST(where.device == device);
  }
  return bytes;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_thread_goes_from_one_gpu_to_another) {
  int count = 0;
  backend::cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  const std::string first = bytes_on(0);
  if (count < 2) {
    std::cout << "skipped: one GPU, two are needed\n";
    return;
  }
  cudaDeviceProp a, b;
  backend::cuda::check(cudaGetDeviceProperties(&a, 0), "cudaGetDeviceProperties");
  backend::cuda::check(cudaGetDeviceProperties(&b, 1), "cudaGetDeviceProperties");
  const bool alike = std::string(a.name) == b.name;  // libraries choose their kernels by card
  const std::string second = bytes_on(1);
  if (alike) BOOST_TEST((second == first));
  BOOST_TEST((bytes_on(0) == first));
  BOOST_TEST((bytes_on(1) == second));
  std::string other;
  std::thread([&] { other = bytes_on(1); }).join();
  BOOST_TEST((other == second));
  backend::cuda::check(cudaSetDevice(0), "cudaSetDevice");
}
