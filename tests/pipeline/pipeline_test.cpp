// Compression of whole models: the order of calibration and what is corrected for.
#define BOOST_TEST_MODULE pare_pipeline
#include <boost/test/unit_test.hpp>

#include "files.hpp"
#include "model_support.hpp"
#include "opt_architecture.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/level_swaps.hpp"
#include "pare/pipeline/planned_compression.hpp"
#include "pare/pipeline/sensitivity_json.hpp"
#include "pare/pipeline/text_windows.hpp"
#include "pare/report/json.hpp"
#include "pare/report/text.hpp"

using namespace pare;
using namespace test;

namespace {

using B = backend::Eigen;
using Model = LanguageModel<B, float>;
using Config = Compression<Unstructured, BaseQuantizer>;

Architecture small_config() { return opt_architecture(48, 96, 3, 3, 101, 32); }

CalibrationWindows random_windows(index_t count, unsigned seed) {
  CalibrationWindows windows;
  windows.seqlen = 32;
  std::mt19937 engine(seed);
  for (index_t i = 0; i < count * 32; ++i) windows.ids.push_back(std::int32_t(engine() % 101));
  return windows;
}

/// States after the last layer, (tokens, hidden).
Matrix<float> states_of(const Model& model, const CalibrationWindows& windows) {
  ModelWorkspace<B, float> workspace;
  Matrix<float> hidden;
  embed(model, std::span<const std::int32_t>(windows.ids), windows.seqlen, workspace, hidden);
  for (const auto& layer : model.layers)
    forward_layer(model, layer, hidden.view(), windows.seqlen, workspace);
  return hidden;
}

double squared_distance(const Matrix<float>& a, const Matrix<float>& b) {
  double sum = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double d = double(a.data()[i]) - double(b.data()[i]);
    sum += d * d;
  }
  return sum;
}

bool same_weights(const Model& a, const Model& b) {
  for (std::size_t i = 0; i < a.layers.size(); ++i)
    for (std::size_t l = 0; l < 6; ++l)
      if (squared_distance(a.layers[i].linears()[l]->weight, b.layers[i].linears()[l]->weight) > 0)
        return false;
  return true;
}

const ModelCompressionOptions plain{.solver = {.sparsity = 0.5, .bits = 3}, .batch_tokens = 96};

ModelCompressionOptions with(bool true_sequential, double asymmetric) {
  ModelCompressionOptions options = plain;
  options.true_sequential = true_sequential;
  options.asymmetric = asymmetric;
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(totals_weigh_linears_by_their_weights) {
  Statistics statistics;
  statistics.linears = {{.name = "a",
                         .rows = 2,
                         .columns = 8,
                         .channels = 2,
                         .bits_histogram = {{3, 1}, {4, 1}},
                         .average_bits = 3.5,
                         .score = {},
                         .sparsity = 0.5,
                         .zeros = 0.75,
                         .loss = 2,
                         .rounding_loss = 0.5,
                         .stored_bits = 64,
                         .seconds = 1},
                        {.name = "b",
                         .rows = 6,
                         .columns = 8,
                         .channels = 6,
                         .bits_histogram = {{4, 6}},
                         .average_bits = 4.0,
                         .score = {},
                         .sparsity = 0.25,
                         .zeros = 0.5,
                         .loss = 1,
                         .stored_bits = 256,
                         .seconds = 2}};
  const Totals t = totals(statistics);
  BOOST_TEST(t.linears == 2);
  BOOST_TEST(t.weights == 64);
  BOOST_TEST(t.channels == 8);
  BOOST_CHECK((t.bits_histogram == std::map<int, index_t>{{3, 1}, {4, 7}}));
  BOOST_TEST(*t.average_bits == 3.875);
  BOOST_TEST(t.sparsity == 0.3125);
  BOOST_TEST(t.zeros == 0.5625);
  BOOST_TEST(t.loss == 3);
  BOOST_TEST(t.rounding_loss == 0.5);
  BOOST_TEST(t.stored_bits_per_weight == 5);
  BOOST_TEST(t.seconds == 3);
  BOOST_TEST(!to_json(t).contains("added_bits_per_weight"));
  BOOST_TEST(contains(totals_text(statistics), "stored             5.000 bits per weight\n"));
  statistics.added_bits_per_weight = 1.25;
  BOOST_TEST(totals(statistics).stored_bits_per_weight == 6.25);
  BOOST_TEST(to_json(totals(statistics)).at("added_bits_per_weight") == 1.25);
  BOOST_TEST(
      contains(totals_text(statistics),
               "stored             6.250 bits per weight, 1.250 of them for the untied head\n"));
}

// Eight bits on grids of float32 scales are more digits than 16-bit types have.
BOOST_AUTO_TEST_CASE(the_loss_is_that_of_the_weights_in_the_type_that_is_stored) {
  Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(8, 1);
  using Round = Compression<Dense, BaseQuantizer>;
  ModelCompressionOptions options{.solver = {.bits = 8}};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const bool magnitude : {true, false}) {
      options.magnitude = magnitude;
      Model model = dense;
      for (auto& layer : model.layers)
        for (auto* linear : layer.linears()) {
          linear->dtype = dtype;
          for (index_t k = 0; k < linear->weight.size(); ++k)
            linear->weight.data()[k] = round_to(dtype, linear->weight.data()[k]);
        }
      const Model before = model;
      const Statistics statistics = compress_model<Round>(model, windows, options);
      const Totals sums = totals(statistics);
      BOOST_TEST((sums.rounding_loss > 0.01 * sums.loss) == (dtype == DType::bf16));
      if (dtype == DType::f32) BOOST_TEST(sums.rounding_loss == 0);
      BOOST_TEST(contains(totals_text(statistics), "by rounding") == (sums.rounding_loss != 0));
      const Json json = to_json(statistics);
      for (std::size_t l = 0; l < 6; ++l) {
        const LinearStatistics& linear = statistics.linears[l];
        BOOST_TEST(json["layers"][l].contains("rounding_loss") == (linear.rounding_loss != 0));
        Json record = record_json(linear);
        BOOST_TEST(linear_statistics_of_json(record).rounding_loss == linear.rounding_loss);
        record["bits_histogram"]["4x"] = 1;
        BOOST_TEST(message_of<format_error>([&] { linear_statistics_of_json(record); }) ==
                   linear.name + ": bits_histogram: expected a whole number, got '4x'");
        // Without calibration H is the identity, and 0.01 of it is added.
        if (magnitude)
          BOOST_TEST(
              relative_difference(linear.loss,
                                  0.5 * 1.01 *
                                      squared_distance(before.layers[0].linears()[l]->weight,
                                                       model.layers[0].linears()[l]->weight)) <
              2e-3);
      }
    }
}

