// Models stored in 16 bits, on every backend that stores them, against float and double.
#define BOOST_TEST_MODULE pare_storage_types
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "model_support.hpp"
#include "opt_architecture.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/compress.hpp"

using namespace test;
using pare::bfloat16;
using pare::float16;

namespace {

static_assert(sizeof(float16) == 2 && sizeof(bfloat16) == 2);
static_assert(std::is_trivially_copyable_v<float16> && std::is_trivially_copyable_v<bfloat16>);
static_assert(std::is_same_v<pare::compute_scalar<float16>, float> &&
              std::is_same_v<pare::compute_scalar<bfloat16>, float> &&
              std::is_same_v<pare::compute_scalar<double>, double>);
static_assert(pare::ModelBackend<Oracle, float16> && !pare::Backend<Oracle, float16>);
static_assert(!pare::ModelBackend<Oracle, std::int32_t>);

/// || a - b || / || b ||, Frobenius.
template <class A, class B>
double relative_error(const Matrix<A>& a, const Matrix<B>& b) {
  BOOST_REQUIRE(a.rows() == b.rows() && a.cols() == b.cols());
  double difference = 0, size = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double x = double(a.data()[i]), y = double(b.data()[i]);
    difference += (x - y) * (x - y);
    size += y * y;
  }
  return std::sqrt(difference / size);
}

pare::Architecture small_config() { return opt_architecture(48, 96, 2, 3, 101, 32); }

ids_t random_ids(std::size_t count, index_t vocab, unsigned seed = 1) {
  std::mt19937 engine(seed);
  ids_t ids(count);
  for (std::int32_t& id : ids) id = std::int32_t(engine() % unsigned(vocab));
  return ids;
}

}  // namespace

// ---------------------------------------------------------------- primitives

