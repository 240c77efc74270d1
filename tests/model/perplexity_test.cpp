// Perplexity after compression against the published implementation's, as facts/reference.md of
// the shared data gives it. "--run_test=@slow" runs the whole table.
#define BOOST_TEST_MODULE pare_perplexity
#include <boost/test/unit_test.hpp>

#include <array>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "pare/model/load.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/tokenizer/tokenizer.hpp"
#include "support.hpp"

namespace fs = std::filesystem;
namespace utf = boost::unit_test;
/// The fastest of the backends this is compiled for.
using B = std::tuple_element_t<std::tuple_size_v<test::Backends> - 1, test::Backends>;
using Model = pare::LanguageModel<B, float>;
using pare::index_t;

namespace {

constexpr index_t calibration_windows = 128;
const std::array<const char*, 3> text_names{"wikitext2", "ptb", "c4"};

/// One row of the table: calibration text and configuration, perplexity per text.
struct Row {
  const char* calibration;  ///< empty: none is needed
  const char* configuration;
  std::array<double, 3> perplexity;
};

const std::array<double, 3> tiny_dense{35.658, 46.448, 130.331};
const std::array<double, 3> small_dense{46.709, 61.036, 223.364};

const std::vector<Row> tiny_table{
    {"", "mag50", {55.117, 69.806, 188.412}},
    {"", "rtn4", {37.851, 49.095, 137.666}},
    {"", "rtn3", {48.378, 63.644, 175.209}},
    {"c4", "sgpt50", {44.037, 57.552, 145.984}},
    {"c4", "sgpt2:4", {57.704, 74.149, 170.45}},
    {"c4", "sgpt50+4", {44.948, 59.2, 149.605}},
    {"c4", "sgpt50+3", {49.848, 65.299, 155.137}},
    {"c4", "gptq4", {36.915, 48.253, 134.681}},
    {"c4", "gptq3", {42.051, 54.742, 147.483}},
    {"c4", "gptq3mse", {41.186, 54.589, 145.844}},
    {"wikitext2", "sgpt50", {42.233, 59.11, 155.485}},
    {"wikitext2", "sgpt2:4", {52.492, 73.483, 204.901}},
    {"wikitext2", "sgpt50+4", {43.125, 60.026, 159.671}},
    {"wikitext2", "sgpt50+3", {46.66, 64.687, 170.422}},
    {"wikitext2", "gptq4", {36.676, 48.249, 134.581}},
    {"wikitext2", "gptq3", {41.091, 55.083, 152.452}},
    {"wikitext2", "gptq3mse", {40.678, 54.314, 152.273}},
};

const std::vector<Row> small_table{
    {"c4", "sgpt50+4", {52.597, 69.869, 245.591}},
    {"c4", "gptq3", {51.644, 67.505, 250.977}},
};

/// What a name of the table asks for.
struct Recipe {
  pare::CompressionRequest request;
  bool magnitude = false;
};

Recipe recipe_of(const std::string& name) {
  const auto prune = [](double sparsity) {
    return pare::CompressionRequest{.solver = {.sparsity = sparsity}};
  };
  const auto quantize = [](pare::CompressionRequest request, int bits) {
    request.solver.bits = bits;
    return request;
  };
  const std::map<std::string, Recipe> recipes{
      {"mag50", {prune(0.5), true}},
      {"rtn4", {quantize({}, 4), true}},
      {"rtn3", {quantize({}, 3), true}},
      {"sgpt50", {prune(0.5)}},
      {"sgpt2:4", {{.solver = {.zeros = 2, .of = 4}}}},
      {"sgpt50+4", {quantize(prune(0.5), 4)}},
      {"sgpt50+3", {quantize(prune(0.5), 3)}},
      {"gptq4", {quantize({}, 4)}},
      {"gptq3", {quantize({}, 3)}},
      {"gptq3mse", {quantize({.solver = {.grid = {.clip_search = true}}}, 3)}},
  };
  return recipes.at(name);
}

/// A model of the shared data and its texts as tokens, read once.
class Subject {
 public:
  Subject(const fs::path& shared, const char* model)
      : shared_(shared),
        folder_(shared / "models" / model),
        config_(pare::load_architecture(folder_)),
        tokenizer_(pare::Tokenizer::load(folder_ / "vocab.json", folder_ / "merges.txt")) {}

  Model load() const { return pare::load_model<B, float>(folder_); }

  /// Perplexity on "<text>.test.txt".
  double measure(const Model& model, const std::string& text) {
    return pare::perplexity(model, tokens(text + ".test.txt"), seqlen());
  }

  /// The model compressed as a row of the table says.
  Model compressed(const std::string& calibration, const std::string& configuration) {
    const Recipe recipe = recipe_of(configuration);
    pare::CalibrationWindows windows;
    if (!recipe.magnitude) {
      const std::vector<std::int32_t>& ids = tokens(calibration + ".calib.txt");
      const index_t count = std::min(calibration_windows, index_t(ids.size()) / seqlen());
      windows = {{ids.begin(), ids.begin() + count * seqlen()}, seqlen()};
    }
    Model model = load();
    pare::dispatch(recipe.request, [&]<class Config>(std::type_identity<Config>) {
      pare::compress_model<Config>(model, windows,
                                   {.solver = recipe.request.solver,
                                    .selection = {},
                                    .magnitude = recipe.magnitude});
    });
    return model;
  }