// What true-sequential means, by calls of the plain pipeline that select one input's linears each.
BOOST_AUTO_TEST_CASE(true_sequential_calibrates_behind_the_linears_before) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(8, 1);
  Model at_once = dense, by_hand = dense;
  const Statistics statistics = compress_model<Config>(at_once, windows, with(true, 0));
  BOOST_TEST(statistics.linears.size() == 18);
  std::size_t at = 0;
  for (index_t i = 0; i < 3; ++i)
    for (const char* part : {"k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"}) {
      BOOST_TEST(statistics.linears[at++].name.find(part) != std::string::npos);
      // k, v and q read the same input, so that one at a time is no different.
      ModelCompressionOptions one = plain;
      one.selection = {.first_layer = i, .last_layer = i + 1, .name_part = part};
      compress_model<Config>(by_hand, windows, one);
    }
  BOOST_TEST(same_weights(at_once, by_hand));
  Model together = dense;
  compress_model<Config>(together, windows, plain);
  BOOST_TEST(!same_weights(at_once, together));
}

BOOST_AUTO_TEST_CASE(zeros_of_a_pruned_model_are_kept_on_request) {
  const CalibrationWindows windows = random_windows(8, 1);
  Model sparse = random_model<B, float>(small_config(), 3);
  compress_model<Compression<NofM<2, 4>>>(sparse, windows, {.solver = {}, .batch_tokens = 96});
  /// Zeros of the pruned model that a compression leaves, and all of them.
  const auto left_of = [&]<class Rounding>(std::type_identity<Rounding>, bool keep,
                                           const SolverOptions& solver, bool asymmetric = false) {
    Model model = sparse;
    const Statistics statistics = compress_model<Rounding>(model, windows,
                                                           {.solver = solver,
                                                            .asymmetric = asymmetric ? 0.5 : 0,
                                                            .keep_zeros = keep,
                                                            .batch_tokens = 96});
    index_t left = 0, all = 0;
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
      const auto before = sparse.layers[i].linears(), after = model.layers[i].linears();
      for (std::size_t l = 0; l < before.size(); ++l)
        for (index_t k = 0; k < before[l]->weight.size(); ++k)
          if (before[l]->weight.data()[k] == 0) {
            ++all;
            left += after[l]->weight.data()[k] == 0;
          }
    }
    if (keep)
      for (const LinearStatistics& linear : statistics.linears) BOOST_TEST(linear.sparsity >= 0.5);
    return std::pair(left, all);
  };
  using Round = std::type_identity<Compression<Dense, BaseQuantizer>>;
  const auto [lost, count] = left_of(Round{}, false, {.bits = 4});
  BOOST_TEST(lost < count);
  for (const bool asymmetric : {false, true}) {
    const auto [kept, all] = left_of(Round{}, true, {.bits = 4}, asymmetric);
    BOOST_TEST(kept == all);
  }
  const auto [more, all] =
      left_of(std::type_identity<Config>{}, true, {.sparsity = 0.6, .bits = 3});
  BOOST_TEST(more == all);
}

BOOST_AUTO_TEST_CASE(asymmetric_calibration_stays_closer_to_the_dense_model) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(64, 1), others = random_windows(16, 2);
  const auto distance = [&](const ModelCompressionOptions& options) {
    Model model = dense;
    const Statistics statistics = compress_model<Config>(model, windows, options);
    BOOST_TEST(statistics.linears.size() == 18);
    return squared_distance(states_of(model, others), states_of(dense, others));
  };
  const double sequential = distance(with(true, 0)), half = distance(with(true, 0.5)),
               whole = distance(with(true, 1));
  BOOST_TEST_MESSAGE("squared distance " << sequential << ", half " << half << ", whole " << whole);
  BOOST_TEST(half < 0.98 * sequential);
  BOOST_TEST(whole < 0.98 * sequential);

  // The first layer's q, k and v read what they read in the dense model.
  ModelCompressionOptions first = with(false, 1);
  first.selection = {.last_layer = 1, .name_part = "q_proj"};
  ModelCompressionOptions first_plain = first;
  first_plain.asymmetric = 0;
  Model a = dense, b = dense;
  compress_model<Config>(a, windows, first);
  compress_model<Config>(b, windows, first_plain);
  BOOST_TEST(same_weights(a, b));
  BOOST_TEST(!same_weights(a, dense));
}

BOOST_AUTO_TEST_CASE(progress_reaches_the_end) {
  for (const bool sequential : {false, true})
    for (const double share : {0.0, 0.5}) {
      Model model = random_model<B, float>(small_config(), 3);
      double last = 0;
      int linears = 0;
      ModelCompressionOptions options = with(sequential, share);
      options.selection = {.name_part = "fc"};  // some passes have nothing to do
      compress_model<Config>(model, random_windows(8, 1), options,
                             {[&](const LinearStatistics&) { ++linears; },
                              [&](double done) {
                                BOOST_TEST(done >= last);
                                last = done;
                              }});
      BOOST_TEST(std::abs(last - 1) < 1e-9);
      BOOST_TEST(linears == 6);
    }
}

BOOST_AUTO_TEST_CASE(options_that_cannot_be_met_are_refused) {
  Model model = random_model<B, float>(small_config(), 3);
  const Model before = model;
  for (const double share : {-0.5, 1.5, std::nan("")})
    BOOST_CHECK_THROW(compress_model<Config>(model, random_windows(2, 1), with(true, share)),
                      argument_error);
  ModelCompressionOptions magnitude = with(true, 0);
  magnitude.magnitude = true;
  BOOST_CHECK_THROW(compress_model<Config>(model, {}, magnitude), argument_error);
  magnitude = with(false, 0.5);
  magnitude.magnitude = true;
  BOOST_CHECK_THROW(compress_model<Config>(model, {}, magnitude), argument_error);
  BOOST_TEST(same_weights(model, before));
}

// ---------------------------------------------------------------- rotations

namespace {

/// The most different values, to rounding, that a row of W holds.
index_t values_of_a_row(const Matrix<float>& W) {
  index_t most = 0;
  for (index_t i = 0; i < W.rows(); ++i) {
    std::vector<float> row(W.view().row(i), W.view().row(i) + W.cols());
    std::sort(row.begin(), row.end());
    const float apart = 1e-4f * (row.back() - row.front());
    index_t values = 1;
    for (std::size_t j = 1; j < row.size(); ++j) values += row[j] - row[j - 1] > apart ? 1 : 0;
    most = std::max(most, values);
  }
  return most;
}

}  // namespace

