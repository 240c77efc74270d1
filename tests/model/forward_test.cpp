// Every backend's forward pass: primitives against plain loops in double, models against published
// values.
#define BOOST_TEST_MODULE pare_forward
#include <boost/test/unit_test.hpp>

#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "model_support.hpp"

using namespace test;

namespace {

/// What a result must overwrite: NaN everywhere.
template <class T>
Matrix<T> undefined(index_t rows, index_t cols) {
  Matrix<T> m(rows, cols);
  m.fill(std::numeric_limits<T>::quiet_NaN());
  return m;
}

}  // namespace

// ---------------------------------------------------------------- primitives

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
      B::template causal_attention<T>(out.view(), q.view(), k.view(), v.view(), heads, seqlen);
      Oracle::causal_attention<double>(expected, widen(Q), widen(K), widen(V), heads, seqlen);
      BOOST_TEST_CONTEXT("seqlen " << seqlen << " scale " << scale)
      BOOST_TEST(distance(download<B>(out), expected) < rounding<T> * scale);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(element_wise, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  auto X = random_matrix<T>(35, 19, 10);
  const auto A = random_matrix<T>(35, 19, 11);
  const auto a = upload<B>(A);
  auto on_y = upload<B>(X);
  B::template add<T>(on_y.view(), a.view());
  Matrix<T> Y = download<B>(on_y);
  for (index_t i = 0; i < X.size(); ++i)
    BOOST_REQUIRE_EQUAL(Y.data()[i], X.data()[i] + A.data()[i]);
  X(3, 3) = std::numeric_limits<T>::quiet_NaN();
  on_y = upload<B>(X);
  B::template relu<T>(on_y.view());
  Y = download<B>(on_y);
  BOOST_TEST(std::isnan(Y(3, 3)));  // hidden by no rounding up to zero
  X(3, 3) = Y(3, 3) = 0;
  for (index_t i = 0; i < X.size(); ++i)
    BOOST_REQUIRE_EQUAL(Y.data()[i], std::max(T(0), X.data()[i]));

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

BOOST_AUTO_TEST_CASE_TEMPLATE(variants_of_the_architecture, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const nlohmann::json variants[] = {
      nlohmann::json::object(),
      {{"do_layer_norm_before", false}},
      {{"_remove_final_layer_norm", true}},
      {{"enable_bias", false}},
      {{"layer_norm_elementwise_affine", false}},
      {{"tie_word_embeddings", false}},
      {{"word_embed_proj_dim", 5}},
      {{"word_embed_proj_dim", 15},
       {"do_layer_norm_before", false},
       {"enable_bias", false},
       {"layer_norm_elementwise_affine", false},
       {"tie_word_embeddings", false}},
  };
  const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2, 3, 4, 5, 6, 11, 12};  // two windows of 7
  Matrix<double> first;
  for (const auto& variant : variants) {
    const SmallModel files(variant);
    const fs::path folder = files.write();
    const auto logits = run_model(pare::load_opt<B, T>(folder), ids, 7);
    const auto expected = run_model(pare::load_opt<Oracle, double>(folder), ids, 7);
    BOOST_TEST_CONTEXT(variant.dump()) {
      BOOST_TEST(distance(logits, expected) < 20 * rounding<T>);
      if (first.size() == 0)
        first = expected;
      else
        BOOST_TEST(distance(first, expected) > 1e-3);  // every variant does something
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(windows_and_positions_are_independent, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using View = MatrixView<const T>;
  const SmallModel files;
  const auto model = pare::load_opt<B, T>(files.write());
  const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2, 3, 4};
  const auto both = run_model(model, ids, 5);
  for (const index_t w : {0, 1}) {
    ids_t window(ids.begin() + w * 5, ids.begin() + w * 5 + 5);
    const auto alone = run_model(model, window, 5);
    BOOST_TEST(distance(View(both).block(w * 5, 0, 5, 17), View(alone)) < rounding<T>);
    window[4] = 9;  // what comes later changes nothing before it
    const auto changed = run_model(model, window, 5);
    BOOST_TEST(distance(View(changed).block(0, 0, 4, 17), View(alone).block(0, 0, 4, 17)) <
               rounding<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(taps, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const bool norm_first : {true, false}) {
    const SmallModel files(nlohmann::json{{"do_layer_norm_before", norm_first}});
    const auto model = pare::load_opt<B, T>(files.write());
    const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2};
    pare::OptWorkspace<B, T> workspace;
    typename B::template matrix<T> hidden;
    pare::embed(model, std::span<const std::int32_t>(ids), 4, workspace, hidden);
    const Matrix<T> before = download<B>(hidden);
    std::vector<std::pair<pare::LayerInput, Matrix<T>>> partial, whole;
    const auto into = [](auto& list) {
      return [&list](pare::LayerInput input, MatrixView<const T> X) {
        list.emplace_back(input, B::to_host(X));
      };
    };
    const auto& layer = model.layers[0];
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(partial),
                        pare::LayerRun::to_fc2);
    BOOST_TEST(distance(download<B>(hidden), before) == 0);
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(whole));
    BOOST_TEST(distance(download<B>(hidden), before) > 1e-3);
    auto untapped = upload<B>(before);
    pare::forward_layer(model, layer, untapped.view(), 4, workspace);
    BOOST_TEST(distance(download<B>(hidden), download<B>(untapped)) == 0);

    BOOST_REQUIRE(partial.size() == 4 && whole.size() == 4);
    const std::pair<pare::LayerInput, index_t> expected[] = {{pare::LayerInput::qkv, 12},
                                                             {pare::LayerInput::out_proj, 12},
                                                             {pare::LayerInput::fc1, 12},
                                                             {pare::LayerInput::fc2, 20}};
    for (std::size_t i = 0; i < 4; ++i) {
      BOOST_TEST((whole[i].first == expected[i].first && partial[i].first == expected[i].first));
      BOOST_TEST(whole[i].second.rows() == 8);
      BOOST_TEST(whole[i].second.cols() == expected[i].second);
      BOOST_TEST(distance(whole[i].second, partial[i].second) == 0);
    }
    // The tapped values are what the products read.
    const auto read = upload<B>(whole[2].second);
    auto ffn = upload<B>(Matrix<T>(8, 20));
    B::template linear<T>(ffn.view(), read.view(), layer.fc1.weight.view(), layer.fc1.bias.view());
    B::template relu<T>(ffn.view());
    BOOST_TEST(distance(download<B>(ffn), whole[3].second) < rounding<T>);
    if (!norm_first) BOOST_TEST(distance(whole[0].second, before) == 0);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(perplexity_by_hand, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const SmallModel files;
  const auto model = pare::load_opt<B, T>(files.write());
  ids_t ids{2};
  for (int i = 0; i < 2500; ++i) ids.push_back((i * 7 + i / 5) % 17);  // two batches and a rest
  std::vector<index_t> seen;
  const double got =
      pare::perplexity(model, std::span<const std::int32_t>(ids), 4, [&](index_t d, index_t n) {
        seen.push_back(d);
        BOOST_TEST(n == 625);
      });
  BOOST_TEST((seen == std::vector<index_t>{512, 625}));
  const auto logits = run_model(model, ids_t(ids.begin(), ids.begin() + 2500), 4);
  double loss = 0;
  for (index_t t = 0; t < 2500; ++t) {
    if (t % 4 == 3) continue;
    double sum = 0;
    for (index_t j = 0; j < 17; ++j) sum += std::exp(double(logits(t, j)));
    loss += std::log(sum) - double(logits(t, ids[std::size_t(t + 1)]));
  }
  BOOST_TEST(std::abs(got / std::exp(loss / (625 * 3)) - 1) < rounding<T>);
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
        B::template causal_attention<T>(mixed.view(), q.view(), q.view(), q.view(), 3, tokens / 2);
        results.push_back(download<B>(mixed));
      }
    });
    if (one.empty()) one = results;
    for (std::size_t i = 0; i < one.size(); ++i)
      BOOST_TEST(same_bytes(one[i], results[i]), threads << " threads");
  }
}

