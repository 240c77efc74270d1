// Compression of whole models: the order of calibration and what is corrected for.
#define BOOST_TEST_MODULE pare_pipeline
#include <boost/test/unit_test.hpp>

#include "model_support.hpp"
#include "pare/model/opt_random.hpp"
#include "pare/pipeline/compress.hpp"

using namespace pare;
using namespace test;

namespace {

using B = backend::Eigen;
using Model = OptModel<B, float>;
using Config = Compression<Unstructured, BaseQuantizer>;

OptConfig small_config() {
  OptConfig config;
  config.hidden_size = config.word_embed_proj_dim = 48;
  config.ffn_dim = 96;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 3;
  config.vocab_size = 101;
  config.max_position_embeddings = 32;
  return config;
}

CalibrationWindows random_windows(index_t count, unsigned seed) {
  CalibrationWindows windows;
  windows.seqlen = 32;
  std::mt19937 engine(seed);
  for (index_t i = 0; i < count * 32; ++i) windows.ids.push_back(std::int32_t(engine() % 101));
  return windows;
}

/// States after the last layer, (tokens, hidden).
Matrix<float> states_of(const Model& model, const CalibrationWindows& windows) {
  OptWorkspace<B, float> workspace;
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

// What true-sequential means, by calls of the plain pipeline that select one input's linears each.
BOOST_AUTO_TEST_CASE(true_sequential_calibrates_behind_the_linears_before) {
  const Model dense = random_opt<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(8, 1);
  Model at_once = dense, by_hand = dense;
  const Statistics statistics = compress_model<Config>(at_once, windows, with(true, 0));
  BOOST_TEST(statistics.layers.size() == 18);
  std::size_t at = 0;
  for (index_t i = 0; i < 3; ++i)
    for (const char* part : {"k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"}) {
      BOOST_TEST(statistics.layers[at++].name.find(part) != std::string::npos);
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

BOOST_AUTO_TEST_CASE(asymmetric_calibration_stays_closer_to_the_dense_model) {
  const Model dense = random_opt<B, float>(small_config(), 3);
  const CalibrationWindows windows = random_windows(64, 1), others = random_windows(16, 2);
  const auto distance = [&](const ModelCompressionOptions& options) {
    Model model = dense;
    const Statistics statistics = compress_model<Config>(model, windows, options);
    BOOST_TEST(statistics.layers.size() == 18);
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
      Model model = random_opt<B, float>(small_config(), 3);
      double last = 0;
      int linears = 0;
      ModelCompressionOptions options = with(sequential, share);
      options.selection = {.name_part = "fc"};  // some passes have nothing to do
      compress_model<Config>(model, random_windows(8, 1), options,
                             {[&](const LayerStatistics&) { ++linears; },
                              [&](double done) {
                                BOOST_TEST(done >= last);
                                last = done;
                              }});
      BOOST_TEST(std::abs(last - 1) < 1e-9);
      BOOST_TEST(linears == 6);
    }
}

BOOST_AUTO_TEST_CASE(options_that_cannot_be_met_are_refused) {
  Model model = random_opt<B, float>(small_config(), 3);
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