BOOST_AUTO_TEST_CASE(grids_lie_in_the_turned_basis) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(8, 1);
  std::vector<const Matrix<float>*> before_of;
  for (const auto& layer : dense.layers)
    for (const auto* linear : layer.linears()) before_of.push_back(&linear->weight);
  ModelCompressionOptions options{.solver = {.bits = 3}, .batch_tokens = 96};
  options.rotation = kernels::HadamardRotation{5};
  for (const bool tricks : {false, true}) {
    options.true_sequential = tricks;
    options.asymmetric = tricks ? 0.5 : 0;
    Model model = dense;
    const Statistics statistics =
        compress_model<Compression<Dense, BaseQuantizer>>(model, windows, options);
    BOOST_TEST(totals(statistics).linears == 18);
    std::size_t k = 0;
    for (std::size_t i = 0; i < model.layers.size(); ++i)
      for (auto* linear : model.layers[i].linears()) BOOST_TEST_CONTEXT(linear->name) {
          Matrix<float> turned = linear->weight;
          BOOST_TEST(values_of_a_row(turned) > 8);
          Matrix<float> nothing(turned.rows(), turned.cols());
          nothing.fill(0);
          const Matrix<float>& before = *before_of[k++];
          BOOST_TEST(squared_distance(turned, before) < 0.2 * squared_distance(before, nothing));
          rotate_rows<B, float>(detail::as_const(turned.view()), turned.view(), *options.rotation);
          BOOST_TEST(values_of_a_row(turned) <= 8);
        }
  }
}

BOOST_AUTO_TEST_CASE(rotations_that_would_be_ignored_are_refused) {
  Model model = random_model<B, float>(small_config(), 3);
  const Model before = model;
  ModelCompressionOptions options = plain;
  options.rotation = kernels::HadamardRotation{5};
  options.keep_zeros = true;
  BOOST_CHECK_THROW(compress_model<Config>(model, random_windows(2, 1), options), argument_error);
  options.keep_zeros = false;
  options.magnitude = true;
  BOOST_CHECK_THROW(compress_model<Config>(model, {}, options), argument_error);
  BOOST_TEST(same_weights(model, before));
}

// ---------------------------------------------------------------- sensitivities and plans

namespace {

const std::vector<Pattern> three_patterns{{}, unstructured(0.5), n_of_m(2, 4)};

SensitivityOptions measuring(std::vector<Pattern> patterns = {Pattern{}}) {
  SensitivityOptions options;
  options.patterns = std::move(patterns);
  options.divergence_windows = 4;
  options.batch_tokens = 96;
  return options;
}

double code_bits(const Statistics& statistics) { return *totals(statistics).average_bits; }

double divergence_after(const Model& dense, const ModelPlan& plan,
                        const CalibrationWindows& windows, ReferencePredictions<Model>& from) {
  Model model = dense;
  compress_model(model, windows, {}, plan);
  return from.divergence(model);
}

}  // namespace

BOOST_AUTO_TEST_CASE(divergence_is_the_mean_of_kl) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(3, 7);
  ReferencePredictions<Model> reference(dense, windows.ids, 32);
  BOOST_TEST(reference.divergence(dense) < 1e-10);
  Model other = dense;
  compress_model<Config>(other, windows, plain);
  // By hand, in double.
  const auto logits_of = [&](const Model& model) {
    ModelWorkspace<B, float> workspace;
    const Matrix<float> hidden = states_of(model, windows);
    Matrix<double> logits(hidden.rows(), 101);
    head(model, hidden.view(), workspace, [&](index_t first, MatrixView<const float> chunk) {
      for (index_t t = 0; t < chunk.rows; ++t)
        for (index_t j = 0; j < 101; ++j) logits(first + t, j) = double(chunk(t, j));
    });
    for (index_t t = 0; t < logits.rows(); ++t) {
      double sum = 0;
      for (index_t j = 0; j < 101; ++j) sum += std::exp(logits(t, j));
      for (index_t j = 0; j < 101; ++j) logits(t, j) -= std::log(sum);
    }
    return logits;
  };
  const Matrix<double> p = logits_of(dense), q = logits_of(other);
  double expected = 0;
  for (index_t i = 0; i < p.size(); ++i)
    expected += std::exp(p.data()[i]) * (p.data()[i] - q.data()[i]) / double(p.rows());
  BOOST_TEST(expected > 1e-6);
  BOOST_TEST(relative_difference(reference.divergence(other), expected) < 1e-3);
  // From a layer in the middle, for a model that is dense before it.
  Model tail = dense;
  tail.layers[2] = other.layers[2];
  Matrix<float> states = states_of(dense, windows);
  {
    ModelWorkspace<B, float> workspace;
    embed(dense, std::span<const std::int32_t>(windows.ids), 32, workspace, states);
    for (std::size_t l = 0; l < 2; ++l)
      forward_layer(dense, dense.layers[l], states.view(), 32, workspace);
  }
  BOOST_TEST(reference.divergence(tail, 2, states.view()) == reference.divergence(tail));
  BOOST_CHECK_THROW((ReferencePredictions<Model>(dense, {}, 32)), argument_error);
}

BOOST_AUTO_TEST_CASE(sensitivities_leave_the_model_as_it_was) {
  Model model = random_model<B, float>(small_config(), 3);
  const Model before = model;
  const CalibrationWindows windows = random_windows(16, 1);
  const Sensitivities s = measure_sensitivities(model, windows, measuring(three_patterns));
  BOOST_TEST(same_weights(model, before));
  BOOST_REQUIRE_EQUAL(s.linears.size(), 18u);
  for (const LinearSensitivity& linear : s.linears) {
    BOOST_REQUIRE_EQUAL(linear.modes.size(), 3u);
    for (const ModeSensitivity& mode : linear.modes) {
      BOOST_TEST(mode.kept.size() == std::size_t(linear.rows));
      BOOST_TEST(mode.distortion.size() == std::size_t(5 * linear.rows));
      BOOST_TEST(mode.divergence.at(3) > 1e-12);
      double kept = 0;
      for (const double share : mode.kept) kept += share / double(linear.rows);
      BOOST_TEST(std::abs(kept - (mode.pattern.kind == PatternKind::dense ? 1 : 0.5)) < 1e-9);
    }
    BOOST_TEST(linear.modes[2].divergence.at(3) > linear.modes[0].divergence.at(3));
  }
  // What one of them says, by hand.
  ReferencePredictions<Model> reference(before, std::span(windows.ids).first(4 * 32), 32);
  Model one = before;
  ModelCompressionOptions options{.solver = {.bits = 3}};
  options.selection = {.first_layer = 1, .last_layer = 2, .name_part = "fc1"};
  // The first layer stays dense, so that its linears read what they read in the dense model.
  compress_model<Compression<Dense, BaseQuantizer>>(one, windows, options);
  for (const LinearSensitivity& linear : s.linears)
    if (linear.name == "layers.1.fc1")
      BOOST_TEST(relative_difference(linear.modes[0].divergence.at(3), reference.divergence(one)) <
                 1e-4);

  const Sensitivities again = measure_sensitivities(model, windows, measuring(three_patterns));
  BOOST_TEST(to_json(s) == to_json(again));
  // When it ends early.
  model.layers[2].at(LinearRole::down).weight(3, 5) = std::numeric_limits<float>::infinity();
  Model broken = model;
  BOOST_CHECK_THROW(measure_sensitivities(model, windows, measuring()), error);
  BOOST_TEST(squared_distance(model.layers[1].at(LinearRole::up).weight,
                              broken.layers[1].at(LinearRole::up).weight) == 0);
}

