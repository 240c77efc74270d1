// The operations of a model's forward pass on every backend, against their definitions in double.
#define BOOST_TEST_MODULE pare_operations
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "matrix_support.hpp"
#include "pare/kernels/activations.hpp"

using namespace test;

namespace {

/// 16-bit types besides, where the backend has them.
using AllCases = decltype(std::tuple_cat(Cases{}, Stored{}));

template <class T>
constexpr bool is_stored = pare::is_storage_only<T>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(linear_products, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const std::tuple<index_t, index_t, index_t> shapes[] = {{1, 1, 1},     {1, 7, 5},
                                                          {2, 3, 1},     {13, 17, 29},
                                                          {257, 5, 33},  {70, 515, 19},
                                                          {300, 130, 64}};
  for (const auto& [tokens, out, in] : shapes)
    for (const bool with_bias : {true, false}) {
      const auto X = random_matrix<T>(tokens, in, 1), W = random_matrix<T>(out, in, 2);
      const auto bias = with_bias ? random_matrix<T>(1, out, 3) : Matrix<T>();
      const auto x = upload<B>(X), w = upload<B>(W), b = upload<B>(bias);
      auto y = upload<B>(undefined<T>(tokens, out));
      Matrix<double> expected(tokens, out);
      B::template linear<T>(y.view(), x.view(), w.view(), b.view());
      Oracle::linear<double>(expected, widen(X), widen(W), widen(bias));
      BOOST_TEST_CONTEXT(tokens << " x " << out << " x " << in)
      BOOST_TEST(distance(download<B>(y), expected) < rounding<T> * double(in));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(linear_on_windows_of_larger_matrices, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto X = random_matrix<T>(9, 30, 1), W = random_matrix<T>(11, 40, 2);
  const auto on_x = upload<B>(X), on_w = upload<B>(W);
  auto on_y = upload<B>(Matrix<T>(12, 20));
  B::template linear<T>(on_y.view().block(2, 4, 7, 8), on_x.view().block(1, 3, 7, 21),
                        on_w.view().block(2, 5, 8, 21), {});
  const Matrix<T> Y = download<B>(on_y);
  for (index_t r = 0; r < 12; ++r)
    for (index_t c = 0; c < 20; ++c) {
      double sum = 0;
      if (r >= 2 && r < 9 && c >= 4 && c < 12)
        for (index_t k = 0; k < 21; ++k)
          sum += double(X(1 + r - 2, 3 + k)) * double(W(2 + c - 4, 5 + k));
      BOOST_REQUIRE_SMALL(double(Y(r, c)) - sum, 21 * rounding<T>);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(layer_norms, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t cols : {1, 3, 16, 77})
    for (const bool has_weight : {true, false})
      for (const bool has_bias : {true, false}) {
        auto X = random_matrix<T>(37, cols, 4, 3);
        for (index_t i = 0; i < X.size(); ++i) X.data()[i] += T(5);
        const auto weight = has_weight ? random_matrix<T>(1, cols, 5) : Matrix<T>();
        const auto bias = has_bias ? random_matrix<T>(1, cols, 6) : Matrix<T>();
        auto x = upload<B>(X), y = upload<B>(undefined<T>(37, cols));
        const auto w = upload<B>(weight), b = upload<B>(bias);
        Matrix<double> expected(37, cols);
        B::template layer_norm<T>(y.view(), x.view(), w.view(), b.view(), 1e-5);
        Oracle::layer_norm<double>(expected, widen(X), widen(weight), widen(bias));
        BOOST_TEST(distance(download<B>(y), expected) < 5 * rounding<T>);
        B::template layer_norm<T>(x.view(), x.view(), w.view(), b.view(), 1e-5);
        BOOST_TEST(distance(download<B>(x), download<B>(y)) == 0);
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(attention, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const std::tuple<index_t, index_t, index_t, index_t> shapes[] = {{1, 1, 1, 1},  {1, 1, 2, 3},
                                                                   {3, 2, 5, 7},  {2, 3, 64, 4},
                                                                   {1, 2, 65, 8}, {2, 1, 150, 16}};
  for (const auto& [windows, heads, seqlen, width] : shapes)
    for (const double scale : {1.0, 40.0}) {  // 40: weights of nearly 0 and 1
      const index_t rows = windows * seqlen, cols = heads * width;
      const auto Q = random_matrix<T>(rows, cols, 7, scale), K = random_matrix<T>(rows, cols, 8);
      const auto V = random_matrix<T>(rows, cols, 9);
      const auto q = upload<B>(Q), k = upload<B>(K), v = upload<B>(V);
      auto out = upload<B>(undefined<T>(rows, cols));
      Matrix<double> expected(rows, cols);
      const auto shape = plain_attention(heads, width, seqlen);
      B::template attention<T>(out.view(), q.view(), k.view(), v.view(), {}, shape);
      Oracle::attention<double>(expected, widen(Q), widen(K), widen(V), {}, shape);
      BOOST_TEST_CONTEXT("seqlen " << seqlen << " scale " << scale)
      BOOST_TEST(distance(download<B>(out), expected) < rounding<T> * scale);
    }
}

namespace {

/// The attention of one query by the definition: all positions of the window are scored, and those
/// that are not seen weigh exp(-infinity).
std::vector<double> mixed_values(MatrixView<const double> q, MatrixView<const double> k,
                                 MatrixView<const double> v, const std::vector<double>& slopes,
                                 const pare::kernels::AttentionShape& s, index_t token,
                                 index_t head) {
  const index_t i = token % s.seqlen, first = token - i;
  const index_t kv = head * s.kv_heads / s.heads;
  std::vector<double> scores, mixed(std::size_t(s.head_dim), 0.0);
  for (index_t j = 0; j < s.seqlen; ++j) {
    double score = 0;
    for (index_t c = 0; c < s.head_dim; ++c)
      score += s.scale * q(token, head * s.q_step + c) * k(first + j, kv * s.kv_step + c);
    if (s.soft_cap > 0) score = s.soft_cap * std::tanh(score / s.soft_cap);
    if (!slopes.empty()) score += slopes[std::size_t(head)] * double(j - i);
    if (j > i || (s.window > 0 && i - j >= s.window)) score = -INFINITY;
    scores.push_back(score);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (index_t j = 0; j < s.seqlen; ++j)
    for (index_t c = 0; c < s.head_dim; ++c)
      mixed[std::size_t(c)] += scores[std::size_t(j)] / sum * v(first + j, kv * s.kv_step + c);
  return mixed;
}

struct AttentionVariant {
  const char* name;
  index_t kv_heads = 6, head_dim = 8, seqlen = 70, window = 0;
  double soft_cap = 0;
  bool alibi = false, fused_by_head = false;
  double scale = 0;  ///< 0: 1 / sqrt(head_dim)
};

constexpr AttentionVariant attention_variants[] = {
    {.name = "one key-value head", .kv_heads = 1},
    {.name = "two key-value heads", .kv_heads = 2},
    {.name = "three key-value heads", .kv_heads = 3, .head_dim = 24},
    {.name = "qkv fused by head", .fused_by_head = true},
    {.name = "qkv fused by head, 80 wide", .head_dim = 80, .seqlen = 9, .fused_by_head = true},
    {.name = "another scale", .scale = 0.11},
    {.name = "a window of 1", .window = 1},
    {.name = "a window of 3", .window = 3},
    {.name = "a window of 64", .seqlen = 150, .window = 64},
    {.name = "a window as long as the text", .window = 70},
    {.name = "a window longer than the text", .window = 1000},
    {.name = "a soft cap", .soft_cap = 1.5},
    {.name = "slopes", .alibi = true},
    {.name = "one token", .seqlen = 1},
    {.name = "256 wide", .kv_heads = 3, .head_dim = 256, .seqlen = 5},
    {.name = "80 wide", .head_dim = 80, .seqlen = 66},
    {.name = "96 wide", .kv_heads = 3, .head_dim = 96, .seqlen = 130, .alibi = true},
    {.name = "64 wide", .kv_heads = 3, .head_dim = 64, .seqlen = 270, .soft_cap = 3, .alibi = true},
    {.name = "128 wide", .kv_heads = 2, .head_dim = 128, .seqlen = 270, .window = 150},
    {.name = "160 wide", .head_dim = 160, .seqlen = 67, .soft_cap = 3},
    {.name = "all",
     .kv_heads = 2,
     .head_dim = 24,
     .seqlen = 133,
     .window = 20,
     .soft_cap = 2,
     .alibi = true,
     .scale = 0.3},
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(attention_variants_by_definition, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  constexpr index_t heads = 6, windows = 2;
  for (const AttentionVariant& variant : attention_variants) {
    const index_t dim = variant.head_dim, kv_heads = variant.kv_heads;
    const index_t rows = windows * variant.seqlen;
    const index_t step = variant.fused_by_head ? 3 * dim : dim;
    const pare::kernels::AttentionShape shape{.heads = heads,
                                              .kv_heads = kv_heads,
                                              .head_dim = dim,
                                              .seqlen = variant.seqlen,
                                              .q_step = step,
                                              .kv_step = step,
                                              .scale = variant.scale > 0
                                                           ? variant.scale
                                                           : 1 / std::sqrt(double(dim)),
                                              .soft_cap = variant.soft_cap,
                                              .window = variant.window};
    // q, k and v are columns of one matrix: one after the other, or all three of a head together.
    const index_t k_at = variant.fused_by_head ? dim : heads * dim;
    const index_t v_at = k_at + (variant.fused_by_head ? dim : kv_heads * dim);
    const auto qkv = random_matrix<T>(rows, (heads + 2 * kv_heads) * dim, 21, 1.5);
    const index_t q_cols = (heads - 1) * step + dim, kv_cols = (kv_heads - 1) * step + dim;
    const auto slopes = variant.alibi
                            ? cast<pare::compute_scalar<T>>(random_matrix<float>(1, heads, 22, 0.3))
                            : Matrix<pare::compute_scalar<T>>();
    const auto on_qkv = upload<B>(qkv);
    const auto on_slopes = upload<B>(slopes);
    const auto columns = [&](index_t at, index_t cols) {
      return pare::detail::as_const(on_qkv.view()).block(0, at, rows, cols);
    };
    Matrix<double> expected(rows, heads * dim);
    const Matrix<double> wide = widen(qkv);
    const MatrixView<const double> all = wide.view();
    for (index_t t = 0; t < rows; ++t)
      for (index_t head = 0; head < heads; ++head) {
        const auto mixed =
            mixed_values(all.block(0, 0, rows, q_cols), all.block(0, k_at, rows, kv_cols),
                         all.block(0, v_at, rows, kv_cols), doubles(widen(slopes)), shape, t, head);
        std::copy(mixed.begin(), mixed.end(), expected.view().row(t) + head * dim);
      }
    // At multiples of 16 bytes, and not.
    for (const index_t margin : {8, 3}) {
      auto out = upload<B>(undefined<T>(rows, heads * dim + 2 * margin));
      B::template attention<T>(out.view().columns(margin, heads * dim), columns(0, q_cols),
                               columns(k_at, kv_cols), columns(v_at, kv_cols), on_slopes.view(),
                               shape);
      const Matrix<double> got = widen(download<B>(out));
      double worst = 0, outside = 0;
      for (index_t t = 0; t < rows; ++t)
        for (index_t c = 0; c < got.cols(); ++c) {
          const index_t at = c - margin;
          if (at < 0 || at >= heads * dim) {
            outside += double(!std::isnan(got(t, c)));
            continue;
          }
          const double d = std::abs(got(t, c) - expected(t, at));
          worst = d <= worst ? worst : std::isnan(d) ? INFINITY : d;
        }
      // In 16 bits weights and results are rounded; |v| stays below 8.
      BOOST_TEST(worst < (is_stored<T> ? 12 * half_step<T> : 3 * rounding<T>), variant.name);
      BOOST_TEST(outside == 0, variant.name);
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rms_norms, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t cols : {1, 3, 24, 77, 600, 1025})
    for (const bool has_weight : {true, false})
      for (const double offset : {0.0, 1.0}) {
        const index_t rows = 37;
        auto X = random_matrix<T>(rows, cols, 4, 3);
        for (index_t j = 0; j < cols; ++j) X(5, j) = T(1e-4f);  // where epsilon counts
        const auto weight = has_weight ? random_matrix<T>(1, cols, 5) : Matrix<T>();
        auto x = upload<B>(X), y = upload<B>(undefined<T>(rows, cols + 4));
        const auto w = upload<B>(weight);
        Matrix<double> expected(rows, cols);
        for (index_t i = 0; i < rows; ++i) {
          double squares = 0;
          for (index_t j = 0; j < cols; ++j) squares += std::pow(double(X(i, j)), 2);
          for (index_t j = 0; j < cols; ++j)
            expected(i, j) = double(X(i, j)) / std::sqrt(squares / double(cols) + 1e-6) *
                             (has_weight ? offset + double(weight(0, j)) : 1);
        }
        B::template rms_norm<T>(y.view().block(0, 3, rows, cols), x.view(), w.view(), 1e-6, offset);
        const Matrix<T> whole = download<B>(y);
        const MatrixView<const T> got = whole.view().block(0, 3, rows, cols);
        double worst = 0;
        for (index_t i = 0; i < rows; ++i)
          for (index_t j = 0; j < cols; ++j) {
            const double error = std::abs(double(got(i, j)) - expected(i, j));
            worst = std::max(worst, error / (1 + std::abs(expected(i, j))));
            BOOST_REQUIRE(!std::isnan(error));
          }
        BOOST_TEST(worst < (is_stored<T> ? 1.01 * half_step<T> : rounding<T>), "cols " << cols);
        BOOST_TEST(std::isnan(double(whole(3, 2))));
        BOOST_TEST(std::isnan(double(whole(3, cols + 3))));
        B::template rms_norm<T>(x.view(), x.view(), w.view(), 1e-6, offset);
        const Matrix<T> in_place = download<B>(x);
        BOOST_TEST(distance(in_place.view(), got) == 0);
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(element_wise, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto X = random_matrix<T>(35, 19, 10);
  const auto A = random_matrix<T>(35, 19, 11);
  const auto a = upload<B>(A);
  auto on_y = upload<B>(X);
  B::template add<T>(on_y.view(), a.view());
  const Matrix<T> Y = download<B>(on_y);
  for (index_t i = 0; i < X.size(); ++i)
    BOOST_REQUIRE_EQUAL(Y.data()[i], X.data()[i] + A.data()[i]);
  const ids_t ids{4, 0, 34, 4, 7};
  const auto on_ids = B::from_host(MatrixView<const std::int32_t>(ids.data(), 1, 5));
  const auto table = upload<B>(X);
  auto rows = upload<B>(undefined<T>(5, 19));
  B::template embed_tokens<T>(rows.view(), table.view(), on_ids.view());
  const Matrix<T> before = download<B>(rows);
  for (index_t t = 0; t < 5; ++t)
    for (index_t j = 0; j < 19; ++j) BOOST_REQUIRE_EQUAL(before(t, j), X(ids[std::size_t(t)], j));
  B::template add_positions<T>(rows.view(), a.view(), 2);
  const Matrix<T> after = download<B>(rows);
  for (index_t t = 0; t < 5; ++t)
    for (index_t j = 0; j < 19; ++j) BOOST_REQUIRE_EQUAL(after(t, j), before(t, j) + A(t % 2, j));
}

namespace {

using pare::kernels::Activation;

/// The definitions, in double, written so that they keep their digits.
double activation(Activation kind, double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  switch (kind) {
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      // The digits of 1 + tanh(u) are lost where u is far below 0.
      if (!std::isnan(u)) BOOST_REQUIRE_SMALL(1 + std::tanh(u) - 2 / (1 + std::exp(-2 * u)), 1e-15);
      return x / (1 + std::exp(-2 * u));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return NAN;
}

constexpr Activation activations[] = {Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                      Activation::quick_gelu, Activation::silu};

/// Numbers around 0, far from it, and special ones, as (rows, cols) that fill no whole vectors.
template <class T>
Matrix<T> arguments() {
  Matrix<T> X(7, 45);
  const double special[] = {0, -0.0, NAN, 1e-6, -1e-6, 30, -30, 88, -88, 1000, -1000, 6e4, -6e4};
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = T(float(-14 + 0.09 * double(i)));
  for (index_t i = 0; i < std::ssize(special); ++i) X.data()[i * 11 + 3] = T(float(special[i]));
  return X;
}

/// Holds results of arguments(), rounded to T once, against doubles: a NaN where one is expected.
/// `relative` is what arithmetic may add near 0; exponents grow like x^2, and their rounding with
/// them.
template <class T>
void check_numbers(const Matrix<T>& got, const Matrix<double>& expected, double relative,
                   const std::string& what) {
  const double smallest = std::is_same_v<T, pare::float16> ? 0x1p-24
                          : std::is_same_v<T, double>      ? 1e-300
                                                           : 1e-37;
  const Matrix<double> X = widen(arguments<T>());
  for (index_t i = 0; i < got.size(); ++i) {
    const double x = X.data()[i], y = double(got.data()[i]), z = expected.data()[i];
    const double allowed = relative * (1 + x * x) + (is_stored<T> ? half_step<T> : 0);
    if (std::isnan(z))
      BOOST_TEST(std::isnan(y), what << " of " << x << ": " << y);
    else
      BOOST_TEST(std::abs(y - z) <= allowed * std::abs(z) + smallest,
                 what << " of " << x << ": " << y << " instead of " << z);
  }
}

/// Relative error of an element function near 0.
template <class T>
constexpr double of_functions = std::is_same_v<T, double> ? 1e-15 : 4e-7;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(activation_functions, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> X = arguments<T>(), up = random_matrix<T>(7, 45, 3);
  for (const Activation kind : activations) {
    const char* const names[] = {"relu", "gelu", "gelu_tanh", "quick_gelu", "silu"};
    const std::string what = names[int(kind)];
    Matrix<double> expected(7, 45), gated(7, 45);
    for (index_t i = 0; i < X.size(); ++i) {
      expected.data()[i] = activation(kind, double(X.data()[i]));
      gated.data()[i] = expected.data()[i] * double(up.data()[i]);
    }
    auto x = upload<B>(X);
    B::for_each_element(7, 45, pare::kernels::Activate<T>{x.view(), kind});
    check_numbers<T>(download<B>(x), expected, of_functions<T>, what);

    // Into a matrix of its own, over the gate, and side by side as one linear wrote both.
    const auto on_up = upload<B>(up);
    auto gate = upload<B>(X), out = upload<B>(undefined<T>(7, 45));
    B::for_each_element(7, 45,
                        pare::kernels::GatedProduct<T>{gate.view(), on_up.view(), out.view(),
                                                       kind});
    check_numbers<T>(download<B>(out), gated, of_functions<T>, what);
    B::for_each_element(7, 45,
                        pare::kernels::GatedProduct<T>{gate.view(), on_up.view(), gate.view(),
                                                       kind});
    BOOST_TEST(same_bytes(download<B>(gate), download<B>(out)));
    Matrix<T> both(7, 90);
    for (index_t r = 0; r < 7; ++r) {
      std::copy_n(X.view().row(r), 45, both.view().row(r));
      std::copy_n(up.view().row(r), 45, both.view().row(r) + 45);
    }
    auto fused = upload<B>(both);
    const auto part = [&](index_t at) { return fused.view().block(0, at, 7, 45); };
    B::for_each_element(7, 45, pare::kernels::GatedProduct<T>{part(0), part(45), part(0), kind});
    const Matrix<T> after = download<B>(fused);
    BOOST_TEST(same_bytes(Matrix<T>(after.view().block(0, 0, 7, 45)), download<B>(out)));
    BOOST_TEST(same_bytes(Matrix<T>(after.view().block(0, 45, 7, 45)), up));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(relu_is_exact, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> X = arguments<T>();
  auto x = upload<B>(X);
  B::for_each_element(7, 45, pare::kernels::Activate<T>{x.view(), Activation::relu});
  const Matrix<T> got = download<B>(x);
  for (index_t i = 0; i < X.size(); ++i)
    if (!std::isnan(double(X.data()[i])))
      BOOST_TEST(double(got.data()[i]) == std::max(0.0, double(X.data()[i])));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(scales_and_soft_caps, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Matrix<T> X = arguments<T>();
  for (const double cap : {0.5, 30.0}) {
    Matrix<double> expected(7, 45);
    for (index_t i = 0; i < X.size(); ++i)
      expected.data()[i] = cap * std::tanh(double(X.data()[i]) / cap);
    auto x = upload<B>(X);
    B::for_each_element(7, 45, pare::kernels::SoftCap<T>{x.view(), cap});
    check_numbers<T>(download<B>(x), expected, of_functions<T>, "cap");
  }
  auto x = upload<B>(X);
  B::for_each_element(7, 45, pare::kernels::ScaleElement<T>{x.view(), 0.1});
  Matrix<double> expected(7, 45);
  for (index_t i = 0; i < X.size(); ++i) expected.data()[i] = 0.1 * double(X.data()[i]);
  check_numbers<T>(download<B>(x), expected, of_functions<T>, "scale");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rotary_positions, C, AllCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  constexpr index_t heads = 3, head_dim = 40, seqlen = 5, rows = 2 * seqlen, left = 2;
  for (const index_t half : {20, 3})  // the whole head, and 6 of its 40 columns
    for (const index_t step : {head_dim, 3 * head_dim}) {
      const index_t cols = left + (heads - 1) * step + head_dim;
      const auto X = random_matrix<T>(rows, cols, 1);
      Matrix<pare::compute_scalar<T>> cosines(seqlen, half), sines(seqlen, half);
      Matrix<double> expected = widen(X);
      for (index_t t = 0; t < rows; ++t)
        for (index_t i = 0; i < half; ++i) {
          const double angle = double(t % seqlen) * std::pow(100.0, -double(i) / double(half));
          cosines(t % seqlen, i) = pare::compute_scalar<T>(std::cos(angle));
          sines(t % seqlen, i) = pare::compute_scalar<T>(std::sin(angle));
          for (index_t head = 0; head < heads; ++head) {
            double& a = expected(t, left + head * step + i);
            double& b = expected(t, left + head * step + half + i);
            const double rotated = a * std::cos(angle) - b * std::sin(angle);
            b = b * std::cos(angle) + a * std::sin(angle);
            a = rotated;
          }
        }
      auto x = upload<B>(X);
      const auto c = upload<B>(cosines), s = upload<B>(sines);
      B::for_each_element(rows, heads * half,
                          pare::kernels::RotatePairs<T>{x.view().block(0, left, rows, cols - left),
                                                        c.view(), s.view(), step, half, seqlen});
      BOOST_TEST(distance(download<B>(x), expected) <
                     (is_stored<T> ? 4 * half_step<T> : rounding<T>),
                 "half " << half << " step " << step);
      const Matrix<T> turned = download<B>(x);
      for (index_t j = 0; j < cols; ++j)  // position 0 is not turned
        BOOST_TEST(double(turned(seqlen, j)) == double(X(seqlen, j)));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(cross_entropies, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t vocab : {1, 7, 256, 1000}) {
    auto logits = random_matrix<T>(41, vocab, 12, 4);
    for (index_t j = 0; j < vocab; ++j) logits(5, j) += T(3000);  // exp of it overflows
    ids_t targets(41);
    for (std::size_t t = 0; t < targets.size(); ++t)
      targets[t] = t % 7 == 3 ? -1 : std::int32_t(index_t(t * 31) % vocab);
    const MatrixView<const std::int32_t> view(targets.data(), 1, 41);
    const double expected = Oracle::cross_entropy<double>(widen(logits), view);
    const auto on_logits = upload<B>(logits);
    const auto on_targets = B::from_host(view);
    const double got = B::template cross_entropy<T>(on_logits.view(), on_targets.view());
    BOOST_TEST(std::abs(got - expected) < 41 * rounding<T>);
    double naive = 0;
    for (index_t t = 0; t < 41; ++t) {
      if (targets[std::size_t(t)] < 0) continue;
      double sum = 0;
      for (index_t j = 0; j < vocab; ++j)
        sum += std::exp(double(logits(t, j)) - double(logits(t, targets[std::size_t(t)])));
      naive += std::log(sum);
    }
    BOOST_TEST(std::abs(naive - expected) < 1e-8);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(results_do_not_depend_on_the_number_of_threads, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  std::vector<Matrix<T>> one;
  for (const int threads : {1, 3}) {
    std::vector<Matrix<T>> results;
    on_threads(threads, [&] {
      for (const auto& [tokens, out, in] :
           {std::tuple<index_t, index_t, index_t>{200, 300, 500}, {350, 513, 700}}) {
        const auto x = upload<B>(random_matrix<T>(tokens, in, 1));
        const auto w = upload<B>(random_matrix<T>(out, in, 2));
        auto y = upload<B>(Matrix<T>(tokens, out));
        B::template linear<T>(y.view(), x.view(), w.view(), {});
        results.push_back(download<B>(y));
        const auto q = upload<B>(random_matrix<T>(tokens, out / 3 * 3, 3));
        auto mixed = upload<B>(Matrix<T>(tokens, out / 3 * 3));
        auto shape = plain_attention(3, out / 3, tokens / 2);
        B::template attention<T>(mixed.view(), q.view(), q.view(), q.view(), {}, shape);
        results.push_back(download<B>(mixed));
        shape.kv_heads = 1;
        shape.window = 60;
        shape.soft_cap = 5;
        B::template attention<T>(mixed.view(), q.view(), q.view(), q.view(), {}, shape);
        results.push_back(download<B>(mixed));
        B::for_each_element(tokens, out, pare::kernels::Activate<T>{y.view(), Activation::gelu});
        results.push_back(download<B>(y));
      }
    });
    if (one.empty()) one = results;
    for (std::size_t i = 0; i < one.size(); ++i)
      BOOST_TEST(same_bytes(one[i], results[i]), threads << " threads");
  }
}
