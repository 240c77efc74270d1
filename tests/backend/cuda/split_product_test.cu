// Products of float32 in parts on the tensor cores, and the factorisation that is made of them, against
// float64 and against float32's own arithmetic.
#define BOOST_TEST_MODULE pare_cuda_split_product
#include <boost/test/unit_test.hpp>

#include <bit>
#include <cmath>
#include <limits>

#include "solver_support.hpp"

using namespace pare;
using namespace test;
namespace gpu = backend::cuda;
using gpu::Lines;
using gpu::Operand;
using gpu::Precision;

namespace {

using Cuda = backend::Thrust<backend::system::cuda>;

/// Another arithmetic for the rest of a test.
struct InPrecision {
  explicit InPrecision(Precision precision) { gpu::set_precision(precision); }
  ~InPrecision() { gpu::set_precision(Precision::split); }
};

/// While it lives, products in halves go to the kernel for Hopper, where that is wanted and there is one, or
/// to cuBLAS.
class UseHopperKernel {
 public:
  explicit UseHopperKernel(bool wanted) : there_(gpu::wgmma_detail::available()) {
    gpu::per_device<gpu::wgmma_detail::Here>().compiled = there_ && wanted;
  }
  ~UseHopperKernel() { gpu::per_device<gpu::wgmma_detail::Here>().compiled = there_; }
  UseHopperKernel(const UseHopperKernel&) = delete;
  UseHopperKernel& operator=(const UseHopperKernel&) = delete;

 private:
  bool there_;
};

Matrix<float> transposed(const Matrix<float>& A) {
  Matrix<float> result(A.cols(), A.rows());
  for (index_t i = 0; i < A.rows(); ++i)
    for (index_t j = 0; j < A.cols(); ++j) result(j, i) = A(i, j);
  return result;
}

/// Normal numbers; row i and column j are multiplied with powers of two from -spread to spread.
Matrix<float> graded(index_t rows, index_t cols, std::uint64_t seed, int by_row, int by_col) {
  Matrix<float> A = random_normal<float>(rows, cols, seed);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j)
      A(i, j) = std::ldexp(A(i, j), by_row * int(i % 5 - 2) / 2 + by_col * int(j % 7 - 3) / 3);
  return A;
}

/// ||result - (C - A B)|| / ||C - A B|| over some of the elements.
double error_of(const Matrix<float>& result, const Matrix<float>& A, const Matrix<float>& B,
                const Matrix<float>& C) {
  double error = 0, size = 0;
  for (index_t t = 0; t < 4000; ++t) {
    const index_t i = t * 7919 % C.rows(), j = (t * 104729 + t) % C.cols();
    double sum = C(i, j);
    for (index_t k = 0; k < A.cols(); ++k) sum -= double(A(i, k)) * double(B(k, j));
    error += (double(result(i, j)) - sum) * (double(result(i, j)) - sum);
    size += sum * sum;
  }
  return std::sqrt(error / size);
}

struct Shape {
  index_t m, k, n;
};
constexpr Shape shapes[] = {{1, 1, 1},         {5, 3, 2},        {64, 32, 64},    {65, 33, 129},
                            {300, 700, 260},   {129, 513, 1},    {1, 600, 130},   {257, 1030, 383},
                            {128, 128, 128},   {520, 2050, 136}, {96, 1024, 777}, {132, 4200, 68},
                            {1283, 140, 1500}, {1283, 70, 2052}};

}  // namespace