BOOST_AUTO_TEST_CASE(sensitivities_and_plans_lie_in_the_turned_basis) {
  Model model = random_model<B, float>(small_config(), 3);
  for (auto& layer : model.layers)  // outliers, which a rotation spreads
    for (auto* linear : layer.linears())
      for (index_t i = 0; i < linear->weight.rows(); ++i) linear->weight(i, 5) *= 20;
  const Model dense = model;
  const CalibrationWindows windows = random_windows(16, 1);
  SensitivityOptions measured = measuring();
  const Sensitivities plain_ones = measure_sensitivities(model, windows, measured);
  measured.rotation = kernels::HadamardRotation{std::uint64_t{1} << 40};
  const Sensitivities s = measure_sensitivities(model, windows, measured);
  BOOST_TEST(same_weights(model, dense));
  BOOST_TEST(s.model == plain_ones.model);
  BOOST_TEST(s.linears[0].modes[0].distortion[1] < plain_ones.linears[0].modes[0].distortion[1]);

  // The KL is that of the linear compressed alone in the same basis.
  ReferencePredictions<Model> reference(
      dense, std::span(windows.ids).first(std::size_t(s.divergence_windows * windows.seqlen)),
      windows.seqlen);
  ModelCompressionOptions options{.solver = {.bits = 3}, .rotation = measured.rotation};
  options.selection = {.first_layer = 1, .last_layer = 2, .name_part = "fc1"};
  compress_model<Compression<Dense, BaseQuantizer>>(model, windows, options);
  for (const LinearSensitivity& linear : s.linears)
    if (linear.name == "layers.1.fc1")
      BOOST_TEST(relative_difference(linear.modes[0].divergence.at(3),
                                     reference.divergence(model)) < 1e-4);

  BOOST_TEST(!to_json(plain_ones).contains("rotation_seed"));
  const Sensitivities read = sensitivities_of_json(to_json(s).dump());
  BOOST_TEST(to_json(read) == to_json(s));
  BOOST_CHECK_NO_THROW(require_measured_for(read, s.model, windows, measured));
  measured.rotation->seed = 2;
  BOOST_TEST(contains(message_of<argument_error>(
                          [&] { require_measured_for(read, s.model, windows, measured); }),
                      "another rotation"));

  // What is stored beside the linears is spent first.
  PlanOptions asked{PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits, 5.5};
  const ModelPlan all = plan_bits(s, asked);
  asked.added_bits_per_weight = 1.25;
  const ModelPlan rest = plan_bits(s, asked);
  asked = {PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits, 4.25};
  const ModelPlan less = plan_bits(s, asked);
  BOOST_TEST(rest.predicted_loss == less.predicted_loss);
  BOOST_TEST(rest.bits_per_weight == less.bits_per_weight + 1.25);
  BOOST_TEST(all.predicted_loss < rest.predicted_loss);
  asked = {PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits, 3.5, 1.25};
  const std::string narrow = message_of<unattainable_error>([&] { plan_bits(s, asked); });
  BOOST_TEST(contains(narrow, "takes with 1.25 for what is stored beside the linears, got 3.5"));

  model = dense;
  options.selection = {};
  options.solver = {};
  BOOST_TEST(
      message_of<argument_error>([&] { compress_model(model, windows, {}, less); }) ==
      "rotation: the plan is made for the rotation with seed 1099511627776, got no rotation");
  BOOST_TEST(same_weights(model, dense));
  const Statistics statistics = compress_model(model, windows, options, less);
  BOOST_TEST(totals(statistics).stored_bits_per_weight <= 4.25);
  Model unrotated = dense;
  compress_model(unrotated, windows, {},
                 plan_bits(plain_ones, {PlanScope::model, PlanObjective::divergence,
                                        BudgetKind::stored_bits, 4.25}));
  BOOST_TEST(reference.divergence(model) < reference.divergence(unrotated));
}

