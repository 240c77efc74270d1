// Every backend's forward pass against the oracle's and against published values.
#define BOOST_TEST_MODULE pare_forward
#include <boost/test/unit_test.hpp>

#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "model_support.hpp"
#include "opt_architecture.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/level_swaps.hpp"
#include "pare/pipeline/planned_compression.hpp"

using namespace test;

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
    const auto logits = run_model(pare::load_model<B, T>(folder), ids, 7);
    const auto expected = run_model(pare::load_model<Oracle, double>(folder), ids, 7);
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
  const auto model = pare::load_model<B, T>(files.write());
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
    const auto model = pare::load_model<B, T>(files.write());
    const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2};
    pare::ModelWorkspace<B, T> workspace;
    typename B::template matrix<T> hidden;
    pare::embed(model, std::span<const std::int32_t>(ids), 4, workspace, hidden);
    const Matrix<T> before = download<B>(hidden);
    std::vector<std::pair<index_t, Matrix<T>>> partial, whole;
    const auto into = [](auto& list) {
      return [&list](index_t input, MatrixView<const T> X) {
        list.emplace_back(input, B::to_host(X));
      };
    };
    const auto& layer = model.layers[0];
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(partial), pare::down_input);
    BOOST_TEST(distance(download<B>(hidden), before) == 0);
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(whole));
    BOOST_TEST(distance(download<B>(hidden), before) > 1e-3);
    auto untapped = upload<B>(before);
    pare::forward_layer(model, layer, untapped.view(), 4, workspace);
    BOOST_TEST(distance(download<B>(hidden), download<B>(untapped)) == 0);

    BOOST_REQUIRE(partial.size() == 4 && whole.size() == 4);
    const std::pair<index_t, index_t> expected[] = {{pare::attention_input, 12},
                                                    {pare::out_input, 12},
                                                    {pare::feed_forward_input, 12},
                                                    {pare::down_input, 20}};
    for (std::size_t i = 0; i < 4; ++i) {
      BOOST_TEST((whole[i].first == expected[i].first && partial[i].first == expected[i].first));
      BOOST_TEST(whole[i].second.rows() == 8);
      BOOST_TEST(whole[i].second.cols() == expected[i].second);
      BOOST_TEST(distance(whole[i].second, partial[i].second) == 0);
    }
    for (std::size_t stop = 0; stop < 4; ++stop) {
      partial.clear();
      auto left = upload<B>(before);
      pare::forward_layer(model, layer, left.view(), 4, workspace, into(partial), index_t(stop));
      BOOST_REQUIRE(partial.size() == stop + 1);
      BOOST_TEST(distance(partial[stop].second, whole[stop].second) == 0);
      BOOST_TEST(distance(download<B>(left), before) == 0);
    }
    // The tapped values are what the products read.
    const auto read = upload<B>(whole[2].second);
    auto ffn = upload<B>(Matrix<T>(8, 20));
    const auto& up = layer.at(pare::LinearRole::up);
    B::template linear<T>(ffn.view(), read.view(), up.weight.view(), up.bias.view());
    B::for_each_element(8, 20,
                        pare::kernels::Activate<T>{ffn.view(), pare::kernels::Activation::relu});
    BOOST_TEST(distance(download<B>(ffn), whole[3].second) < rounding<T>);
    if (!norm_first) BOOST_TEST(distance(whole[0].second, before) == 0);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(perplexity_by_hand, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const SmallModel files;
  const auto model = pare::load_model<B, T>(files.write());
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

// ---------------------------------------------------------------- published values

BOOST_AUTO_TEST_CASE_TEMPLATE(logits_of_opt_tiny, C, FloatCases) {
  using B = typename C::backend;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "forward.safetensors");
  const auto model = pare::load_model<B, float>(model_folder("opt-tiny"));
  const ids_t ids = read_ids(golden, "tiny.input_ids");
  pare::ModelWorkspace<B, float> workspace;
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
  pare::detail::apply<B, float>(model.config, *model.final_norm, hidden.view(), hidden.view());
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
  const auto model = pare::load_model<B, T>(model_folder("opt-postln"));
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
  static const double expected = measure(pare::load_model<Oracle, double>(folder));
  const double got = measure(pare::load_model<B, T>(folder));
  BOOST_TEST(relative_difference(got, expected) < 10 * rounding<T>);
}

#ifndef PARE_TEST_QUICK  // many solvers to compile
BOOST_AUTO_TEST_CASE_TEMPLATE(a_plan_with_trades_on_every_backend, C, FloatCases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using Model = pare::LanguageModel<B, T>;
  const Model dense = pare::random_model<B, T>(opt_architecture(48, 96, 3, 3, 101, 32), 3);
  pare::CalibrationWindows windows;
  windows.seqlen = 32;
  for (std::int32_t i = 0; i < 8 * 32; ++i) windows.ids.push_back((i * 37 + i / 5) % 101);
  pare::SensitivityOptions measured;
  measured.patterns = {pare::Pattern{}, pare::unstructured(0.5)};
  measured.rotation = pare::kernels::HadamardRotation{5};
  measured.choose_rotation = true;
  Model model = dense;
  const pare::Sensitivities s = pare::measure_sensitivities(model, windows, measured);
  const pare::PlanOptions asked{.budget = pare::BudgetKind::stored_bits, .bits_per_weight = 4};
  const pare::ModelPlan plan = pare::plan_bits(s, asked);
  const pare::SwappedPlan swapped =
      pare::swap_levels(model, windows, measured, s, plan, asked, {.swaps = 8, .windows = 8});
  BOOST_TEST(swapped.tried == 8);
  BOOST_TEST(swapped.divergence > 0);
  BOOST_TEST(swapped.swapped_divergence <= swapped.divergence);
  BOOST_TEST(swapped.plan.bits_per_weight <= 4);
  pare::ModelCompressionOptions options;
  options.rotation = measured.rotation;
  const auto statistics = pare::compress_model(model, windows, options, swapped.plan);
  BOOST_TEST(pare::totals(statistics).stored_bits_per_weight <= 4);
  pare::ReferencePredictions<Model> reference(dense, windows.ids, 32);
  // Compressed one after the other they lose about what they lose by the moments of the dense model.
  const double after = reference.divergence(model);
  BOOST_TEST(after < 2 * swapped.swapped_divergence);
  BOOST_TEST(after > 0.5 * swapped.swapped_divergence);
}
#endif
