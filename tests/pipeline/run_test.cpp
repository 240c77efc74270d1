// A model folder compressed from beginning to end as a user does it from C++: a layer at a time,
// saved, packed, stopped and gone on with, verified, unpacked.
#define BOOST_TEST_MODULE pare_run
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "family_support.hpp"
#include "files.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/pipeline/documents.hpp"
#include "pare/pipeline/run/compress_folder.hpp"
#include "pare/pipeline/run/verify_folder.hpp"

using namespace test;
using namespace pare;

namespace {

using B = backend::Eigen;
namespace fs = std::filesystem;

/// A made-up model folder of a family.
void write_model(const fs::path& folder, const std::string& family) {
  const nlohmann::json config = small_config(family_of(family));
  const Architecture architecture = parse_architecture("config.json", config.dump());
  fs::create_directories(folder);
  write_text(folder / "config.json", config.dump());
  write_text(folder / "notes.txt", "goes along");
  write_safetensors(folder / "model.safetensors",
                    tensors_of<B>(made_up<B>(architecture), architecture.names.prefixes.front()));
}

std::vector<std::int32_t> random_ids(std::size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<std::int32_t> ids(count);
  for (std::int32_t& id : ids) id = std::int32_t(engine() % 37);
  return ids;
}

/// Half of the weights, 4 bits for the others, four windows of eight tokens.
FolderCompression half_and_four_bits() {
  const CalibrationWindows windows{random_ids(32, 1), 8};
  const std::vector<std::int32_t> a = random_ids(50, 2), b = random_ids(20, 3);
  // [job]
  FolderCompression job;
  job.options.solver.sparsity = 0.5;
  job.options.solver.bits = 4;
  job.options.asymmetric = 0.5;
  job.windows = windows;             // as text_windows gives them
  job.texts = {{"a", a}, {"b", b}};  // as token_ids or file_ids gives them
  job.evaluation.seqlen = windows.seqlen;
  // [job]
  return job;
}

/// A report without what another run does not repeat.
std::string repeatable(Json report) {
  for (const char* time : {"seconds", "solver_seconds", "peak_device_bytes"})
    report["totals"].erase(time);
  for (Json& layer : report["layers"]) layer.erase("seconds");
  return report.dump();
}

/// A run that somebody stops.
struct Stopped : std::runtime_error {
  using runtime_error::runtime_error;
};

constexpr const char* families[] = {"opt", "llama", "gpt2"};  // the last is stored (in, out)

double perplexity_in(const fs::path& folder, const FolderCompression& job) {
  const auto model = load_model<B, float>(folder);
  return perplexity(model, std::span<const std::int32_t>(job.texts[0].ids), job.evaluation);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_stopped_run_goes_on_to_the_same_bytes) {
  for (const char* family : families) BOOST_TEST_CONTEXT(family) {
      const Folder folder;
      const fs::path model = folder / "model";
      write_model(model, family);
      FolderCompression job = half_and_four_bits();
      // [compress]
      job.save = folder / "saved";
      job.save_packed = folder / "packed";
      const FolderResult whole = compress_folder<backend::Eigen, float>(model, job);
      // [compress]
      BOOST_TEST(whole.resumed == 0);
      BOOST_TEST(whole.report.at("config").at("family") == family);

      // All of it in memory, with the functions that this is made of.
      auto in_memory = load_model<B, float>(model);
      ModelCompressionOptions options = job.options;
      options.solver.grid.half_scale = true;  // packed grids
      BOOST_TEST(perplexity(in_memory, std::span<const std::int32_t>(job.texts[0].ids), 8) ==
                 whole.dense[0].second);
      compress_model<Compression<Unstructured, BaseQuantizer>>(in_memory, job.windows, options);
      save_model(in_memory, model, folder / "plain");
      const std::string weights = read_text(folder / "plain" / "model.safetensors");
      BOOST_TEST((read_text(*job.save / "model.safetensors") == weights));
      BOOST_TEST((weights != read_text(model / "model.safetensors")));
      BOOST_TEST(perplexity_in(*job.save, job) == whole.compressed[0].second);
      BOOST_TEST(read_text(*job.save / "notes.txt") == "goes along");

      FolderCompression kept = half_and_four_bits();
      kept.save = folder / "saved2";
      kept.save_packed = folder / "packed2";
      kept.checkpoint = folder / "checkpoint";
      std::size_t linears = 0;
      const std::size_t per_layer = in_memory.config.linears.size();
      FolderProgress stop;
      stop.linear_done = [&](const LinearStatistics&) {
        if (++linears == per_layer + 2) throw Stopped("in the second layer");
      };
      BOOST_CHECK_THROW((compress_folder<B, float>(model, kept, stop)), Stopped);
      BOOST_TEST(!fs::exists(*kept.save));
      FolderProgress count;
      std::size_t told = 0;
      count.linear_done = [&](const LinearStatistics&) { ++told; };
      const FolderResult resumed = compress_folder<B, float>(model, kept, count);
      BOOST_TEST(resumed.resumed == 1);
      BOOST_TEST(told == 2 * per_layer);
      BOOST_TEST((read_text(*kept.save / "model.safetensors") == weights));
      BOOST_TEST((read_text(*kept.save_packed / PackedFile::name) ==
                  read_text(*job.save_packed / PackedFile::name)));
      BOOST_TEST(repeatable(resumed.report) == repeatable(whole.report));

      // Of another text the checkpoint is another run's.
      FolderCompression other = kept;
      other.windows.ids[5] ^= 1;
      BOOST_CHECK_THROW((compress_folder<B, float>(model, other)), run_argument_error);
    }
}

BOOST_AUTO_TEST_CASE(a_packed_folder_is_verified_and_unpacked) {
  for (const char* family : families) BOOST_TEST_CONTEXT(family) {
      const Folder folder;
      const fs::path model = folder / "model", packed = folder / "packed";
      write_model(model, family);
      FolderCompression job = half_and_four_bits();
      job.save_packed = packed;
      const FolderResult result = compress_folder<B, float>(model, job);

      BOOST_TEST(perplexity_in(packed, job) == result.compressed[0].second);
      const FolderVerification good = verify_folder<B, float>(model, packed, job.windows);
      for (const Difference& difference : good.differences)
        BOOST_ERROR(difference.where + ": " + difference.what);
      BOOST_TEST(good.with_losses);
      BOOST_TEST(good.linears.size() == result.statistics.linears.size());

      unpack_folder(packed, folder / "dense");
      BOOST_TEST(perplexity_in(folder / "dense", job) == result.compressed[0].second);
      BOOST_CHECK_THROW(unpack_folder(packed, folder / "dense"), argument_error);

      // Another text, another original, another record.
      CalibrationWindows other = job.windows;
      other.ids[0] ^= 1;
      BOOST_TEST((!verify_folder<B, float>(model, packed, other).differences.empty()));
      std::string weights = read_text(model / "model.safetensors");
      weights.back() = char(weights.back() ^ 1);
      write_text(model / "model.safetensors", weights);
      BOOST_TEST((!verify_folder<B, float>(model, packed, job.windows).differences.empty()));
    }
}

BOOST_AUTO_TEST_CASE(a_plan_is_made_from_sensitivities_that_are_kept) {
  const Folder folder;
  const fs::path model = folder / "model";
  write_model(model, "llama");
  FolderCompression job = half_and_four_bits();
  job.options.asymmetric = 0;
  FolderPlan plan;
  plan.options = {.objective = PlanObjective::distortion, .bits_per_weight = 3.2};
  plan.sensitivity = default_sensitivity(job.options.solver, plan.options);
  plan.file = folder / "sensitivities.json";
  job.plan = plan;
  job.save = folder / "first";
  const FolderResult first = compress_folder<B, float>(model, job);
  BOOST_TEST(!first.sensitivities.read.has_value());
  BOOST_TEST((first.sensitivities.written == plan.file));
  BOOST_REQUIRE(first.plan.has_value());
  BOOST_TEST(first.plan->bits_per_weight <= 3.2);
  BOOST_TEST(first.plan->bits_per_weight > 3);
  job.save = folder / "second";
  const FolderResult second = compress_folder<B, float>(model, job);
  BOOST_TEST((second.sensitivities.read == plan.file));
  BOOST_TEST((read_text(*job.save / "model.safetensors") ==
              read_text(folder / "first" / "model.safetensors")));

  // What was measured on another text is refused before anything is computed.
  job.windows.ids[0] ^= 1;
  job.save = folder / "third";
  FolderProgress progress;
  progress.reached = [](FolderStep, const FolderResult&) { BOOST_ERROR("begins to work"); };
  BOOST_CHECK_THROW((compress_folder<B, float>(model, job, progress)), run_argument_error);
  job.plan->file.reset();
  job.plan->options.bits_per_weight = 0.5;
  BOOST_CHECK_THROW((compress_folder<B, float>(model, job)), unattainable_error);
}

BOOST_AUTO_TEST_CASE(what_cannot_be_is_refused_before_any_work) {
  const Folder folder;
  const fs::path model = folder / "model";
  write_model(model, "opt");
  FolderProgress progress;
  progress.reached = [](FolderStep, const FolderResult&) { BOOST_ERROR("begins to work"); };
  FolderCompression job = half_and_four_bits();
  job.save = model;
  const auto refused = [&](const std::string& text) {
    const std::string message =
        message_of<run_argument_error>([&] { compress_folder<B, float>(model, job, progress); });
    BOOST_TEST(contains(message, text), message);
  };
  refused("save: " + model.string() + ": the folder is not empty");
  job.save.reset();
  job.checkpoint = model;
  refused("checkpoint: " + model.string());
  job.checkpoint.reset();
  job.save_packed = folder / "packed";
  StreamedModel<B, float> in_memory(load_model<B, float>(model));
  const std::string message =
      message_of<run_argument_error>([&] { compress_folder(in_memory, model, job, progress); });
  BOOST_TEST(contains(message, "the model is in memory alone"), message);

  job.texts.clear();
  compress_folder<B, float>(model, job);
  const std::string packed = message_of<argument_error>(
      [&] { compress_folder<B, float>(*job.save_packed, job, progress); });
  BOOST_TEST(contains(packed, "source: expected a dense model"), packed);
}

BOOST_AUTO_TEST_CASE(a_model_in_memory_is_compressed_in_place) {
  const Folder folder;
  write_model(folder / "model", "llama");
  FolderCompression job = half_and_four_bits();
  const FolderResult from_folder = compress_folder<B, float>(folder / "model", job);
  StreamedModel<B, float> model(load_model<B, float>(folder / "model"));
  const FolderResult result = compress_folder(model, {}, job);
  BOOST_TEST(result.dense == from_folder.dense);
  BOOST_TEST(result.compressed == from_folder.compressed);
  BOOST_TEST(result.compressed[0].second ==
             perplexity(model.model(), std::span<const std::int32_t>(job.texts[0].ids), 8));
}

// ---------------------------------------------------------------- windows and documents

/// Against one window at a time, each token's loss by itself.
BOOST_AUTO_TEST_CASE(overlapping_windows_count_each_token_once) {
  const Folder folder;
  write_model(folder / "model", "opt");
  const auto model = load_model<B, float>(folder / "model");
  const std::vector<std::int32_t> ids = random_ids(45, 4);
  const auto losses_of = [&](const std::vector<std::int32_t>& window) {
    const Matrix<float> logits = run_model(model, window, index_t(window.size()));
    std::vector<double> losses;
    for (std::size_t t = 0; t + 1 < window.size(); ++t) {
      double sum = 0;
      for (index_t j = 0; j < logits.cols(); ++j) sum += std::exp(double(logits(index_t(t), j)));
      losses.push_back(std::log(sum) - double(logits(index_t(t), window[t + 1])));
    }
    return losses;
  };
  const std::vector<std::int32_t> none, one{1};
  for (const std::vector<std::int32_t>& leading : {none, one})
    for (const index_t stride : {1, 3, 7, 8, 11})
      for (const index_t most : {2, 100}) {
        std::vector<std::int32_t> text = leading;
        text.insert(text.end(), ids.begin(), ids.end());
        const std::size_t body = 8 - leading.size(), predicted = 7;
        double sum = 0, count = 0;
        index_t windows = 0;
        for (std::size_t at = leading.size(); at + body <= text.size() && windows < most;
             at += std::size_t(stride), ++windows) {
          std::vector<std::int32_t> window = leading;
          window.insert(window.end(), text.begin() + std::ptrdiff_t(at),
                        text.begin() + std::ptrdiff_t(at + body));
          const std::vector<double> losses = losses_of(window);
          const std::size_t fresh =
              windows == 0 ? predicted : std::min(predicted, std::size_t(stride));
          for (std::size_t t = predicted - fresh; t < predicted; ++t) sum += losses[t];
          count += double(fresh);
        }
        const PerplexityOptions options{.seqlen = 8,
                                        .stride = stride,
                                        .max_windows = most,
                                        .leading = leading};
        BOOST_TEST(evaluation_windows(index_t(text.size()), options) == windows);
        const double got = perplexity(model, std::span<const std::int32_t>(text), options);
        BOOST_TEST(std::abs(got / std::exp(sum / count) - 1) < 1e-5,
                   "stride " << stride << ": " << got << ", expected " << std::exp(sum / count));
      }
  // Windows that do not overlap and begin alike are those of window_ids.
  Architecture gemma = model.config;
  gemma.every_window_has_bos = true;
  std::vector<std::int32_t> text = one;
  text.insert(text.end(), ids.begin(), ids.end());
  const std::vector<std::int32_t> arranged = window_ids(text, one, gemma, 8);
  BOOST_TEST(perplexity(model, std::span<const std::int32_t>(text),
                        PerplexityOptions{.seqlen = 8, .leading = one}) ==
             perplexity(model, std::span<const std::int32_t>(arranged), 8));
  for (const PerplexityOptions& wrong : {PerplexityOptions{.seqlen = 1},
                                         {.seqlen = 8, .stride = 0},
                                         {.seqlen = 8, .max_windows = 0},
                                         {.seqlen = 2, .leading = {1, 1}}})
    BOOST_CHECK_THROW(perplexity(model, std::span<const std::int32_t>(ids), wrong), argument_error);
}

BOOST_AUTO_TEST_CASE(documents_are_texts_and_lines_of_json) {
  const Folder folder;
  const auto read = [&](const char* name, const std::string& text) {
    write_text(folder / name, text);
    return read_documents(folder / name);
  };
  using Texts = std::vector<std::string>;
  BOOST_TEST((read("a.txt", "one\n{\"text\": 1}\n") == Texts{"one\n{\"text\": 1}\n"}));
  const std::string lines = "{\"text\": \"a\\nb\", \"id\": 3}\n\n{\"text\": \"\\u00e9\"}";
  BOOST_TEST((read("a.jsonl", lines) == Texts{"a\nb", "\u00e9"}));
  BOOST_TEST((read("b.txt", lines) == Texts{"a\nb", "\u00e9"}));  // by its first line
  const std::pair<std::string, std::string> wrong[] = {{"{\"text\": \"a\"", "not JSON"},
                                                       {"{\"content\": \"a\"}",
                                                        "expected an object with a field text"},
                                                       {"{\"text\": [1]}",
                                                        "text: expected a string, got array"}};
  for (const auto& pair : wrong) {
    const std::string message = message_of<format_error>(
        [&] { read("c.jsonl", "{\"text\": \"a\"}\n" + pair.first + "\n"); });
    BOOST_TEST(contains(message, "c.jsonl: line 2: " + pair.second), message);
  }
}

BOOST_AUTO_TEST_CASE(a_plan_gives_parts_of_fused_linears_widths_of_their_own) {
  for (const char* family : {"gpt_neox", "phi3", "gpt2"}) BOOST_TEST_CONTEXT(family) {
      const nlohmann::json config = small_config(family_of(family));
      auto model = made_up<B>(parse_architecture("config.json", config.dump()));
      const auto width_of = [&](const Linear<B, float>& linear, index_t row) {
        const LinearRole part = part_of_row(model.config, linear.role, row);
        return part == LinearRole::q || part == LinearRole::gate ? 2
               : part == LinearRole::k                           ? 3
                                                                 : 4;
      };
      ModelPlan plan;
      for (const auto& layer : model.layers)
        for (const auto* linear : layer.linears()) {
          LinearPlan widths{linear->name, Dense{}, {}, 0};
          for (index_t r = 0; r < linear->weight.rows(); ++r)
            widths.bits.push_back(std::uint8_t(width_of(*linear, r)));
          plan.linears.push_back(std::move(widths));
        }
      compress_model(model, CalibrationWindows{random_ids(64, 1), 8}, {}, plan);
      std::map<LinearRole, index_t> rows;
      for (const auto& layer : model.layers)
        for (const auto* linear : layer.linears())
          for (index_t r = 0; r < linear->weight.rows(); ++r) {
            const float* row = linear->weight.view().row(r);
            const std::size_t values = std::set<float>(row, row + linear->weight.cols()).size();
            BOOST_TEST(values <= (std::size_t(1) << width_of(*linear, r)));
            ++rows[part_of_row(model.config, linear->role, r)];
          }
      const Architecture& a = model.config;
      BOOST_TEST(rows[LinearRole::q] == 3 * a.query_size());
      BOOST_TEST(rows[LinearRole::k] == 3 * a.key_value_size());
      BOOST_TEST(rows[LinearRole::v] == 3 * a.key_value_size());

      // Without values the attention has nothing to mix.
      auto& qkv = model.layers[0].at(LinearRole::qkv);
      for (index_t r = 0; r < qkv.weight.rows(); ++r)
        if (part_of_row(a, LinearRole::qkv, r) == LinearRole::v) {
          std::fill_n(qkv.weight.view().row(r), qkv.weight.cols(), 0.0f);
          if (qkv.bias.rows() > 0) qkv.bias(0, r) = 0;
        }
      ModelWorkspace<B, float> workspace;
      Matrix<float> hidden;
      const std::vector<std::int32_t> ids = random_ids(8, 2);
      embed(model, std::span<const std::int32_t>(ids), 8, workspace, hidden);
      double mixed = -1;
      const index_t out = model.layers[0].at(LinearRole::out).input;
      forward_layer(model, model.layers[0], hidden.view(), 8, workspace,
                    [&](index_t input, MatrixView<const float> X) {
                      if (input != out) return;
                      mixed = 0;
                      for (index_t i = 0; i < X.rows * X.cols; ++i) mixed += std::abs(X.data[i]);
                    });
      BOOST_TEST(mixed == 0);
    }
}