BOOST_AUTO_TEST_CASE(a_plan_chooses_the_basis_of_every_linear) {
  Model dense = random_model<B, float>(small_config(), 3);
  // Every second linear has weights that stretch its grids as it is, and none that stretch them
  // turned.
  for (auto& layer : dense.layers) {
    const auto linears = layer.linears();
    for (std::size_t l = 0; l < linears.size(); l += 2)
      for (index_t i = 0; i < linears[l]->weight.rows(); ++i) linears[l]->weight(i, 5) *= 20;
  }
  const CalibrationWindows windows = random_windows(16, 1);
  Model model = dense;
  SensitivityOptions measured = measuring({Pattern{}, unstructured(0.5)});
  const Sensitivities plain = measure_sensitivities(model, windows, measured);
  measured.rotation = kernels::HadamardRotation{5};
  const Sensitivities turned = measure_sensitivities(model, windows, measured);
  measured.choose_rotation = true;
  const Sensitivities both = measure_sensitivities(model, windows, measured);
  BOOST_TEST(same_weights(model, dense));
  // Modes are those of either alone; H of turned inputs comes from H, to rounding.
  for (std::size_t g = 0; g < both.linears.size(); ++g) {
    const std::vector<ModeSensitivity>& modes = both.linears[g].modes;
    BOOST_REQUIRE_EQUAL(modes.size(), 4u);
    for (std::size_t m = 0; m < 4; ++m) {
      const bool rotated = m >= 2;
      const ModeSensitivity& alone = (rotated ? turned : plain).linears[g].modes[m % 2];
      BOOST_TEST(modes[m].rotated == rotated);
      BOOST_CHECK(modes[m].pattern == alone.pattern);
      for (std::size_t k = 0; k < alone.distortion.size(); ++k)
        if (alone.pattern == Pattern{})
          BOOST_TEST(relative_difference(modes[m].distortion[k], alone.distortion[k]) < 1e-2);
      BOOST_TEST(relative_difference(modes[m].divergence.at(3), alone.divergence.at(3)) < 0.1);
    }
  }
  const Sensitivities read = sensitivities_of_json(to_json(both).dump());
  BOOST_TEST(to_json(read) == to_json(both));
  BOOST_CHECK_NO_THROW(require_measured_for(read, both.model, windows, measured));
  BOOST_TEST(contains(message_of<argument_error>(
                          [&] { require_measured_for(turned, both.model, windows, measured); }),
                      "another choice of rotations"));

  const PlanOptions asked{PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits,
                          3.5};
  const ModelPlan plan = plan_bits(both, asked);
  for (const Sensitivities* one : {&plain, &turned})
    BOOST_TEST(plan.predicted_loss <= plan_bits(*one, asked).predicted_loss * 1.02);
  const auto rotated = std::ranges::count_if(plan.linears, &LinearPlan::rotated);
  BOOST_TEST(rotated >= 3);
  BOOST_TEST(rotated < 18);
  ModelCompressionOptions options{.rotation = measured.rotation};
  for (const bool tricks : {false, true}) {
    options.true_sequential = tricks;
    options.asymmetric = tricks ? 0.5 : 0;
    model = dense;
    std::map<std::string, PackedLinear> packed;
    options.solver.grid.half_scale = true;
    CompressionProgress told;
    told.linear_packed = [&](const std::string& tensor, PackedLinear&& linear) {
      packed.emplace(tensor, std::move(linear));
    };
    const Statistics statistics = compress_model(model, windows, options, plan, told);
    BOOST_TEST(totals(statistics).stored_bits_per_weight <= 3.5);
    std::map<std::string, bool> planned;
    for (const LinearPlan& linear : plan.linears) planned[linear.name] = linear.rotated;
    for (const auto& layer : model.layers)
      for (const auto* linear : layer.linears()) BOOST_TEST_CONTEXT(linear->name) {
          PackedLinear& one = packed.at(linear->tensor);
          BOOST_TEST(one.rotation.has_value() == planned.at(linear->name));
          const Matrix<float>& W = linear->weight;
          Matrix<float> stored(W.rows(), W.cols()), nothing(W.rows(), W.cols());
          nothing.fill(0);
          index_rows(one, linear->name);
          unpack_rows(one, 0, stored.view());
          rotate_back(one, stored.view());
          BOOST_TEST(squared_distance(stored, W) < 1e-8 * squared_distance(nothing, W));
        }
  }
}