 private:
  index_t seqlen() const { return config_.max_position_embeddings; }

  const std::vector<std::int32_t>& tokens(const std::string& file) {
    std::vector<std::int32_t>& ids = tokens_[file];
    if (ids.empty()) {
      ids = tokenizer_.encode(pare::detail::read_whole_file(shared_ / "text" / file));
      ids.insert(ids.begin(), config_.bos_token_id);
    }
    return ids;
  }

  fs::path shared_, folder_;
  pare::Architecture config_;
  pare::Tokenizer tokenizer_;
  std::map<std::string, std::vector<std::int32_t>> tokens_;
};

/// Compresses as a row says and compares the perplexity on every text, printing both.
void check_row(Subject& subject, const Row& row) {
  std::string name = row.configuration;
  if (*row.calibration != 0) name = std::string(row.calibration) + "/" + name;
  BOOST_TEST_CONTEXT(name) {
    const Model model = subject.compressed(row.calibration, row.configuration);
    std::printf("%-20s", name.c_str());
    for (std::size_t t = 0; t < text_names.size(); ++t) {
      const double measured = subject.measure(model, text_names[t]);
      std::printf("  %s %.3f (%.3f, %+.2f %%)", text_names[t], measured, row.perplexity[t],
                  100 * (measured / row.perplexity[t] - 1));
      std::fflush(stdout);
      BOOST_TEST_INFO(text_names[t]);
      BOOST_CHECK_LE(measured, 1.02 * row.perplexity[t]);
      // A model that got much better was not compressed as the row says.
      BOOST_TEST_INFO(text_names[t]);
      BOOST_CHECK_GE(measured, 0.9 * row.perplexity[t]);
    }
    std::printf("\n");
  }
}

void check_dense(Subject& subject, const std::array<double, 3>& table) {
  const Model model = subject.load();
  std::printf("%-20s", "dense");
  for (std::size_t t = 0; t < text_names.size(); ++t) {
    const double measured = subject.measure(model, text_names[t]);
    std::printf("  %s %.3f (%.3f)", text_names[t], measured, table[t]);
    std::fflush(stdout);
    BOOST_TEST_INFO(text_names[t]);
    BOOST_CHECK_SMALL(measured / table[t] - 1, 0.001);
  }
  std::printf("\n");
}

}  // namespace

BOOST_AUTO_TEST_CASE(opt_tiny_on_c4) {
  const auto shared = test::shared_folder("perplexity of opt-tiny on c4");
  if (!shared) return;
  Subject subject(*shared, "opt-tiny");
  const double dense = subject.measure(subject.load(), "c4");
  BOOST_CHECK_SMALL(dense / 130.331 - 1, 0.001);
  for (const auto& [configuration, table] : std::map<std::string, double>{{"sgpt50+4", 149.605},
                                                                          {"gptq3", 147.483},
                                                                          {"sgpt2:4", 170.45}}) {
    const double measured = subject.measure(subject.compressed("c4", configuration), "c4");
    BOOST_TEST_MESSAGE("c4/" << configuration << ": " << measured << ", published " << table);
    BOOST_TEST_INFO(configuration);
    BOOST_CHECK_LE(measured, 1.02 * table);
    BOOST_TEST_INFO(configuration);
    BOOST_CHECK_GE(measured, 0.9 * table);
    BOOST_TEST_INFO(configuration);
    BOOST_CHECK_GT(measured, 1.02 * dense);
  }
}

BOOST_AUTO_TEST_SUITE(slow, *utf::label("slow") * utf::disabled())

BOOST_AUTO_TEST_CASE(opt_tiny_dense) {
  const auto shared = test::shared_folder("perplexity of opt-tiny");
  if (!shared) return;
  Subject subject(*shared, "opt-tiny");
  check_dense(subject, tiny_dense);
}

BOOST_AUTO_TEST_CASE(opt_tiny_table) {
  const auto shared = test::shared_folder("the perplexity table of opt-tiny");
  if (!shared) return;
  Subject subject(*shared, "opt-tiny");
  for (const Row& row : tiny_table) check_row(subject, row);
}

BOOST_AUTO_TEST_CASE(opt_small_dense) {
  const auto shared = test::shared_folder("perplexity of opt-small");
  if (!shared) return;
  Subject subject(*shared, "opt-small");
  check_dense(subject, small_dense);
}

BOOST_AUTO_TEST_CASE(opt_small_table) {
  const auto shared = test::shared_folder("the perplexity table of opt-small");
  if (!shared) return;
  Subject subject(*shared, "opt-small");
  for (const Row& row : small_table) check_row(subject, row);
}

BOOST_AUTO_TEST_SUITE_END()