BOOST_AUTO_TEST_CASE(errors_of_parted_products_are_near_those_of_float32) {
  for (const auto& [m, k, n] : shapes)
    for (const int spread : {0, 8}) {
      const Matrix<float> A = graded(m, k, 1, spread, 0), B = graded(k, n, 2, 0, spread);
      const Matrix<float> C = graded(m, n, 3, spread, spread);
      const auto a = upload<Cuda>(A), b = upload<Cuda>(B), a_t = upload<Cuda>(transposed(A)),
                 b_t = upload<Cuda>(transposed(B));
      double of_float32 = 0;
      {
        const InPrecision float32(Precision::float32);
        auto c = upload<Cuda>(C);
        gpu::gemm(-1.0f, a.view(), b.view(), 1.0f, c.view());
        of_float32 = error_of(download<Cuda>(c), A, B, C);
      }
      const double bound = 4 * std::max(of_float32, 1.2e-7);
      const auto check = [&](const char* what, const auto& multiply) {
        auto c = upload<Cuda>(C);
        multiply(c.view());
        const double error = error_of(download<Cuda>(c), A, B, C);
        BOOST_TEST(error <= bound, what << " " << m << " x " << k << " x " << n << " spread "
                                        << spread << ": " << error << ", float32 " << of_float32);
      };
      const Operand rows{a.view(), Lines::rows}, columns{a_t.view(), Lines::columns};
      const Operand right{b.view(), Lines::columns}, right_rows{b_t.view(), Lines::rows};
      for (const bool hopper : {true, false}) {
        const UseHopperKernel way(hopper);
        check("split", [&](auto c) { gpu::split_product(-1, rows, right, 1, c); });
        check("split, A transposed", [&](auto c) { gpu::split_product(-1, columns, right, 1, c); });
        check("split, B transposed",
              [&](auto c) { gpu::split_product(-1, rows, right_rows, 1, c); });
        check("balanced",
              [&](auto c) { gpu::split_product(-1, rows, right, 1, c, gpu::Terms::balanced); });
      }
      check("direct", [&](auto c) { gpu::direct_product(-1, rows, b.view(), 1, c); });
      check("direct, A transposed",
            [&](auto c) { gpu::direct_product(-1, columns, b.view(), 1, c); });
    }
}

BOOST_AUTO_TEST_CASE(terms_that_are_large_on_one_side_and_small_on_the_other_keep_their_digits) {
  // Columns of A times rows of B are alike, but each ranges over 2^-24 .. 2^24.
  const index_t m = 200, k = 512, n = 300;
  Matrix<float> A = random_normal<float>(m, k, 4), B = random_normal<float>(k, n, 5);
  const Matrix<float> C = random_normal<float>(m, n, 6);
  for (index_t t = 0; t < k; ++t) {
    const int e = int(t % 49) - 24;
    for (index_t i = 0; i < m; ++i) A(i, t) = std::ldexp(A(i, t), e);
    for (index_t j = 0; j < n; ++j) B(t, j) = std::ldexp(B(t, j), -e);
  }
  const auto a = upload<Cuda>(A), b = upload<Cuda>(B);
  const auto error = [&](gpu::Terms terms) {
    auto c = upload<Cuda>(C);
    gpu::split_product(-1, {a.view(), Lines::rows}, {b.view(), Lines::columns}, 1, c.view(), terms);
    return error_of(download<Cuda>(c), A, B, C);
  };
  for (const bool hopper : {true, false}) {
    const UseHopperKernel way(hopper);
    BOOST_TEST(error(gpu::Terms::balanced) < 1.5e-6);
    BOOST_TEST(error(gpu::Terms::alike) > 1e-4);  // what balancing is for
  }
}

BOOST_AUTO_TEST_CASE(zeros_of_triangles_are_skipped) {
  for (const auto& [m, n] :
       {std::pair<index_t, index_t>{700, 1300}, {1300, 700}, {100, 512}, {4400, 132}}) {
    Matrix<float> A = random_normal<float>(m, n, 7), left = random_normal<float>(m, m, 8);
    Matrix<float> right = random_normal<float>(n, n, 9);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < i; ++j) left(i, j) = 0;
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < i; ++j) right(i, j) = 0;
    Matrix<float> none(m, n), zero(m, n);
    none.fill(std::numeric_limits<float>::quiet_NaN());  // beta = 0 does not read it
    zero.fill(0);
    const auto a = upload<Cuda>(A), l = upload<Cuda>(left), r = upload<Cuda>(right);
    for (const bool hopper : {true, false}) {
      const UseHopperKernel way(hopper);
      auto c = upload<Cuda>(none), d = upload<Cuda>(none);
      gpu::split_product(-1, {a.view(), Lines::rows}, {r.view(), Lines::columns}, 0, c.view(),
                         gpu::Terms::alike, gpu::Zeros::below_right);
      gpu::split_product(-1, {l.view(), Lines::rows}, {a.view(), Lines::columns}, 0, d.view(),
                         gpu::Terms::alike, gpu::Zeros::below_left);
      BOOST_TEST(error_of(download<Cuda>(c), A, right, zero) < 2e-6);
      BOOST_TEST(error_of(download<Cuda>(d), left, A, zero) < 2e-6);
    }
  }
}