BOOST_AUTO_TEST_CASE(plans_keep_their_budget) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(16, 1);
  Model model = dense;
  const Sensitivities s = measure_sensitivities(model, windows, measuring());
  const Sensitivities joint = measure_sensitivities(model, windows, measuring(three_patterns));
  ReferencePredictions<Model> reference(dense, windows.ids, 32);
  for (const double target : {2.5, 3.0, 4.3}) {
    for (const PlanScope scope : {PlanScope::layer, PlanScope::model})
      for (const PlanObjective objective : {PlanObjective::distortion, PlanObjective::divergence}) {
        const ModelPlan plan = plan_bits(s, {scope, objective, BudgetKind::code_bits, target});
        Model compressed = dense;
        const Statistics statistics = compress_model(compressed, windows, {}, plan);
        BOOST_TEST(std::abs(code_bits(statistics) - plan.bits_per_weight) < 1e-9);
        BOOST_TEST(code_bits(statistics) <= target + 1e-9);
        BOOST_TEST(code_bits(statistics) > target - 0.02);
        BOOST_TEST(plan.bound <= plan.predicted_loss);
        BOOST_TEST(plan.predicted_loss <= *plan.uniform_loss * (1 + 1e-9));
        BOOST_TEST(*plan.uniform_bits == int(target));
        BOOST_TEST(!plan.uniform_kept);
        if (scope == PlanScope::layer)
          for (const LinearStatistics& layer : statistics.linears)
            BOOST_TEST(*layer.average_bits <= target + 1e-9);
        ModelPlan twice = plan;
        twice.linears.push_back(plan.linears[1]);
        BOOST_TEST(
            message_of<argument_error>([&] { compress_model(compressed, windows, {}, twice); }) ==
            "plan: expected every linear once, got " + plan.linears[1].name + " twice");
      }
    const ModelPlan stored = plan_bits(s, {PlanScope::model, PlanObjective::divergence,
                                           BudgetKind::stored_bits, target + 1});
    Model compressed = dense;
    const double measured =
        totals(compress_model(compressed, windows, {}, stored)).stored_bits_per_weight;
    // Nothing is pruned: what is stored is known before, but for widths that are all the same.
    double spared = 0;
    for (const LinearPlan& linear : stored.linears)
      if (merged_widths(linear.bits).size() == 1)
        spared += stored_width_bits * double(linear.bits.size());
    spared /= 3.0 * (4 * 48 * 48 + 2 * 48 * 96);
    BOOST_TEST(std::abs(measured + spared - stored.bits_per_weight) < 1e-5);
    BOOST_TEST(measured <= target + 1 + 1e-9);
  }
  // Masks are taken to fall as they were measured; padding of rows is taken at its largest, so that
  // what is stored stays within every target all the same.
  for (const double target : {2.9, 3.3, 3.5, 4.1, 4.9}) {
    const ModelPlan within = plan_bits(joint, {PlanScope::model, PlanObjective::divergence,
                                               BudgetKind::stored_bits, target});
    Model pruned = dense;
    BOOST_TEST(totals(compress_model(pruned, windows, {}, within)).stored_bits_per_weight <=
               target);
  }
  SensitivityOptions by_column = measuring(three_patterns);
  by_column.solver.axis = ChannelAxis::input;
  const Sensitivities columns = measure_sensitivities(model, windows, by_column);
  for (const double target : {6.1, 7.3}) {
    const ModelPlan within = plan_bits(columns, {PlanScope::model, PlanObjective::divergence,
                                                 BudgetKind::stored_bits, target});
    Model pruned = dense;
    BOOST_TEST(totals(compress_model(pruned, windows, {}, within)).stored_bits_per_weight <=
               target);
  }
  const ModelPlan chosen =
      plan_bits(joint, {PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits, 3.5});
  Model compressed = dense;
  const Statistics statistics = compress_model(compressed, windows, {}, chosen);
  BOOST_TEST(totals(statistics).stored_bits_per_weight <= 3.5);
  BOOST_TEST(chosen.predicted_loss <= plan_bits(s, {PlanScope::model, PlanObjective::divergence,
                                                    BudgetKind::stored_bits, 3.5})
                                              .predicted_loss *
                                          (1 + 1e-9));
  // Group sizes are chosen with their grids counted, in every linear by itself.
  Model outlying = dense;  // one input of each linear has weights that stretch the grid of a row
  for (auto& layer : outlying.layers)
    for (auto* linear : layer.linears())
      for (index_t i = 0; i < linear->weight.rows(); ++i) linear->weight(i, 5) *= 20;
  model = outlying;
  SensitivityOptions grouped = measuring();
  const Sensitivities of_rows = measure_sensitivities(model, windows, grouped);
  grouped.group_sizes = {0, 16, 8};
  const Sensitivities sizes = measure_sensitivities(model, windows, grouped);
  BOOST_TEST(sizes.linears.front().modes.size() == 3u);
  BOOST_TEST(sizes.linears.front().modes[0].distortion[2] >
             sizes.linears.front().modes[2].distortion[2]);
  for (const double target : {4.0, 5.5}) {
    const PlanOptions asked{PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits,
                            target};
    const ModelPlan plan = plan_bits(sizes, asked);
    BOOST_TEST(plan.predicted_loss < 0.9 * plan_bits(of_rows, asked).predicted_loss);
    Model small = outlying;
    const Statistics solved = compress_model(small, windows, {}, plan);
    BOOST_TEST(totals(solved).stored_bits_per_weight <= target);
    BOOST_TEST(totals(solved).stored_bits_per_weight > target - 0.1);
    for (std::size_t l = 0; l < solved.linears.size(); ++l)
      BOOST_TEST(solved.linears[l].group_size == plan.linears[l].group_size);
  }
  BOOST_TEST(contains(message_of<argument_error>([&] { plan_bits(sizes, {.bits_per_weight = 3}); }),
                      "several group sizes under a budget of code bits"));
  BOOST_TEST(to_json(sensitivities_of_json(to_json(sizes).dump())) == to_json(sizes));
  // Linears that programs load as one get one width together, the same for all their channels.
  PlanOptions free{PlanScope::model, PlanObjective::divergence, BudgetKind::stored_bits, 4.5};
  PlanOptions fused = free;
  for (index_t i = 0; i < dense.config.num_hidden_layers; ++i)
    for (auto& set : fused_linears(dense.config, i)) fused.together.push_back(std::move(set));
  BOOST_TEST(fused.together.size() == 4u * 3);  // q, k and v; out; fc1; fc2
  const ModelPlan one_each = plan_bits(sizes, fused);
  std::map<std::string, const LinearPlan*> planned;
  std::set<int> widths;
  for (const LinearPlan& linear : one_each.linears) {
    planned[linear.name] = &linear;
    widths.insert(linear.bits.front());
    BOOST_TEST(merged_widths(linear.bits).size() == 1u);
  }
  BOOST_TEST(widths.size() > 1u);
  for (const auto& set : fused.together)
    for (const std::string& name : set) {
      BOOST_TEST((planned.at(name)->bits == planned.at(set.front())->bits));
      BOOST_TEST(planned.at(name)->group_size == planned.at(set.front())->group_size);
    }
  BOOST_TEST(one_each.bits_per_weight <= 4.5);
  BOOST_TEST(one_each.predicted_loss >= plan_bits(sizes, free).predicted_loss);
  BOOST_TEST(one_each.predicted_loss <= *one_each.uniform_loss);
  fused.scope = PlanScope::layer;
  fused.bits_per_weight = 6;
  BOOST_TEST(plan_bits(sizes, fused).bits_per_weight <= 6);
  fused.together.push_back(fused.together.front());
  BOOST_CHECK_THROW(plan_bits(sizes, fused), argument_error);
  // Sizes that do not divide give way.
  const SensitivityOptions whole{.group_sizes = {64, 128, 32, 0}, .whole_groups = true};
  using Sizes = std::vector<index_t>;
  BOOST_TEST((measured_group_sizes(whole, 576) == Sizes{64, 64, 32, 0}));
  BOOST_TEST((measured_group_sizes(whole, 1536) == Sizes{64, 128, 32, 0}));
  BOOST_TEST((measured_group_sizes(whole, 48) == Sizes{32, 32, 32, 0}));
  BOOST_TEST(
      (measured_group_sizes({.group_sizes = {128, dividing_group_size}}, 576) == Sizes{128, 64}));
  BOOST_CHECK_THROW(plan_bits(s, {.bits_per_weight = 1.9}), unattainable_error);
  BOOST_CHECK_THROW(plan_bits({}, {.bits_per_weight = 3}), argument_error);
  SensitivityOptions without = measuring();
  without.divergence_widths = {};
  const Sensitivities none = measure_sensitivities(model, windows, without);
  BOOST_CHECK_THROW(plan_bits(none, {.bits_per_weight = 3}), argument_error);
  BOOST_CHECK_NO_THROW(
      plan_bits(none, {.objective = PlanObjective::distortion, .bits_per_weight = 3}));
}