// ---------------------------------------------------------------- published values

BOOST_AUTO_TEST_CASE_TEMPLATE(logits_of_opt_tiny, C, FloatCases) {
  using B = typename C::backend;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "forward.safetensors");
  const auto model = pare::load_opt<B, float>(model_folder("opt-tiny"));
  const ids_t ids = read_ids(golden, "tiny.input_ids");
  pare::OptWorkspace<B, float> workspace;
  typename B::template matrix<float> hidden;
  const auto check = [&](const char* name, double allowed) {
    BOOST_TEST(distance(download<B>(hidden), read_rows(golden, name)) < allowed);
  };
  pare::embed(model, std::span<const std::int32_t>(ids), 256, workspace, hidden);
  check("tiny.hidden0", 1e-6);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    pare::forward_layer(model, model.layers[i], hidden.view(), 256, workspace);
    if (i == 0) check("tiny.hidden1", 2e-3);
  }
  const auto logits = all_logits<B, float>(model, hidden.view(), workspace);
  pare::detail::apply<B, float>(*model.final_layer_norm, hidden.view(), hidden.view());
  check("tiny.hidden4", 2e-3);
  const auto last = read_rows(golden, "tiny.logits_last");
  const auto mid = read_rows(golden, "tiny.logits_mid");
  for (const index_t w : {0, 1}) {
    const auto at = [&](index_t position) {
      return MatrixView<const float>(logits.view().block(w * 256 + position, 0, 1, 4096));
    };
    const auto row = [&](const Matrix<float>& m) {
      return MatrixView<const float>(m.view().block(w, 0, 1, 4096));
    };
    BOOST_TEST(distance(at(255), row(last)) < 2e-3);
    BOOST_TEST(distance(at(100), row(mid)) < 2e-3);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(logits_of_opt_postln, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "forward.safetensors");
  const auto model = pare::load_opt<B, T>(model_folder("opt-postln"));
  const auto logits = run_model(model, read_ids(golden, "postln.input_ids"), 64);
  BOOST_TEST(distance(logits, read_rows(golden, "postln.logits")) < 2e-3);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(perplexity_of_opt_tiny_agrees_with_the_oracle, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const fs::path folder = fs::path(test::examples_data) / "opt-tiny";
  std::mt19937 engine(1);
  ids_t ids(3 * 128);
  for (std::int32_t& id : ids) id = std::int32_t(engine() % 4096);
  const auto measure = [&](const auto& model) {
    return pare::perplexity(model, std::span<const std::int32_t>(ids), 128);
  };
  static const double expected = measure(pare::load_opt<Oracle, double>(folder));
  const double got = measure(pare::load_opt<B, T>(folder));
  BOOST_TEST(relative_difference(got, expected) < 10 * rounding<T>);
}