// As where inverses are joined: zeros lie below the diagonal in blocks on it only. The second shape has the
// widest tiles where nothing is known to be zero.
BOOST_AUTO_TEST_CASE(what_is_below_triangles_outside_their_blocks_is_not_summed) {
  for (const auto& [m, n] : {std::pair<index_t, index_t>{1300, 1300}, {4096, 3072}}) {
    const auto triangle = [](index_t side, float outside) {
      Matrix<float> result = random_normal<float>(side, side, 23);
      for (index_t i = 0; i < side; ++i)
        for (index_t j = 0; j < i; ++j)
          result(i, j) = i / gpu::split_depth > j / gpu::split_depth ? outside : 0;
      return result;
    };
    const auto a = upload<Cuda>(random_normal<float>(m, n, 24));
    for (const bool hopper : {true, false}) {
      const UseHopperKernel way(hopper);
      const auto products = [&](float outside) {
        const auto l = upload<Cuda>(triangle(m, outside)), r = upload<Cuda>(triangle(n, outside));
        auto c = upload<Cuda>(Matrix<float>(m, n)), d = upload<Cuda>(Matrix<float>(m, n));
        gpu::split_product(1, {a.view(), Lines::rows}, {r.view(), Lines::columns}, 0, c.view(),
                           gpu::Terms::alike, gpu::Zeros::below_right);
        gpu::split_product(1, {l.view(), Lines::rows}, {a.view(), Lines::columns}, 0, d.view(),
                           gpu::Terms::alike, gpu::Zeros::below_left);
        return std::pair{download<Cuda>(c), download<Cuda>(d)};
      };
      const auto [c, d] = products(0.0f);
      const auto [c_of_any, d_of_any] = products(0.5f);
      BOOST_TEST(test::same_bytes(c, c_of_any), m << " x " << n << ", Hopper " << hopper);
      BOOST_TEST(test::same_bytes(d, d_of_any), m << " x " << n << ", Hopper " << hopper);
    }
  }
}

BOOST_AUTO_TEST_CASE(products_go_into_any_part_of_a_matrix_and_leave_the_rest) {
  const index_t m = 200, k = 96, n = 132, margin = 5;
  const Matrix<float> A = random_normal<float>(m, k, 18), B = random_normal<float>(k, n, 19);
  const Matrix<float> whole = random_normal<float>(m + 2 * margin, n + 40, 20);
  const auto a = upload<Cuda>(A), b = upload<Cuda>(B);
  for (const bool hopper : {true, false})
    for (const float beta : {0.0f, 1.0f, -0.5f})
      for (const index_t col : {4, 5})  // at a multiple of 16 bytes and not
        for (const index_t width : {n, n - 1}) {
          const UseHopperKernel way(hopper);
          auto c = upload<Cuda>(whole);
          gpu::split_product(-1, {a.view(), Lines::rows},
                             {b.view().columns(0, width), Lines::columns}, beta,
                             c.view().block(margin, col, m, width));
          const Matrix<float> result = download<Cuda>(c);
          index_t changed = 0;
          Matrix<float> before(m, width), after(m, width);
          for (index_t i = 0; i < whole.rows(); ++i)
            for (index_t j = 0; j < whole.cols(); ++j)
              if (i >= margin && i < margin + m && j >= col && j < col + width) {
                before(i - margin, j - col) = beta * whole(i, j);
                after(i - margin, j - col) = result(i, j);
              } else if (result(i, j) != whole(i, j)) {
                ++changed;
              }
          BOOST_TEST(changed == 0);
          Matrix<float> right(k, width);
          for (index_t i = 0; i < k; ++i)
            for (index_t j = 0; j < width; ++j) right(i, j) = B(i, j);
          BOOST_TEST(error_of(after, A, right, before) < 1e-6);
        }
}

BOOST_AUTO_TEST_CASE(gram_matrices_are_right_on_and_above_the_diagonal) {
  for (const auto& [k, n] :
       {std::pair<index_t, index_t>{37, 5}, {700, 2500}, {512, 130}, {4200, 1300}}) {
    const Matrix<float> X = graded(k, n, 11, 0, 6);
    Matrix<float> zero(n, n);
    zero.fill(0);
    const auto x = upload<Cuda>(X);
    for (const bool hopper : {true, false}) {
      const UseHopperKernel way(hopper);
      auto G = upload<Cuda>(zero);
      gpu::split_gram(-1, x.view(), G.view());
      Matrix<float> result = download<Cuda>(G);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < i; ++j) result(i, j) = result(j, i);
      BOOST_TEST(error_of(result, transposed(X), X, zero) < 2.5e-6);
    }
  }
}