BOOST_AUTO_TEST_CASE(trades_never_raise_the_kl_and_hold_the_budget) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(16, 1);
  Model model = dense;
  SensitivityOptions measured = measuring(three_patterns);
  const SwapOptions swaps{.swaps = 24, .windows = 8};
  index_t kept = 0;
  for (const bool one_layer : {false, true})
    for (const double target : {3.5, 4.5}) BOOST_TEST_CONTEXT(one_layer << ' ' << target) {
        // In the first layer alone every linear reads what it reads in the dense model.
        measured.selection.last_layer = one_layer ? 1 : 3;
        measured.rotation.reset();
        if (one_layer) measured.rotation = kernels::HadamardRotation{5};
        measured.choose_rotation = one_layer;
        const Sensitivities s = measure_sensitivities(model, windows, measured);
        const PlanOptions asked{PlanScope::model, PlanObjective::divergence,
                                BudgetKind::stored_bits, target};
        const ModelPlan plan = plan_bits(s, asked);
        const SwappedPlan swapped = swap_levels(model, windows, measured, s, plan, asked, swaps);
        BOOST_TEST(same_weights(model, dense));
        BOOST_TEST(swapped.tried == 24);
        BOOST_TEST(swapped.windows == 8);
        BOOST_TEST(swapped.swapped_divergence <= swapped.divergence);
        BOOST_TEST((swapped.swapped_divergence < swapped.divergence) == (swapped.kept > 0));
        BOOST_TEST(swapped.plan.bits_per_weight <= plan.bits_per_weight + 1e-9);
        BOOST_TEST(swapped.plan.predicted_loss >= swapped.plan.bound);
        kept += swapped.kept;
        ModelCompressionOptions options{.selection = measured.selection,
                                        .rotation = measured.rotation};
        Model compressed = dense;
        const Statistics statistics = compress_model(compressed, windows, options, swapped.plan);
        BOOST_TEST(totals(statistics).stored_bits_per_weight <= target);
        if (!one_layer) continue;
        ReferencePredictions<Model> reference(
            dense, std::span(windows.ids).first(std::size_t(8 * windows.seqlen)), windows.seqlen);
        BOOST_TEST(relative_difference(reference.divergence(compressed),
                                       swapped.swapped_divergence) < 1e-3);
        compressed = dense;
        compress_model(compressed, windows, options, plan);
        BOOST_TEST(relative_difference(reference.divergence(compressed), swapped.divergence) <
                   1e-3);
        const SwappedPlan again = swap_levels(model, windows, measured, s, plan, asked, swaps);
        for (std::size_t g = 0; g < plan.linears.size(); ++g)
          BOOST_TEST((again.plan.linears[g].bits == swapped.plan.linears[g].bits));

        PlanOptions by_layer = asked;
        by_layer.scope = PlanScope::layer;
        BOOST_CHECK_THROW(swap_levels(model, windows, measured, s, plan, by_layer, swaps),
                          argument_error);
        ModelPlan other = plan;
        other.linears.front().group_size = 7;
        BOOST_TEST(contains(message_of<argument_error>([&] {
                              swap_levels(model, windows, measured, s, other, asked, swaps);
                            }),
                            "were not measured"));
      }
  BOOST_TEST(kept > 0);
}

BOOST_AUTO_TEST_CASE(a_plan_for_the_model_beats_uniform_widths) {
  const Model dense = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(32, 1);
  Model model = dense;
  const Sensitivities s = measure_sensitivities(model, windows, measuring());
  ReferencePredictions<Model> reference(dense, windows.ids, 32);
  ModelPlan uniform = plan_bits(s, {.bits_per_weight = 3});
  for (LinearPlan& linear : uniform.linears) std::fill(linear.bits.begin(), linear.bits.end(), 3);
  const double best =
      divergence_after(dense, plan_bits(s, {.bits_per_weight = 3}), windows, reference);
  const double other = divergence_after(dense, uniform, windows, reference);
  BOOST_TEST_MESSAGE("divergence " << best << ", uniform " << other);
  BOOST_TEST(best < other);
}

BOOST_AUTO_TEST_CASE(options_and_patterns_survive_json) {
  for (const Pattern& pattern : three_patterns)
    BOOST_CHECK(pattern_of_json(Json::parse(to_json(pattern).dump()), "test") == pattern);
  BOOST_CHECK(Pattern(Dense{}) == Pattern{});
  BOOST_CHECK((Pattern(NofM<2, 4>{}) == n_of_m(2, 4)));
  BOOST_CHECK(Pattern(Unstructured{}).kind == PatternKind::unstructured);
  BOOST_CHECK(Pattern(NofM<>{}).kind == PatternKind::n_of_m);
  BOOST_CHECK(unstructured(0.5) != unstructured(0.25));
  BOOST_CHECK(n_of_m(2, 4) != n_of_m(4, 8));

  const CompressionRequest requests[] = {
      {},
      {.solver = {.sparsity = 0.29}},
      {.solver = {.zeros = 2, .of = 4, .damping = 0.001, .block_size = 33, .act_order = true}},
      {.solver = {.bits = 3, .grid = {.symmetric = true}}},
      {.solver = {.bits = 3, .grid = {.clip_search = true}}},
      {.solver = {.sparsity = 0.5, .bits = 3, .grid = {.half_scale = true}}},
      {PolicyKind::quantile, {.bits = 4, .target_average_bits = 3.7}},
      {PolicyKind::budget,
       {.sparsity = 0.5,
        .bits = 4,
        .target_average_bits = 2.5,
        .tiers = {{2, 3, 5}},
        .axis = ChannelAxis::input}},
      {.solver = {.bits = 3, .group_size = 64, .group_fit = GroupFit::compensated}}};
  for (const CompressionRequest& a : requests) {
    const Json json = to_json(a);
    BOOST_TEST_INFO(json.dump());
    BOOST_CHECK(request_of_json(Json::parse(json.dump()), "test") == a);
    for (const CompressionRequest& b : requests) BOOST_CHECK((a == b) == (&a == &b));
  }
  // The keys of reports, in their order, as they always were.
  BOOST_TEST(to_json(requests[7]).dump() ==
             "{\"sparsity\":0.5,\"prunen\":null,\"prunem\":null,\"wbits\":4,"
             "\"target_avg_bits\":2.5,\"bit_method\":\"budget\",\"tiers\":[2,3,5],"
             "\"axis\":\"input\",\"act_order\":false,\"clip_search\":false,\"symmetric\":false,"
             "\"percdamp\":0.01,\"blocksize\":128}");
  const Json good = Json::parse(to_json(requests[7]).dump());
  Json wrong = good;
  wrong["axis"] = "depth";
  BOOST_TEST(message_of<format_error>([&] { request_of_json(wrong, "report.json"); }) ==
             "report.json: axis: expected output or input, got \"depth\"");
  wrong = good;
  wrong["bit_method"] = "luck";
  BOOST_TEST(message_of<format_error>([&] { request_of_json(wrong, "report.json"); }) ==
             "report.json: bit_method: expected quantile, budget or null, got \"luck\"");
  wrong = good;
  wrong["blocksize"] = 1e30;
  BOOST_CHECK_THROW(request_of_json(wrong, "report.json"), format_error);

  const SolverOptions left = without_choices(requests[7].solver);
  BOOST_CHECK((left == SolverOptions{.axis = ChannelAxis::input}));
  BOOST_CHECK(with_pattern(left, n_of_m(2, 4)).of == 4);
  BOOST_CHECK(pattern_of(with_pattern(requests[7].solver, n_of_m(2, 4))) == n_of_m(2, 4));
}