BOOST_AUTO_TEST_CASE_TEMPLATE(conversions, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  auto values = random_matrix<float>(9, 31, 1, 100);
  const float special[] = {0,         -0.0f,   INFINITY,     -INFINITY,  65504,
                           65519.99f, 65520,   1e-5f,        3e-8f,      2.9802322e-8f,
                           1e-40f,    3.4e38f, 1 + 0x1p-11f, 1 + 0x1p-8f};
  std::copy(std::begin(special), std::end(special), values.data());
  const auto on_values = upload<B>(values);
  auto stored = upload<B>(Matrix<S>(9, 31));
  pare::convert<B>(on_values.view(), stored.view());
  auto back = upload<B>(Matrix<float>(9, 31));
  pare::convert<B>(pare::detail::as_const(stored.view()), back.view());
  const Matrix<S> got = download<B>(stored);
  const Matrix<float> again = download<B>(back);
  for (index_t i = 0; i < values.size(); ++i) {
    BOOST_TEST(got.data()[i].bits == S(values.data()[i]).bits);
    BOOST_TEST(again.data()[i] == pare::round_to(pare::scalar_traits<S>::dtype, values.data()[i]));
  }
  auto narrow = upload<B>(Matrix<S>(9, 30));
  BOOST_CHECK_THROW(pare::convert<B>(on_values.view(), narrow.view()), pare::shape_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(sums_over_activations, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  for (const auto& [tokens, in] : {std::pair<index_t, index_t>{300, 33}, {5000, 33}, {64, 2100}}) {
    if (in > 2000 && std::is_same_v<B, Oracle>) continue;  // for backends that work in strips
    auto X = random_matrix<S>(tokens, in, 2, 3);
    const auto on_x = upload<B>(X);
    const Matrix<float> wide = cast<float>(widen(X));
    Matrix<float> start = random_matrix<float>(in, in, 3);
    for (index_t i = 0; i < in; ++i)
      for (index_t j = 0; j < i; ++j) start(i, j) = start(j, i);
    auto G = upload<B>(start);
    B::gram_accumulate(G.view(), on_x.view());
    const Matrix<float> got = download<B>(G);
    Matrix<double> expected = widen(start);
    if (in < 2000) {
      Oracle::gram_accumulate(expected.view(), MatrixView<const float>(wide.view()));
    } else {
      for (index_t t = 0; t < tokens; ++t)
        for (index_t i = 0; i < in; ++i) {
          const double x = double(X(t, i));
          for (index_t j = 0; j < in; ++j) expected(i, j) += x * double(X(t, j));
        }
    }
    BOOST_TEST(relative_error(got, expected) < 1e-5);
    for (index_t i = 0; i < in; ++i)
      for (index_t j = 0; j < i; ++j) BOOST_REQUIRE_EQUAL(got(i, j), got(j, i));

    auto moments = upload<B>(Matrix<double>(3, in));
    Matrix<double> expected_moments(3, in);
    B::column_moments(on_x.view(), moments.view());
    Oracle::column_moments(MatrixView<const float>(wide.view()), expected_moments.view());
    BOOST_TEST(distance(download<B>(moments), expected_moments) < 1e-9 * double(tokens));
    BOOST_TEST(B::find_non_finite(on_x.view()) == -1);
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      X(tokens - 1, 5) = S(bad);
      const auto broken = upload<B>(X);
      BOOST_TEST(B::find_non_finite(broken.view()) == (tokens - 1) * in + 5);
    }
  }
}

namespace {

/// Checks results that were rounded to S once; `sums` is what sums in float may add to that.
template <class S>
void check_rounded(const Matrix<S>& got, const Matrix<double>& expected, double sums,
                   const char* what) {
  double worst = 0, largest = 0;
  const Matrix<double> values = widen(got);
  for (index_t i = 0; i < expected.size(); ++i) {
    const double step = half_step<S> * std::abs(expected.data()[i]);
    worst = std::max(worst, std::abs(values.data()[i] - expected.data()[i]) - step);
    largest = std::max(largest, std::abs(values.data()[i]));
  }
  BOOST_TEST(worst <= sums, what << ": " << worst);
  BOOST_TEST(largest > 0.1, what);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(products, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const std::tuple<index_t, index_t, index_t> shapes[] = {{130, 64, 96}, {9, 35, 17}};
  for (const auto& [tokens, in, out] : shapes) {
    const auto X = random_matrix<S>(tokens, in, 1), W = random_matrix<S>(out, in, 2, 0.1);
    const auto bias = random_matrix<S>(1, out, 3);
    const auto x = upload<B>(X), w = upload<B>(W), b = upload<B>(bias);
    for (const bool has_bias : {false, true}) {
      auto y = upload<B>(undefined<S>(tokens, out));
      Matrix<double> expected(tokens, out);
      const MatrixView<const S> none;
      B::template linear<S>(y.view(), x.view(), w.view(), has_bias ? b.view() : none);
      Oracle::linear<double>(expected, widen(X), widen(W),
                             has_bias ? widen(bias) : Matrix<double>());
      check_rounded<S>(download<B>(y), expected, 2e-5, has_bias ? "with a bias" : "without a bias");
      if constexpr (requires { B::template linear<S>(y.view(), none, none, none, {}); }) {
        // The addend, then the activation, before anything is rounded.
        const auto addend = random_matrix<S>(tokens, out, 4, 2);
        const auto z = upload<B>(addend);
        Oracle::add<double>(expected, widen(addend));
        using pare::kernels::Activation;
        for (const auto kind : {std::optional<Activation>{}, std::optional(Activation::relu),
                                std::optional(Activation::silu)}) {
          B::template linear<S>(y.view(), x.view(), w.view(), has_bias ? b.view() : none,
                                {.addend = z.view(), .activation = kind});
          Matrix<double> sums = expected;
          if (kind)
            Oracle::for_each_element(tokens, out,
                                     pare::kernels::Activate<double>{sums.view(), *kind});
          // silu has the sums rounded first.
          check_rounded<S>(download<B>(y), sums,
                           kind == Activation::silu ? 16 * half_step<S> : 2e-5, "an epilogue");
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(operations_of_a_model, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const index_t tokens = 130, in = 64, out = 96;
  const auto X = random_matrix<S>(tokens, in, 1), W = random_matrix<S>(out, in, 2, 0.1);
  const auto weight = random_matrix<S>(1, in, 4), shift = random_matrix<S>(1, in, 5);
  const auto x = upload<B>(X), w = upload<B>(W), g = upload<B>(weight), s = upload<B>(shift);
  auto y = upload<B>(random_matrix<S>(tokens, out, 6));
  const auto check = [](const auto& got, const Matrix<double>& expected, const char* what) {
    check_rounded<S>(download<B>(got), expected, 1e-5, what);
  };

  auto n = upload<B>(undefined<S>(tokens, in));
  Matrix<double> normal(tokens, in);
  B::template layer_norm<S>(n.view(), x.view(), g.view(), s.view(), 1e-5);
  Oracle::layer_norm<double>(normal, widen(X), widen(weight), widen(shift));
  check(n, normal, "layer_norm");

  B::for_each_element(tokens, out,
                      pare::kernels::Activate<S>{y.view(), pare::kernels::Activation::relu});
  const Matrix<S> positive = download<B>(y);
  for (index_t i = 0; i < positive.size(); ++i) BOOST_REQUIRE(double(positive.data()[i]) >= 0);

  auto sum = upload<B>(X);
  const Matrix<double> normals = widen(download<B>(n));
  B::template add<S>(sum.view(), n.view());
  Matrix<double> expected_sum = widen(X);
  Oracle::add<double>(expected_sum, normals);
  check(sum, expected_sum, "add");

  const ids_t ids = random_ids(std::size_t(tokens), out);
  const auto on_ids = B::from_host(MatrixView<const std::int32_t>(ids.data(), 1, tokens));
  auto embedded = upload<B>(undefined<S>(tokens, in));
  B::template embed_tokens<S>(embedded.view(), w.view(), on_ids.view());
  B::template add_positions<S>(embedded.view(), x.view(), 65);
  Matrix<double> expected_rows(tokens, in);
  Oracle::embed_tokens<double>(expected_rows, widen(W),
                               MatrixView<const std::int32_t>(ids.data(), 1, tokens));
  Oracle::add_positions<double>(expected_rows, widen(X), 65);
  check(embedded, expected_rows, "embeddings");

  ids_t targets = ids;
  targets[3] = -1;
  const MatrixView<const std::int32_t> view(targets.data(), 1, tokens);
  const auto on_targets = B::from_host(view);
  const double entropy = B::template cross_entropy<S>(y.view(), on_targets.view());
  BOOST_TEST(relative_difference(entropy, Oracle::cross_entropy<double>(widen(positive), view)) <
             1e-5);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(attention, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const std::tuple<index_t, index_t, index_t, index_t> shapes[] = {{3, 2, 5, 8},
                                                                   {2, 3, 64, 16},
                                                                   {1, 2, 65, 7},
                                                                   {1, 1, 700, 64}};
  for (const auto& [windows, heads, seqlen, width] : shapes) {
    const index_t rows = windows * seqlen, cols = heads * width;
    const auto Q = random_matrix<S>(rows, cols, 7), K = random_matrix<S>(rows, cols, 8);
    const auto V = random_matrix<S>(rows, cols, 9);
    const auto q = upload<B>(Q), k = upload<B>(K), v = upload<B>(V);
    auto out = upload<B>(undefined<S>(rows, cols));
    Matrix<double> expected(rows, cols);
    const auto shape = plain_attention(heads, width, seqlen);
    B::template attention<S>(out.view(), q.view(), k.view(), v.view(), {}, shape);
    Oracle::attention<double>(expected, widen(Q), widen(K), widen(V), {}, shape);
    // Both the weights and the result are rounded; |v| stays below 5.
    BOOST_TEST(distance(download<B>(out), expected) < 8 * half_step<S>, "seqlen " << seqlen);
  }
}

// ---------------------------------------------------------------- models

BOOST_AUTO_TEST_CASE_TEMPLATE(random_models_have_the_same_bytes_everywhere, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  pare::Architecture config = small_config();
  config.embedding_size = 20;
  config.tie_word_embeddings = false;
  const auto model = pare::random_model<B, S>(config, 7),
             other = pare::random_model<B, S>(config, 8);
  const auto expected = pare::random_model<Oracle, S>(config, 7);
  const auto wide = pare::random_model<B, float>(config, 7);
  const auto check = [](const auto& got, const auto& oracle) {
    const Matrix<S> bytes = download<B>(got);
    BOOST_TEST(bytes.size() > 0);
    BOOST_TEST(same_bytes(bytes, oracle));
  };
  check(model.embed_tokens, expected.embed_tokens);
  check(model.embed_positions, expected.embed_positions);
  check(model.project_in->weight, expected.project_in->weight);
  check(model.project_out->weight, expected.project_out->weight);
  check(model.untied_head, expected.untied_head);
  check(model.final_norm->weight, expected.final_norm->weight);
  BOOST_TEST(!same_bytes(download<B>(model.embed_tokens), download<B>(other.embed_tokens)));
  std::vector<std::vector<double>> seen;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const auto linears = model.layers[i].linears();
    const auto oracles = expected.layers[i].linears();
    const auto wides = wide.layers[i].linears();
    const auto names = pare::linear_names(config, index_t(i));
    for (std::size_t l = 0; l < linears.size(); ++l) {
      check(linears[l]->weight, oracles[l]->weight);
      check(linears[l]->bias, oracles[l]->bias);
      BOOST_TEST(linears[l]->name == names[l]);
      BOOST_TEST((linears[l]->dtype == pare::scalar_traits<S>::dtype));
      // The numbers of the float model, rounded.
      const Matrix<float> unrounded = download<B>(wides[l]->weight);
      const Matrix<S> rounded = download<B>(linears[l]->weight);
      double sum = 0, squares = 0;
      for (index_t k = 0; k < rounded.size(); ++k) {
        BOOST_REQUIRE(rounded.data()[k].bits == S(unrounded.data()[k]).bits);
        sum += unrounded.data()[k];
        squares += double(unrounded.data()[k]) * unrounded.data()[k];
      }
      const double count = double(rounded.size());
      BOOST_TEST(std::abs(sum / count) < 5 * 0.02 / std::sqrt(count));
      BOOST_TEST(std::abs(std::sqrt(squares / count) / 0.02 - 1) < 5 / std::sqrt(2 * count));
      seen.push_back(doubles(widen(rounded)));
      for (std::size_t before = 0; before + 1 < seen.size(); ++before)
        BOOST_TEST(seen[before] != seen.back());
    }
  }
}

BOOST_AUTO_TEST_CASE(shapes_of_published_models) {
  // Parameters as the publications count them, to three digits.
  const std::tuple<const char*, double> sizes[] = {{"opt-125m", 125e6},    {"opt-350m", 331e6},
                                                   {"opt-1.3b", 1.32e9},   {"opt-2.7b", 2.65e9},
                                                   {"opt-6.7b", 6.66e9},   {"opt-13b", 12.9e9},
                                                   {"opt-30b", 30.0e9},    {"opt-66b", 65.7e9},
                                                   {"opt-175b", 175e9},    {"llama-2-7b", 6.74e9},
                                                   {"llama-3-8b", 8.03e9}, {"mistral-7b", 7.24e9},
                                                   {"qwen3-8b", 8.19e9}};
  std::vector<std::string> names;
  for (const auto& [name, parameters] : sizes) {
    names.emplace_back(name);
    const pare::Architecture c = pare::named_shape(name);
    const double h = double(c.hidden_size), word = double(c.embedding_size);
    double count = double(c.vocab_size) * word * (c.tie_word_embeddings ? 1 : 2);
    if (c.positions == pare::PositionKind::learned)
      count += double(c.max_position_embeddings + c.position_offset) * h;
    if (c.projects_embeddings()) count += 2 * h * word;
    double layer = 2 * h * (c.norm == pare::NormKind::layer ? 2 : 1);
    for (const pare::LinearSpec& linear : c.linears) {
      const double rows = double(rows_of(c, linear.role));
      layer += rows * double(columns_of(c, linear.role)) + (linear.bias ? rows : 0);
    }
    count += double(c.num_hidden_layers) * layer;
    BOOST_TEST(std::abs(count / parameters - 1) < 0.01, name << ": " << count);
    BOOST_TEST(c.hidden_size % c.num_attention_heads == 0);
    BOOST_TEST(index_t(c.layers.size()) == c.num_hidden_layers);
  }
  BOOST_CHECK(names == pare::shape_names());
  BOOST_CHECK(pare::named_shape("opt-350m").norm_place == pare::NormPlace::after);
  BOOST_TEST(pare::named_shape("llama-3-8b").rotaries.at(0).theta == 5e5);
  BOOST_TEST(pare::named_shape("llama-3-8b").rotaries.at(0).width == 128);
  BOOST_TEST(pare::named_shape("mistral-7b").layers.at(31).window == 4096);
  BOOST_TEST(message_of<pare::argument_error>([] { pare::named_shape("opt-1b"); })
                 .starts_with("shape: expected one of opt-125m, opt-350m, opt-1.3b, opt-2.7b, "
                              "opt-6.7b, opt-13b, "));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(opt_tiny_agrees_with_float, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const fs::path folder = fs::path(test::examples_data) / "opt-tiny";
  const auto model = pare::load_model<B, S>(folder);
  const auto wide = pare::load_model<B, float>(folder);
  const ids_t ids = random_ids(3 * 128, 4096);
  const std::span<const std::int32_t> text(ids);
  const double got = pare::perplexity(model, text, 128);
  const double expected = pare::perplexity(wide, text, 128);
  BOOST_TEST(relative_difference(got, expected) < 0.01, got << " against " << expected);

  // H of the first and of the last layer.
  const auto hessians = [&]<class T>(const pare::LanguageModel<B, T>& m) {
    std::vector<Matrix<float>> result;
    pare::ModelWorkspace<B, T> workspace;
    typename B::template matrix<T> hidden;
    pare::embed(m, text, 128, workspace, hidden);
    for (const auto& layer : m.layers) {
      std::vector<pare::Calibration<B, float>> calibrations;
      pare::forward_layer(m, layer, hidden.view(), 128, workspace,
                          [&](index_t, MatrixView<const T> X) {
                            calibrations.emplace_back(X.cols);
                            calibrations.back().add(X, 3);
                          });
      if (&layer == &m.layers.front() || &layer == &m.layers.back())
        for (const auto& calibration : calibrations) result.push_back(calibration.hessian());
    }
    return result;
  };
  const auto narrow_h = hessians(model), wide_h = hessians(wide);
  BOOST_REQUIRE(narrow_h.size() == 8 && wide_h.size() == 8);
  const double limit = std::is_same_v<S, float16> ? 1e-3 : 16e-3;  // bfloat16 has three bits less
  for (std::size_t i = 0; i < narrow_h.size(); ++i) {
    const double error = relative_error(narrow_h[i], wide_h[i]);
    BOOST_TEST(error < limit, "H " << i << ": " << error);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(compression, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  using Config = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
  const pare::Architecture config = small_config();
  const pare::CalibrationWindows windows{random_ids(8 * 32, config.vocab_size), 32};
  const pare::ModelCompressionOptions options{.solver = {.sparsity = 0.5, .bits = 4},
                                              .batch_tokens = 96};
  const auto dense = pare::random_model<B, S>(config, 3);
  auto model = dense, again = dense;
  auto wide = pare::random_model<B, float>(config, 3);
  const auto statistics = pare::compress_model<Config>(model, windows, options);
  pare::compress_model<Config>(again, windows, options);
  const auto expected = pare::compress_model<Config>(wide, windows, options);
  BOOST_REQUIRE(statistics.linears.size() == 12);
  for (std::size_t i = 0; i < 12; ++i) {
    const auto& layer = statistics.linears[i];
    BOOST_TEST(layer.name == expected.linears[i].name);
    BOOST_TEST(layer.sparsity == expected.linears[i].sparsity);
    // A mask bit, 4 bits for every second weight, a grid per row; dense weights have 16 bits. Rows
    // of codes and of the mask are whole words.
    const double least = 3.0 * double(layer.weights()) + 24.0 * double(layer.rows);
    BOOST_TEST(layer.stored_bits >= least);
    BOOST_TEST(layer.stored_bits <= least + 62.0 * double(layer.rows));
    // Small linears: the activations' rounding moves some masks and with them some per cent.
    BOOST_TEST(relative_difference(layer.loss, expected.linears[i].loss) < 0.08);
    const std::size_t l = i % 6;
    const Matrix<S> Q = download<B>(model.layers[i / 6].linears()[l]->weight);
    BOOST_TEST(same_bytes(Q, download<B>(again.layers[i / 6].linears()[l]->weight)));
    index_t zeros = 0;
    for (index_t r = 0; r < Q.rows(); ++r) {
      std::vector<double> values;
      for (index_t c = 0; c < Q.cols(); ++c) {
        values.push_back(double(Q(r, c)));
        zeros += values.back() == 0;
      }
      std::sort(values.begin(), values.end());
      values.erase(std::unique(values.begin(), values.end()), values.end());
      BOOST_TEST(values.size() <= 16);
    }
    BOOST_TEST(2 * zeros >= Q.size());
    BOOST_TEST(layer.zeros == double(zeros) / double(Q.size()));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(numbers_beyond_the_type, C, Stored) {
  using B = typename C::backend;
  using S = typename C::scalar;
  SmallModel files;
  auto& bytes = files.tensors["layers.0.fc2.weight"].bytes;
  const float value = std::is_same_v<S, float16> ? 65520 : 3.4e38f;
  std::memcpy(bytes.data() + sizeof(float) * (3 * 20 + 7), &value, sizeof(value));
  const fs::path folder = files.write();
  const std::string message =
      message_of<pare::non_finite_error>([&] { pare::load_model<B, S>(folder); });
  BOOST_TEST(message ==
             (folder / "model.safetensors").string() +
                 ": tensor 'model.decoder.layers.0.fc2.weight': expected numbers within " +
                 std::string(pare::scalar_traits<S>::name) + ", got " + std::to_string(value) +
                 " at (3, 7)");
}

namespace {

/// A backend whose factorisations run out of memory after a while.
template <class Base>
struct RunsOut : Base {
  static inline int left = 0;
  template <class T>
  static auto start_inverse_factor(MatrixView<T> A) {
    if (left-- == 0) throw std::bad_alloc();
    return pare::detail::start_inverse_factor<Base>(A);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_failure_leaves_every_linear_whole, C, Stored) {
  using B = RunsOut<typename C::backend>;
  using S = typename C::scalar;
  using Config = pare::Compression<pare::Unstructured>;
  const pare::Architecture config = small_config();
  const pare::CalibrationWindows windows{random_ids(8 * 32, config.vocab_size), 32};
  const pare::ModelCompressionOptions options{.solver = {.sparsity = 0.5}};
  const auto dense = pare::random_model<B, S>(config, 3);
  auto whole = dense, broken = dense;
  B::left = 1000;
  pare::compress_model<Config>(whole, windows, options);
  B::left = 5;  // four per layer: out_proj of the second fails
  BOOST_CHECK_THROW(pare::compress_model<Config>(broken, windows, options), std::bad_alloc);
  for (std::size_t i = 0; i < 12; ++i) {
    const auto weight = [&](const auto& model) {
      return download<B>(model.layers[i / 6].linears()[i % 6]->weight);
    };
    BOOST_TEST(same_bytes(weight(broken), weight(i < 9 ? whole : dense)), "linear " << i);
    BOOST_TEST(!same_bytes(weight(whole), weight(dense)));
  }
}