BOOST_AUTO_TEST_CASE(several_direct_products_go_at_once) {
  const index_t side = 70, count = 3;
  const Matrix<float> A = random_normal<float>(count * side, side, 12);
  const Matrix<float> B = random_normal<float>(count * side, side, 13);
  const auto a = upload<Cuda>(A), b = upload<Cuda>(B);
  auto c = upload<Cuda>(Matrix<float>(count * side, side));
  const index_t step = side * side;
  gpu::direct_product(1, {MatrixView<const float>(a.view()).block(0, 0, side, side), Lines::rows},
                      step, MatrixView<const float>(b.view()).block(0, 0, side, side), step, 0,
                      c.view().block(0, 0, side, side), step, count);
  const Matrix<float> result = download<Cuda>(c);
  for (index_t p = 0; p < count; ++p)
    for (index_t i = 0; i < side; i += 7)
      for (index_t j = 0; j < side; j += 3) {
        double sum = 0;
        for (index_t k = 0; k < side; ++k) sum += double(A(p * side + i, k)) * B(p * side + k, j);
        BOOST_TEST(std::abs(double(result(p * side + i, j)) - sum) < 4e-5);
      }
}

BOOST_AUTO_TEST_CASE(numbers_that_are_not_finite_stay_so) {
  // The last is what arithmetic on the device makes of NaN.
  for (const float wrong :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        std::bit_cast<float>(0x7fffffffu)}) {
    Matrix<float> A = random_normal<float>(130, 520, 14);
    A(7, 300) = wrong;
    const Matrix<float> B = random_normal<float>(520, 140, 15);
    const auto a = upload<Cuda>(A), b = upload<Cuda>(B);
    auto d = upload<Cuda>(Matrix<float>(130, 140));
    gpu::direct_product(1, {a.view(), Lines::rows}, b.view(), 0, d.view());
    const Matrix<float> of_direct = download<Cuda>(d);
    for (index_t j = 0; j < 140; ++j) {
      BOOST_TEST(!std::isfinite(of_direct(7, j)));
      BOOST_TEST(std::isfinite(of_direct(6, j)));
    }
    for (const bool hopper : {true, false}) {
      const UseHopperKernel way(hopper);
      auto c = upload<Cuda>(Matrix<float>(130, 140));
      gpu::split_product(1, {a.view(), Lines::rows}, {b.view(), Lines::columns}, 0, c.view());
      const Matrix<float> of_split = download<Cuda>(c);
      for (index_t j = 0; j < 140; ++j) BOOST_TEST(!std::isfinite(of_split(7, j)));
    }
  }
}

BOOST_AUTO_TEST_CASE(matrices_are_factored_and_inverted_in_one_launch) {
  for (const index_t n : {1, 2, 31, 32, 33, 64, 97, 127, 128, 129, 192, 200}) {
    const Matrix<float> X = correlated_activations<float>(2 * n + 20, n, 16);
    Matrix<float> A(n, n);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        double sum = i == j ? 1 : 0;
        for (index_t t = 0; t < X.rows(); ++t) sum += double(X(t, i)) * X(t, j);
        A(i, j) = float(sum);
      }
    // What lies below the diagonal is not read, and what lies beside the matrix not written.
    const index_t stride = n + 3 + (n + 1) % 2;
    Matrix<float> room(n, stride);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < stride; ++j)
        room(i, j) = j >= n ? 7 : j >= i ? A(i, j) : std::numeric_limits<float>::quiet_NaN();
    auto a = upload<Cuda>(room);
    auto info = upload<Cuda>(Matrix<int>(1, 1));
    gpu::factor_tiles(a.view().columns(0, n), info.view().data);
    BOOST_TEST(download<Cuda>(info)(0, 0) == 0);
    const Matrix<float> inverse = download<Cuda>(a);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = n; j < stride; ++j) BOOST_REQUIRE_EQUAL(inverse(i, j), 7.0f);
    double worst = 0;
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j <= i; ++j) {
        if (j < i) BOOST_REQUIRE_EQUAL(inverse(i, j), 0.0f);
        double sum = 0;
        for (index_t p = 0; p <= i; ++p)
          for (index_t q = 0; q <= j; ++q) sum += double(inverse(p, i)) * A(p, q) * inverse(q, j);
        worst = std::max(worst, std::abs(sum - (i == j)));
      }
    BOOST_TEST(worst < 2e-5, "n " << n << ": " << worst);
    A(n / 2, n / 2) = n == 1 ? 0.0f : -1.0f;
    auto bad = upload<Cuda>(A);
    gpu::factor_tiles(bad.view(), info.view().data);
    BOOST_TEST(download<Cuda>(info)(0, 0) == 1, "n " << n);
  }
}

// By cuSOLVER, by panels, and in one launch.
constexpr index_t factor_panels[] = {0, 512, 4096};