BOOST_AUTO_TEST_CASE(sensitivities_survive_a_file) {
  Model model = random_model<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(8, 1);
  const SensitivityOptions options = measuring(three_patterns);
  const Sensitivities s = measure_sensitivities(model, windows, options);
  const std::string text = to_json(s).dump();
  const Sensitivities read = sensitivities_of_json(text);
  BOOST_TEST(to_json(read).dump() == text);
  BOOST_CHECK(read.solver == s.solver);
  Sensitivities half = s;
  half.solver.grid.half_scale = true;
  BOOST_TEST(!contains(text, "half_scale"));
  BOOST_CHECK(sensitivities_of_json(to_json(half).dump()).solver == half.solver);
  const std::uint64_t fingerprint = model_fingerprint(model);
  BOOST_CHECK_NO_THROW(require_measured_for(read, fingerprint, windows, options));

  const auto refusal = [&](std::uint64_t other_model, const CalibrationWindows& other_windows,
                           const SensitivityOptions& other) {
    return message_of<argument_error>(
        [&] { require_measured_for(read, other_model, other_windows, other); });
  };
  BOOST_TEST(contains(refusal(fingerprint + 1, windows, options), "another model"));
  CalibrationWindows moved = windows;
  moved.ids[5] = (moved.ids[5] + 1) % 101;
  BOOST_TEST(contains(refusal(fingerprint, moved, options), "another calibration text"));
  BOOST_TEST(contains(refusal(fingerprint, random_windows(9, 1), options), "windows: expected 9"));
  SensitivityOptions other = options;
  other.solver.act_order = true;
  BOOST_TEST(contains(refusal(fingerprint, windows, other), "another act_order"));
  other = options;
  other.solver.grid.clip_search = true;
  BOOST_TEST(refusal(fingerprint, windows, other) ==
             "sensitivities: measured with another clip_search: expected true, found false");
  other = options;
  other.solver.grid.half_scale = true;
  BOOST_TEST(contains(refusal(fingerprint, windows, other), "another half_scale"));
  other = options;
  other.patterns = {Pattern{}};
  BOOST_TEST(contains(refusal(fingerprint, windows, other), "sparsity pattern"));
  other = options;
  other.divergence_widths = {2};
  BOOST_TEST(contains(refusal(fingerprint, windows, other), "at 2 bits"));
  model.layers[0].at(LinearRole::up).weight(0, 0) += 1;
  BOOST_TEST(model_fingerprint(model) != fingerprint);

  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"version\":1", "\"version\":2"},
           {"\"axis\":\"output\"", "\"axis\":\"depth\""},
           {"\"rows\":48", "\"rows\":47"},
           {"\"widths\":[2,", "\"widths\":[1,2,"},
           {"\"damping\"", "\"dumping\""},
           {"{\"version\"", "[\"version\""},
           {"\"columns\":48", "\"columns\":9000000000000000000"},
           {"\"seqlen\":", "\"seqlen\":1e300,\"was\":"},
           {"\"model\":\"", "\"model\":\"0"},
           {"\"model\":\"", "\"model\":\"-"},
           {"\"text\":\"", "\"text\":\" "},
           {"\"divergence\":{\"3", "\"divergence\":{\"3 "},
           {"\"divergence\":{\"3", "\"divergence\":{\"-3"},
           {"\"divergence\":{\"3", "\"divergence\":{\"3.0"},
           {"\"divergence\":{\"3", "\"divergence\":{\"300"},
           {"\"divergence\":{\"3", "\"divergence\":{\"x"}}) {
    std::string broken = text;
    const std::size_t at = broken.find(from);
    BOOST_REQUIRE(at != std::string::npos);
    broken.replace(at, from.size(), to);
    BOOST_TEST_INFO(to);
    BOOST_CHECK(contains(message_of<format_error>([&] { sensitivities_of_json(broken); }),
                         "sensitivities: "));
  }

  // JSON has no infinity; what was measured comes back all the same.
  Sensitivities infinite = s;
  infinite.linears[1].modes[0].divergence[3] = std::numeric_limits<double>::infinity();
  infinite.linears[2].modes[0].distortion[1] = std::numeric_limits<double>::quiet_NaN();
  const Sensitivities again = sensitivities_of_json(to_json(infinite).dump());
  BOOST_TEST(std::isinf(again.linears[1].modes[0].divergence.at(3)));
  BOOST_TEST(std::isnan(again.linears[2].modes[0].distortion[1]));

  const Folder folder;
  const std::filesystem::path file = folder / "cut.json";
  test::write_text(file, text.substr(0, text.size() / 2));
  BOOST_TEST(contains(message_of<format_error>([&] { read_sensitivities(file); }),
                      file.string() + ": sensitivities: not valid JSON at byte "));
  test::write_text(file, "{}");
  BOOST_TEST(contains(message_of<format_error>([&] { read_sensitivities(file); }),
                      file.string() + ": sensitivities: a member is missing"));
}

BOOST_AUTO_TEST_CASE(a_text_becomes_windows_of_the_model) {
  const std::filesystem::path folder = std::filesystem::path(test::examples_data) / "opt-tiny";
  const Architecture config = load_architecture(folder);
  const Tokenizer tokenizer = load_tokenizer(folder, config);
  const std::string text = read_text(folder.parent_path() / "sampled.calib.txt").substr(0, 9000);
  const std::vector<std::int32_t> ids = token_ids(tokenizer, config, text);

  // All that fit, in order; the rest of the text is dropped.
  const CalibrationWindows all = text_windows(tokenizer, config, text);
  BOOST_TEST(all.seqlen == config.max_position_embeddings);
  BOOST_TEST(all.count() == index_t(ids.size()) / all.seqlen);
  BOOST_TEST(all.count() > 4);
  BOOST_TEST(index_t(all.ids.size()) == all.count() * all.seqlen);
  BOOST_CHECK(std::equal(all.ids.begin(), all.ids.end(), ids.begin()));
  BOOST_TEST(all.ids.front() == config.bos_token_id);

  const CalibrationWindows three = text_windows(tokenizer, config, text, 3);
  BOOST_TEST(three.count() == 3);
  BOOST_CHECK(std::equal(three.ids.begin(), three.ids.end(), ids.begin()));
  const CalibrationWindows short_ones = first_windows(ids, 5, 16);
  BOOST_TEST(short_ones.count() == 5);
  BOOST_TEST(short_ones.ids.size() == 80u);

  const auto message = [](const auto& f) { return message_of<argument_error>(f); };
  BOOST_TEST(test::contains(message([&] { text_windows(tokenizer, config, "Short."); }),
                            "ids: expected at least one window of 256 tokens, got "));
  BOOST_TEST(test::contains(message([&] { text_windows(tokenizer, config, text, 0); }),
                            "count: expected at least 1 window, got 0"));
  BOOST_TEST(test::contains(message([&] { first_windows(ids, 1, 1); }),
                            "seqlen: expected at least 2 tokens, got 1"));
}