BOOST_AUTO_TEST_CASE(the_factor_is_as_near_to_float64_as_that_of_float32) {
  for (const index_t n : {1, 100, 128, 130, 512, 513, 1100, 1700, 2304})
    for (const bool uneven : {false, true}) {
      if (uneven && n > 1700) continue;
      Matrix<float> X = correlated_activations<float>(n + n / 2 + 5, n, 17);
      if (uneven)  // the diagonal of H ranges over 2^-20 .. 2^20
        for (index_t t = 0; t < X.rows(); ++t)
          for (index_t j = 0; j < n; ++j) X(t, j) = std::ldexp(X(t, j), int(j % 21) - 10);
      auto H = upload<Cuda>(Matrix<float>(n, n));
      const auto x = upload<Cuda>(X);
      Cuda::gram_accumulate(H.view(), MatrixView<const float>(x.view()));
      Matrix<float> A = download<Cuda>(H);
      for (index_t j = 0; j < n; ++j) A(j, j) *= 1.01f;
      // ||U A U^T - I|| over some rows.
      const auto error = [&](Precision precision, index_t panel) {
        const InPrecision chosen(precision);
        auto a = upload<Cuda>(A);
        BOOST_REQUIRE(gpu::inverse_factor(a.view(), panel));
        const Matrix<float> U = download<Cuda>(a);
        double worst = 0;
        std::vector<double> row(std::size_t(n), 0);
        for (index_t i = 0; i < n; i += 1 + n / 5) {
          for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(U(i, j), 0.0f);
          std::fill(row.begin(), row.end(), 0.0);
          for (index_t k = i; k < n; ++k)
            for (index_t j = 0; j < n; ++j) row[std::size_t(j)] += double(U(i, k)) * A(k, j);
          for (index_t j = 0; j < n; ++j) {
            double sum = 0;
            for (index_t k = j; k < n; ++k) sum += row[std::size_t(k)] * U(j, k);
            worst = std::max(worst, std::abs(sum - (i == j)));
          }
        }
        return worst;
      };
      const double of_float32 = error(Precision::float32, 0);
      for (const index_t panel : factor_panels) {
        const double of_split = error(Precision::split, panel);
        BOOST_TEST(of_split <= 4 * std::max(of_float32, 1e-6),
                   "n " << n << (uneven ? " uneven" : "") << ", panels of " << panel << ": "
                        << of_split << ", float32 " << of_float32);
      }
    }
}

BOOST_AUTO_TEST_CASE(what_is_not_positive_definite_is_no_factor) {
  for (const index_t n : {1, 300, 700, 1500})
    for (const index_t at : {index_t{0}, n / 2, n - 1})
      for (const float pivot : {-1.0f, 0.0f, std::numeric_limits<float>::quiet_NaN()}) {
        Matrix<float> A(n, n);
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < n; ++j) A(i, j) = i == j ? 2.0f : 0.0f;
        A(at, at) = pivot;
        for (const index_t panel : factor_panels) {
          auto a = upload<Cuda>(A);
          BOOST_TEST(!gpu::inverse_factor(a.view(), panel),
                     n << " with " << pivot << " at " << at << ", panels of " << panel);
        }
      }
}

BOOST_AUTO_TEST_CASE(a_solve_loses_as_much_as_in_float32_and_gives_the_same_bytes_again) {
  using Joint = Compression<Unstructured, BaseQuantizer>;
  const index_t out = 700, in = 1600;
  const auto W = upload<Cuda>(random_normal<float>(out, in, 18, 0.02));
  const auto X = upload<Cuda>(correlated_activations<float>(2 * in, in, 19));
  for (const index_t block : {128, 96, 600}) {
    const auto solve = [&](Precision precision) {
      const InPrecision chosen(precision);
      Calibration<Cuda, float> calibration(in);
      calibration.add(X.view());
      SparseGPTSolver<Joint, Cuda, float> solver(
          {.sparsity = 0.5, .bits = 4, .block_size = block, .act_order = true});
      const auto linear = solver.solve(W.view(), calibration);
      return std::pair(linear.loss, download<Cuda>(linear.weights));
    };
    const auto [loss, Q] = solve(Precision::split);
    const auto [again, same] = solve(Precision::split);
    const auto [expected, other] = solve(Precision::float32);
    BOOST_TEST(std::abs(loss / expected - 1) < 1e-3, block << ": " << loss << ", " << expected);
    BOOST_TEST(loss == again);
    BOOST_TEST(std::equal(Q.data(), Q.data() + Q.size(), same.data()));
  }
}
