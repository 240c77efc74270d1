// pare as a program, on the shipped opt-tiny with short texts: reports, saved folders,
// selections, unusable inputs.
#define BOOST_TEST_MODULE pare_model_tool
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>

#include "cli_support.hpp"
#include "pare/storage/checkpoint.hpp"
#include "torch_files.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Folder;
using cli::Json;
using cli::Outcome;
using cli::Texts;
using pare::index_t;
using pare::Matrix;
using pare::TensorData;

namespace {

const fs::path tiny = cli::data / "opt-tiny";
constexpr const char* weights_name = "model.safetensors";
const std::vector<std::string> model_files{"config.json", "vocab.json", "merges.txt"};

/// "pare COMMAND MODEL CALIB_TEXT options...", evaluated on the short text.
Outcome pare_opt(const Texts& texts, const std::string& command, const Arguments& options,
                 const fs::path& model = tiny) {
  Arguments all{command, model.string()};
  if (command != "evaluate") all.insert(all.end(), {texts.calibration.string(), "--nsamples", "8"});
  all.insert(all.end(), {"--eval", "short=" + texts.evaluation.string()});
  all.insert(all.end(), options.begin(), options.end());
  return cli::run(PARE_TOOL, all, texts.path);
}

/// Compresses without evaluating, which must succeed.
Json report_of(const Texts& texts, const Arguments& options, const fs::path& model = tiny) {
  Arguments all{"compress", model.string(), texts.calibration.string(), "--report",
                (texts / "report.json").string()};
  const auto given = [&](const char* option) {
    return std::find(options.begin(), options.end(), option) != options.end();
  };
  if (!given("--gmp") && !given("--nsamples")) all.insert(all.end(), {"--nsamples", "8"});
  all.insert(all.end(), options.begin(), options.end());
  const Outcome outcome = cli::run(PARE_TOOL, all, texts.path);
  BOOST_TEST_INFO(cli::text_of(options) << ": " << outcome.err);
  BOOST_REQUIRE(outcome.code == 0);
  const Json report = cli::parse_json(cli::read_text(texts / "report.json"));
  fs::remove(texts / "report.json");
  return report;
}

double evaluated(const Texts& texts, const fs::path& model) {
  const Outcome outcome =
      pare_opt(texts, "evaluate", {"--report", (texts / "evaluated.json").string()}, model);
  BOOST_TEST_INFO(outcome.err);
  BOOST_REQUIRE(outcome.code == 0);
  const Json report = cli::parse_json(cli::read_text(texts / "evaluated.json"));
  fs::remove(texts / "evaluated.json");
  return report.at("perplexity").at("short");
}

std::vector<std::string> names_in(const Json& report) {
  std::vector<std::string> names;
  for (const Json& layer : report.at("layers")) names.push_back(layer.at("name"));
  return names;
}

/// The linears in the order of compression.
std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (int i = 0; i < 4; ++i)
    for (const char* linear : {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj",
                               "self_attn.out_proj", "fc1", "fc2"})
      names.push_back("layers." + std::to_string(i) + "." + linear);
  return names;
}

std::vector<std::string> names_where(const std::function<bool(const std::string&)>& use) {
  std::vector<std::string> names;
  for (const std::string& name : all_names())
    if (use(name)) names.push_back(name);
  return names;
}

std::string tensor_of(const std::string& linear) { return "model.decoder." + linear + ".weight"; }

/// A report without what differs from run to run.
Json timeless(Json json) {
  if (json.is_object()) {
    json.erase("seconds");
    json.erase("solver_seconds");
  }
  if (json.is_structured())
    for (Json& value : json) value = timeless(value);
  return json;
}

std::vector<TensorData> tensors_of(const fs::path& file) {
  const pare::SafetensorsFile source(file);
  std::vector<TensorData> tensors;
  for (const pare::TensorInfo& info : source.tensors())
    tensors.push_back({info.name, info.dtype, info.shape, source.read_bytes(info.name)});
  return tensors;
}

/// A copy of opt-tiny, without its weights when `weights` is false.
fs::path copy_model(const fs::path& target, bool weights = true) {
  fs::create_directories(target);
  for (const std::string& name : model_files) fs::copy_file(tiny / name, target / name);
  if (weights) fs::copy_file(tiny / weights_name, target / weights_name);
  return target;
}

/// opt-tiny stored as another float type.
fs::path copy_as(const fs::path& target, pare::DType type) {
  copy_model(target, false);
  const pare::SafetensorsFile source(tiny / weights_name);
  std::vector<TensorData> tensors;
  for (const pare::TensorInfo& info : source.tensors()) {
    const Matrix<float> values = source.read_float(info.name);
    tensors.push_back({info.name, pare::dtype_name(type), info.shape,
                       pare::encode_floats({values.data(), std::size_t(values.size())}, type)});
  }
  pare::write_safetensors(target / weights_name, tensors, source.metadata());
  return target;
}

/// opt-tiny as three shards and their index.
fs::path copy_sharded(const fs::path& target) {
  copy_model(target, false);
  std::vector<std::vector<TensorData>> shards(3);
  Json index{{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  std::size_t next = 0;
  for (TensorData& tensor : tensors_of(tiny / weights_name)) {
    const std::size_t shard = next++ % 3;
    index["weight_map"][tensor.name] =
        "model-0000" + std::to_string(shard + 1) + "-of-00003.safetensors";
    shards[shard].push_back(std::move(tensor));
  }
  for (std::size_t s = 0; s < 3; ++s)
    pare::write_safetensors(target /
                                ("model-0000" + std::to_string(s + 1) + "-of-00003.safetensors"),
                            shards[s]);
  cli::write_text(target / pare::Checkpoint::index_name, index.dump());
  return target;
}

/// opt-tiny as PyTorch saves it, head and embeddings being one storage: one file or two shards.
fs::path copy_as_pytorch(const fs::path& target, const std::string& prefix, bool sharded) {
  copy_model(target, false);
  std::vector<std::vector<TensorData>> files(sharded ? 2 : 1);
  Json index{{"metadata", Json::object()}, {"weight_map", Json::object()}};
  const auto file_name = [&](std::size_t file) {
    return sharded ? "pytorch_model-0000" + std::to_string(file + 1) + "-of-00002.bin"
                   : std::string(pare::Checkpoint::pytorch_name);
  };
  for (TensorData& tensor : tensors_of(tiny / weights_name)) {
    const bool last = tensor.name.find("layers.1") != std::string::npos;
    const std::size_t file = last ? files.size() - 1 : 0;
    tensor.name = prefix + tensor.name.substr(std::strlen("model.decoder."));
    index["weight_map"][tensor.name] = file_name(file);
    files[file].push_back(std::move(tensor));
    if (files[file].back().name != prefix + "embed_tokens.weight") continue;
    TensorData head = files[file].back();
    head.name = "lm_head.weight";
    index["weight_map"][head.name] = file_name(file);
    files[file].push_back(std::move(head));
  }
  for (std::size_t file = 0; file < files.size(); ++file)
    cli::write_text(target / file_name(file), test::torch_file(files[file], true));
  if (sharded) cli::write_text(target / pare::Checkpoint::pytorch_index_name, index.dump());
  return target;
}

/// Checks a saved folder against its source: same files, same tensors, only `changed` differ.
void check_saved(const fs::path& source, const fs::path& saved,
                 const std::vector<std::string>& changed) {
  for (const std::string& name : model_files) {
    BOOST_TEST_INFO(name);
    BOOST_CHECK(cli::read_text(saved / name) == cli::read_text(source / name));
  }
  const pare::Checkpoint before(source), after(saved);
  BOOST_REQUIRE(before.files().size() == after.files().size());
  std::set<std::string> differ, expected;
  for (const std::string& name : changed) expected.insert(tensor_of(name));
  for (std::size_t f = 0; f < before.files().size(); ++f) {
    BOOST_TEST(before.files()[f].path().filename().string() ==
               after.files()[f].path().filename().string());
    const pare::SafetensorsFile old_file(before.files()[f].path());
    const pare::SafetensorsFile new_file(after.files()[f].path());
    BOOST_CHECK(old_file.metadata() == new_file.metadata());
    BOOST_REQUIRE(old_file.tensors().size() == new_file.tensors().size());
    for (const pare::TensorInfo& info : old_file.tensors()) {
      const pare::TensorInfo* now = new_file.find(info.name);
      BOOST_TEST_INFO(info.name);
      BOOST_REQUIRE(now != nullptr);
      BOOST_TEST(now->dtype == info.dtype);
      BOOST_TEST(now->shape == info.shape, boost::test_tools::per_element());
      if (old_file.read_bytes(info.name) != new_file.read_bytes(info.name))
        differ.insert(info.name);
    }
  }
  BOOST_TEST(differ == expected, boost::test_tools::per_element());
  if (before.sharded())
    BOOST_CHECK(cli::read_text(source / pare::Checkpoint::index_name) ==
                cli::read_text(saved / pare::Checkpoint::index_name));
}

double zeros_of(const Matrix<float>& m) {
  return double(std::count(m.data(), m.data() + m.size(), 0.0f)) / double(m.size());
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_command_of_the_old_system) {
  const Texts texts;
  const Outcome outcome =
      pare_opt(texts, "compress",
               {"--sparsity", "0.5", "--wbits", "4", "--target_avg_bits", "4.0", "--bit_method",
                "quantile", "--report", (texts / "report.json").string()});
  check_success(outcome);
  const Json report = cli::parse_json(cli::read_text(texts / "report.json"));

  const double dense = report.at("perplexity").at("dense").at("short");
  const double compressed = report.at("perplexity").at("compressed").at("short");
  BOOST_TEST(dense > 1);
  BOOST_TEST(dense < 200);
  BOOST_TEST(compressed > dense);
  BOOST_TEST(compressed < 3 * dense);
  BOOST_TEST(test::relative_difference(dense, evaluated(texts, tiny)) < 1e-6);

  const auto names = all_names();
  const auto reported = names_in(report);
  BOOST_TEST(reported == names, boost::test_tools::per_element());
  index_t channels = 0;
  double code_bits = 0, weights = 0, loss = 0;
  for (const Json& layer : report.at("layers")) BOOST_TEST_CONTEXT(layer.at("name")) {
      const std::string name = layer.at("name");
      const index_t rows = layer.at("rows"), columns = layer.at("columns");
      BOOST_TEST(rows == (name.ends_with("fc1") ? 768 : 192));
      BOOST_TEST(columns == (name.ends_with("fc2") ? 768 : 192));
      channels += rows;
      BOOST_TEST(layer.at("channels") == rows);
      const double mean = layer.at("average_bits");
      BOOST_TEST(mean <= 4.0);
      BOOST_TEST(mean > 4.0 - 2.0 / double(rows));  // the widest step between tiers is two bits
      index_t counted = 0;
      double bits = 0;
      for (const auto& [width, count] : layer.at("bits_histogram").items()) {
        BOOST_TEST((width == "2" || width == "3" || width == "4" || width == "6" || width == "8"));
        counted += count.get<index_t>();
        bits += std::stod(width) * count.get<double>();
      }
      BOOST_TEST(counted == rows);
      BOOST_TEST(layer.at("bits_histogram").size() == 5u);  // quantile fills every tier
      BOOST_TEST(test::relative_difference(bits / double(rows), mean) < 1e-12);
      BOOST_TEST(std::abs(layer.at("sparsity").get<double>() - 0.5) < 1e-12);
      BOOST_TEST(layer.at("loss").get<double>() > 0);
      BOOST_TEST(layer.at("seconds").get<double>() > 0);
      code_bits += mean * double(rows * columns);
      weights += double(rows * columns);
      loss += layer.at("loss").get<double>();
      const std::size_t at = outcome.out.find("\n" + name + " ");
      BOOST_REQUIRE(at != std::string::npos);
      const std::string line = outcome.out.substr(at + 1, outcome.out.find('\n', at + 1) - at);
      BOOST_CHECK(
          test::contains(line, std::to_string(rows) + " x " + std::to_string(columns) + " "));
    }
  const Json& totals = report.at("totals");
  BOOST_TEST(totals.at("channels") == channels);
  BOOST_TEST(totals.at("channels") == 4 * (5 * 192 + 768));
  BOOST_TEST(test::relative_difference(totals.at("average_bits"), code_bits / weights) < 1e-12);
  BOOST_TEST(totals.at("average_bits").get<double>() <= 4.0);
  BOOST_TEST(std::abs(totals.at("sparsity").get<double>() - 0.5) < 1e-12);
  BOOST_TEST(test::relative_difference(totals.at("loss"), loss) < 1e-12);
  const double stored = totals.at("stored_bits_per_weight");
  BOOST_TEST(stored > 2);  // half of four bits
  BOOST_TEST(stored < 5);  // nothing near the 16 of the dense model
  BOOST_TEST(totals.at("seconds").get<double>() > 0);

  const Json& config = report.at("config");
  const Json expected{{"sparsity", 0.5},
                      {"prunen", nullptr},
                      {"prunem", nullptr},
                      {"wbits", 4},
                      {"target_avg_bits", 4.0},
                      {"bit_method", "quantile"},
                      {"axis", "output"},
                      {"act_order", false},
                      {"clip_search", false},
                      {"symmetric", false},
                      {"nsamples", 8},
                      {"seqlen", 256},
                      {"percdamp", 0.01},
                      {"blocksize", 128},
                      {"minlayer", 0},
                      {"maxlayer", 4},
                      {"prune_only", ""},
                      {"invert", false},
                      {"gmp", false},
                      {"true_sequential", false},
                      {"asymmetric", 0.0},
                      {"model", tiny.string()},
                      {"calibration_text", texts.calibration.string()}};
  for (const auto& [key, value] : expected.items()) {
    BOOST_TEST_INFO(key << " in " << config);
    BOOST_CHECK(config.contains(key) && config[key] == value);
  }
  for (const char* part :
       {"linear", "mean bits", "channels           6912", "50.00%",
        "perplexity of the dense model on short", "perplexity of the compressed model on short"}) {
    BOOST_TEST_INFO(part);
    BOOST_CHECK(test::contains(outcome.out, part));
  }
  const std::string dense_line = "perplexity of the dense model on short";
  BOOST_CHECK(outcome.out.find(dense_line) == outcome.out.rfind(dense_line));  // once
  char ratio[64];
  std::snprintf(ratio, sizeof ratio, ", %.4f times the dense model's\n",
                report.at("perplexity").at("compressed").at("short").get<double>() /
                    report.at("perplexity").at("dense").at("short").get<double>());
  BOOST_CHECK(test::contains(outcome.out, ratio));
}

BOOST_AUTO_TEST_CASE(quantile_without_a_target_gives_every_width_an_equal_share) {
  const Texts texts;
  const Json report =
      report_of(texts, {"--sparsity", "0.5", "--wbits", "4", "--bit-method", "quantile"});
  BOOST_TEST(report.at("config").at("bit_method") == "quantile");
  BOOST_TEST(report.at("config").at("target_avg_bits").is_null());
  for (const Json& layer : report.at("layers")) BOOST_TEST_CONTEXT(layer.at("name")) {
      const Json& histogram = layer.at("bits_histogram");
      BOOST_TEST(histogram.size() == 5u);
      for (const char* width : {"2", "3", "4", "6", "8"})  // 192 or 768 channels in fifths
        BOOST_TEST(std::abs(histogram.at(width).get<double>() -
                            layer.at("channels").get<double>() / 5) < 1);
    }
  // Five widths, 20 % each: the table of the report that this project grew from.
  const Json& totals = report.at("totals");
  for (const auto& [width, count] : totals.at("bits_histogram").items())
    BOOST_TEST(std::abs(count.get<double>() / totals.at("channels").get<double>() - 0.2) < 2e-3);
  BOOST_TEST(std::abs(totals.at("average_bits").get<double>() - 23.0 / 5) < 2e-2);
}

BOOST_AUTO_TEST_CASE(a_saved_model_evaluates_the_same) {
  const Texts texts;
  const fs::path saved = texts / "saved";
  const Json report =
      report_of(texts, {"--sparsity", "0.5", "--wbits", "4", "--eval",
                        "short=" + texts.evaluation.string(), "--save", saved.string()});
  check_saved(tiny, saved, all_names());
  BOOST_TEST(test::relative_difference(evaluated(texts, saved),
                                       report.at("perplexity").at("compressed").at("short")) <
             1e-6);
  // What is saved is pruned and rounded, row by row: neither silent no-op of DESIGN section 4.
  const pare::SafetensorsFile before(tiny / weights_name), after(saved / weights_name);
  for (const std::string& name : all_names()) BOOST_TEST_CONTEXT(name) {
      const Matrix<float> W = before.read_float(tensor_of(name)),
                          Q = after.read_float(tensor_of(name));
      BOOST_TEST(zeros_of(Q) >= 0.5);
      BOOST_TEST(zeros_of(Q) < 0.7);
      index_t crowded = 0, same = 0;
      for (index_t i = 0; i < Q.rows(); ++i) {
        crowded += cli::distinct_values(Q, i) > 16;
        same += std::equal(Q.view().row(i), Q.view().row(i) + Q.cols(), W.view().row(i));
      }
      BOOST_TEST(crowded == 0);
      BOOST_TEST(same == 0);
    }
}

BOOST_AUTO_TEST_CASE(a_trailing_slash_and_an_empty_folder_are_fine_for_save) {
  const Texts texts;
  fs::create_directory(texts / "empty");
  report_of(texts,
            {"--sparsity", "0.5", "--prune-only", "0.fc1", "--save", (texts / "empty").string()});
  check_saved(tiny, texts / "empty", {"layers.0.fc1"});
  report_of(texts, {"--sparsity", "0.5", "--prune-only", "0.fc1", "--save",
                    (texts / "slash").string() + "/"});
  check_saved(tiny, texts / "slash", {"layers.0.fc1"});
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(texts.path)) ++entries;
  BOOST_TEST(entries == 4u);  // two texts, two folders
}

BOOST_AUTO_TEST_CASE(a_sharded_model_is_read_and_saved_as_shards) {
  const Texts texts;
  const fs::path model = copy_sharded(texts / "sharded");
  const Arguments options{"--sparsity", "0.5",    "--wbits",
                          "3",          "--eval", "short=" + texts.evaluation.string()};
  Arguments saving = options;
  saving.insert(saving.end(), {"--save", (texts / "saved").string()});
  Json sharded = report_of(texts, saving, model);
  Json single = report_of(texts, options);
  check_saved(model, texts / "saved", all_names());
  BOOST_TEST(test::relative_difference(evaluated(texts, texts / "saved"),
                                       sharded.at("perplexity").at("compressed").at("short")) <
             1e-6);
  for (const char* where : {"model", "save"}) {
    sharded.at("config").erase(where);
    single.at("config").erase(where);
  }
  BOOST_CHECK(timeless(sharded) == timeless(single));
}

BOOST_AUTO_TEST_CASE(what_pytorch_saved_is_read_and_saved_as_safetensors) {
  const Texts texts;
  const Arguments options{"--sparsity", "0.5", "--wbits", "4", "--minlayer", "3", "--save"};
  const auto saving = [&](const fs::path& folder) {
    Arguments all = options;
    all.push_back(folder.string());
    return all;
  };
  report_of(texts, saving(texts / "expected"));
  const pare::SafetensorsFile expected(texts / "expected" / weights_name);
  const double dense = evaluated(texts, tiny), compressed = evaluated(texts, texts / "expected");
  const struct {
    const char* prefix;
    bool sharded;
    std::set<std::string> weights;
  } table[] = {{"model.decoder.", false, {"model.safetensors"}},
               {"decoder.",
                true,
                {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                 "model.safetensors.index.json"}},
               {"", false, {"model.safetensors"}}};
  for (const auto& row : table) BOOST_TEST_CONTEXT("prefix '" << row.prefix << "'") {
      const fs::path model = texts / "model", saved = texts / "saved";
      copy_as_pytorch(model, row.prefix, row.sharded);
      BOOST_TEST(evaluated(texts, model) == dense);
      report_of(texts, saving(saved), model);
      BOOST_TEST(evaluated(texts, saved) == compressed);

      std::set<std::string> files(model_files.begin(), model_files.end()), found;
      files.insert(row.weights.begin(), row.weights.end());
      for (const auto& entry : fs::directory_iterator(saved))
        found.insert(entry.path().filename().string());
      BOOST_TEST(found == files, boost::test_tools::per_element());

      const pare::Checkpoint after(saved);
      BOOST_CHECK(!after.find("lm_head.weight"));  // tied
      std::size_t tensors = 0;
      for (const pare::TensorFile& file : after.files()) tensors += file.tensors().size();
      BOOST_TEST(tensors == expected.tensors().size());
      for (const pare::TensorInfo& info : expected.tensors()) {
        const auto now = after.at(row.prefix + info.name.substr(std::strlen("model.decoder.")));
        BOOST_TEST_INFO(info.name);
        BOOST_CHECK(now.file->read_bytes(now.info->name) == expected.read_bytes(info.name));
      }
      fs::remove_all(model);
      fs::remove_all(saved);
    }
}

BOOST_AUTO_TEST_CASE(models_of_every_writer_are_one_model) {
  const Texts texts;
  const double expected = evaluated(texts, tiny);
  const fs::path model = texts / "model";
  const auto check = [&](const std::string& what) {
    BOOST_TEST_INFO(what);
    BOOST_TEST(evaluated(texts, model) == expected);
    fs::remove_all(model);
  };
  const auto with_config = [&](const char* field, const Json& value) {
    copy_model(model);
    Json config = cli::parse_json(cli::read_text(tiny / "config.json"));
    config[field] = value;
    cli::write_text(model / "config.json", config.dump());
  };
  // transformers 5 saves the tokenizer so, with a token beyond the embeddings.
  copy_model(model);
  fs::remove(model / "vocab.json");
  fs::remove(model / "merges.txt");
  Json tokenizer = cli::parse_json(cli::read_text(tiny / "tokenizer.json"));
  tokenizer["added_tokens"].push_back({{"id", 4096}, {"content", "<|endoftext|>"}});
  cli::write_text(model / "tokenizer.json", tokenizer.dump());
  check("tokenizer.json alone");
  with_config("word_embed_proj_dim", nullptr);
  check("word_embed_proj_dim: null");
  with_config("quantization_config", nullptr);
  check("quantization_config: null");
  with_config("bos_token_id", nullptr);  // nothing in front of a text
  BOOST_TEST(std::abs(evaluated(texts, model) / expected - 1) < 0.02);
  fs::remove_all(model);

  // The embeddings as safetensors.torch.save_model keeps them; tensors of other types.
  copy_model(model, false);
  std::vector<TensorData> tensors = tensors_of(tiny / weights_name);
  for (TensorData& tensor : tensors)
    if (tensor.name == "model.decoder.embed_tokens.weight") tensor.name = "lm_head.weight";
  for (const char* dtype : {"U16", "F8_E4M3", "F4"})
    tensors.push_back({std::string("other.") + dtype,
                       dtype,
                       {8},
                       std::vector<std::byte>(std::size_t(pare::element_bits(dtype)))});
  pare::write_safetensors(model / weights_name, tensors,
                          {{"model.decoder.embed_tokens.weight", "lm_head.weight"}});
  const std::string whole = cli::read_text(model / weights_name);
  report_of(texts,
            {"--sparsity", "0.5", "--prune-only", "0.fc1", "--save", (texts / "saved").string(),
             "--save-packed", (texts / "packed").string()},
            model);
  check("lm_head.weight alone");
  const auto saved = tensors_of(texts / "saved" / weights_name);
  BOOST_REQUIRE(saved.size() == tensors.size());
  std::size_t changed = 0;
  for (const TensorData& before : tensors)
    for (const TensorData& after : saved)
      if (before.name == after.name) {
        BOOST_TEST(before.dtype == after.dtype);
        changed += before.bytes != after.bytes;
      }
  BOOST_TEST(changed == 1u);
  BOOST_CHECK(cli::read_text(texts / "saved" / weights_name).substr(0, 1000) ==
              whole.substr(0, 1000));
  BOOST_TEST(evaluated(texts, texts / "packed") == evaluated(texts, texts / "saved"));
}

BOOST_AUTO_TEST_CASE(what_may_be_read_in_two_ways_is_said) {
  const Texts texts;
  const fs::path model = copy_model(texts / "model", false);
  std::vector<TensorData> tensors = tensors_of(tiny / weights_name);
  TensorData head = *std::find_if(tensors.begin(), tensors.end(), [](const TensorData& t) {
    return t.name == "model.decoder.embed_tokens.weight";
  });
  head.name = "lm_head.weight";
  tensors.push_back(head);
  pare::write_safetensors(model / weights_name, tensors);
  check_success(pare_opt(texts, "evaluate", {}, model));  // equal: nothing to say
  tensors.back().bytes[0] ^= std::byte{1};
  pare::write_safetensors(model / weights_name, tensors);
  const Outcome outcome = pare_opt(texts, "evaluate", {}, model);
  BOOST_TEST(outcome.code == 0);
  BOOST_CHECK(outcome.err.starts_with("pare: warning: " + (model / weights_name).string() +
                                      ": tensor 'lm_head.weight' is not equal to tensor"));
  BOOST_TEST(evaluated(texts, model) == evaluated(texts, tiny));

  fs::remove_all(model);
  copy_model(model);
  fs::copy_file(tiny / "tokenizer.json", model / "tokenizer.json");
  BOOST_TEST(pare_opt(texts, "evaluate", {}, model).code == 0);
  std::string merges = cli::read_text(model / "merges.txt");
  cli::write_text(model / "merges.txt",
                  merges.substr(0, merges.rfind('\n', merges.size() / 2) + 1));
  check_failure(pare_opt(texts, "evaluate", {}, model), 2, "pare",
                {(model / "merges.txt").string() + ": not the tokenizer of", "tokenizer.json"});
  fs::remove(model / "tokenizer.json");
  check_failure(pare_opt(texts, "evaluate", {}, model), 2, "pare",
                {(model / "merges.txt").string() + ": no merge makes token"});
  cli::write_text(model / "merges.txt", "");
  check_failure(pare_opt(texts, "evaluate", {}, model), 2, "pare",
                {(model / "merges.txt").string() + ": no merge makes token", "3835 others"});
}

BOOST_AUTO_TEST_CASE(what_is_no_dense_model_is_called_by_name) {
  const Texts texts;
  const auto refuse = [&](const fs::path& model, const std::vector<std::string>& parts) {
    check_failure(pare_opt(texts, "evaluate", {}, model), 2, "pare", parts);
    check_failure(pare_opt(texts, "compress", {"--wbits", "4"}, model), 2, "pare", parts);
  };
  refuse("facebook/opt-125m", {"facebook/opt-125m: ", "hf download facebook/opt-125m"});
  refuse(tiny / weights_name, {"a file of weights; give the folder that holds it"});
  cli::write_text(texts / "x.gguf", "GGUF");
  refuse(texts / "x.gguf", {"a GGUF file of llama.cpp"});

  const fs::path model = copy_model(texts / "model");
  Json config = cli::parse_json(cli::read_text(tiny / "config.json"));
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  cli::write_text(model / "config.json", config.dump());
  refuse(model, {(model / "config.json").string(), "already quantized by gptq"});
  fs::copy_file(tiny / "config.json", model / "config.json", fs::copy_options::overwrite_existing);
  std::vector<TensorData> tensors = tensors_of(tiny / weights_name);
  for (TensorData& tensor : tensors)
    if (tensor.name == tensor_of("layers.1.fc1")) {
      tensor.name.replace(tensor.name.size() - 6, 6, "qweight");
      tensor.dtype = "I16";
    }
  pare::write_safetensors(model / weights_name, tensors);
  refuse(model, {model.string() + ": the model is already quantized by gptq or awq"});
  for (const char* name : {weights_name, "merges.txt", "config.json"}) {
    fs::remove_all(model);
    copy_model(model);
    cli::write_text(model / name, "version https://git-lfs.github.com/spec/v1\nsize 1\n");
    refuse(model, {(model / name).string() + ": a Git LFS pointer, not the file itself"});
  }
}

BOOST_AUTO_TEST_CASE(side_files_go_along) {
  const Texts texts;
  const fs::path model = copy_model(texts / "model");
  const std::vector<std::string> side{"README.md",           "LICENSE",
                                      "chat_template.jinja", "tokenizer.model",
                                      "modeling_x.py",       "preprocessor_config.json",
                                      ".gitattributes"};
  for (const std::string& name : side) cli::write_text(model / name, "content of " + name);
  for (const char* name : {"pytorch_model.bin", "x.gguf", "optimizer.pt", "quantize_config.json"})
    cli::write_text(model / name, name);
  fs::create_directories(model / "onnx");
  fs::create_symlink(model / "README.md", model / "LINK.md");
  fs::create_symlink("nowhere", model / "DANGLING.md");
  const auto check = [&](const fs::path& folder, const std::string& out, const std::string& said) {
    for (const std::string& name : side)
      BOOST_TEST(cli::read_text(folder / name) == "content of " + name);
    BOOST_TEST(cli::read_text(folder / "LINK.md") == "content of README.md");
    BOOST_CHECK(fs::is_regular_file(fs::symlink_status(folder / "LINK.md")));
    for (const char* name : {"pytorch_model.bin", "x.gguf", "optimizer.pt", "onnx", "DANGLING.md"})
      BOOST_CHECK(!fs::exists(fs::symlink_status(folder / name)));
    BOOST_TEST_INFO(out);
    BOOST_CHECK(test::contains(out, said));
  };
  const std::string left_out = "not copied from " + model.string() +
                               ": DANGLING.md, onnx/, optimizer.pt, pytorch_model.bin, "
                               "quantize_config.json, x.gguf\n";
  const Outcome saved =
      cli::run(PARE_TOOL,
               {"compress", model.string(), texts.calibration.string(), "--nsamples", "2",
                "--wbits", "4", "--prune-only", "0.fc1", "--save", (texts / "saved").string(),
                "--save-packed", (texts / "packed").string()},
               texts.path);
  check_success(saved);
  check(texts / "saved", saved.out, left_out);
  check(texts / "packed", saved.out, left_out);
  const Outcome unpacked =
      cli::run(PARE_TOOL, {"unpack", (texts / "packed").string(), (texts / "dense").string()},
               texts.path);
  check_success(unpacked);
  check(texts / "dense", unpacked.out,
        "not copied from " + (texts / "packed").string() + ": report.json\n");
}

BOOST_AUTO_TEST_CASE(a_head_that_differs_is_kept) {
  const Texts texts;
  const fs::path model = copy_model(texts / "model", false);
  std::vector<TensorData> tensors = tensors_of(tiny / weights_name);
  const auto embedding = std::find_if(tensors.begin(), tensors.end(), [](const TensorData& t) {
    return t.name == "model.decoder.embed_tokens.weight";
  });
  TensorData head = *embedding;
  head.name = "lm_head.weight";
  head.bytes[0] ^= std::byte{1};
  tensors.push_back(head);
  cli::write_text(model / pare::Checkpoint::pytorch_name, test::torch_file(tensors));
  report_of(texts,
            {"--sparsity", "0.5", "--prune-only", "0.fc1", "--save", (texts / "saved").string()},
            model);
  BOOST_CHECK(pare::SafetensorsFile(texts / "saved" / weights_name).read_bytes(head.name) ==
              head.bytes);
}

BOOST_AUTO_TEST_CASE(the_shared_pytorch_model_evaluates_like_its_safetensors) {
  const auto shared = test::shared_folder("opt-tiny as PyTorch saved it");
  if (!shared) return;
  const Texts texts;
  BOOST_TEST(evaluated(texts, *shared / "models" / "opt-tiny-bin") ==
             evaluated(texts, *shared / "models" / "opt-tiny"));
}

BOOST_AUTO_TEST_CASE(other_float_types_are_kept) {
  const Texts texts;
  const Json half = report_of(texts, {"--sparsity", "0.5", "--wbits", "4", "--eval",
                                      "short=" + texts.evaluation.string()});
  for (const pare::DType type : {pare::DType::bf16, pare::DType::f32})
    BOOST_TEST_CONTEXT(pare::dtype_name(type)) {
      const std::string name = pare::dtype_name(type);
      const fs::path model = copy_as(texts / name, type), saved = texts / (name + "-saved");
      const Json report =
          report_of(texts,
                    {"--sparsity", "0.5", "--wbits", "4", "--eval",
                     "short=" + texts.evaluation.string(), "--save", saved.string()},
                    model);
      check_saved(model, saved, all_names());
      const double compressed = report.at("perplexity").at("compressed").at("short");
      BOOST_TEST(test::relative_difference(evaluated(texts, saved), compressed) < 1e-6);
      BOOST_TEST(test::relative_difference(compressed,
                                           half.at("perplexity").at("compressed").at("short")) <
                 0.05);
    }
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_take_the_model_is_refused_first) {
  const Texts texts;
  fs::create_directory(texts / "full");
  cli::write_text(texts / "full" / "keep", "this");
  cli::write_text(texts / "file", "a file");
  const auto before = cli::listing(texts.path);
  for (const char* target : {"full", "full/", "file", "file/", "missing/saved", "file/saved"})
    BOOST_TEST_CONTEXT(target) {
      const Outcome outcome =
          pare_opt(texts, "compress",
                   {"--sparsity", "0.5", "--save", (texts.path / "").string() + target, "--report",
                    (texts / "report.json").string()});
      check_failure(outcome, 2, "pare", {"--save", target});
      BOOST_TEST(outcome.out == "");  // before any work
      BOOST_CHECK(cli::listing(texts.path) == before);
    }
}

BOOST_AUTO_TEST_CASE(unusual_names_of_an_empty_folder_work_or_are_refused_first) {
  const Texts texts;
  fs::create_directory(texts / "empty");
  fs::create_directory_symlink(texts / "empty", texts / "link");
  for (const char* target : {".", "../link"}) BOOST_TEST_CONTEXT(target) {
      const Outcome outcome =
          cli::run(PARE_TOOL,
                   {"compress", tiny.string(), texts.calibration.string(), "--nsamples", "8",
                    "--sparsity", "0.5", "--prune-only", "3.fc1", "--save", target},
                   texts / "empty");
      if (outcome.code == 0) {
        check_saved(tiny, texts / "empty", {"layers.3.fc1"});
        for (const auto& entry : fs::directory_iterator(texts / "empty")) fs::remove(entry.path());
      } else {
        check_failure(outcome, 2, "pare", {"--save"});
        BOOST_TEST(outcome.out == "");  // before any work
        BOOST_CHECK(fs::is_empty(texts / "empty"));
      }
    }
}

BOOST_AUTO_TEST_CASE(a_folder_that_fails_late_leaves_nothing) {
  // The kernel lets nobody make a folder here, whatever the permissions say.
  if (!fs::is_directory("/proc/self")) {
    std::cout << "skipped: there is no /proc\n";
    return;
  }
  const Texts texts;
  const auto before = cli::listing(texts.path);
  const Outcome outcome =
      pare_opt(texts, "compress",
               {"--sparsity", "0.5", "--minlayer", "3", "--save", "/proc/pare-saved", "--report",
                (texts / "report.json").string()});
  BOOST_TEST((outcome.code == 1 || outcome.code == 2));
  check_failure(outcome, outcome.code, "pare", {"/proc/pare-saved"});
  BOOST_CHECK(cli::listing(texts.path) == before);
}

BOOST_AUTO_TEST_CASE(a_report_that_cannot_be_written_is_refused_first) {
  const Texts texts;
  fs::create_directory(texts / "folder");
  const auto before = cli::listing(texts.path);
  for (const char* target : {"missing/report.json", "eval.txt/report.json", "folder", "folder/"})
    BOOST_TEST_CONTEXT(target) {
      const Outcome outcome =
          pare_opt(texts, "compress",
                   {"--sparsity", "0.5", "--minlayer", "3", "--save", (texts / "saved").string(),
                    "--report", (texts.path / "").string() + target});
      check_failure(outcome, 2, "pare", {"--report", target});
      BOOST_TEST(outcome.out == "");  // before any work
      BOOST_CHECK(cli::listing(texts.path) == before);
      fs::remove_all(texts / "saved");
    }
}

BOOST_AUTO_TEST_CASE(a_text_that_json_cannot_hold_does_not_cost_the_run) {
  // A report is UTF-8; names of files and texts are any bytes.
  const Texts texts;
  const auto before = cli::listing(texts.path);
  const Outcome outcome = cli::run(PARE_TOOL,
                                   {"compress", tiny.string(), texts.calibration.string(),
                                    "--nsamples", "8", "--sparsity", "0.5", "--minlayer", "3",
                                    "--eval", "caf\xe9=" + texts.evaluation.string(), "--report",
                                    (texts / "report.json").string()},
                                   texts.path);
  if (outcome.code == 0) {
    cli::parse_json(cli::read_text(texts / "report.json"));
  } else {
    check_failure(outcome, 2, "pare", {"--eval"});
    BOOST_TEST(outcome.out == "");
    BOOST_CHECK(cli::listing(texts.path) == before);
  }
}

BOOST_AUTO_TEST_CASE(selections) {
  const Texts texts;
  const auto layer_of = [](const std::string& name) { return name[7] - '0'; };
  const auto check = [&](const Arguments& options,
                         const std::function<bool(const std::string&)>& use) {
    Arguments all{"--gmp", "--sparsity", "0.5"};
    all.insert(all.end(), options.begin(), options.end());
    BOOST_TEST_CONTEXT(cli::text_of(options)) {
      const auto names = names_in(report_of(texts, all));
      const auto expected = names_where(use);
      BOOST_TEST(names == expected, boost::test_tools::per_element());
    }
  };
  check({"--minlayer", "1", "--maxlayer", "3"},
        [&](const std::string& n) { return layer_of(n) == 1 || layer_of(n) == 2; });
  check({"--minlayer", "3"}, [&](const std::string& n) { return layer_of(n) == 3; });
  check({"--maxlayer", "1"}, [&](const std::string& n) { return layer_of(n) == 0; });
  check({"--maxlayer", "4"}, [](const std::string&) { return true; });
  check({"--prune-only", "fc1"}, [](const std::string& n) { return n.ends_with("fc1"); });
  check({"--prune_only", "q_proj", "--invert"},
        [](const std::string& n) { return !n.ends_with("q_proj"); });
  check({"--minlayer", "1", "--maxlayer", "2", "--prune-only", "self_attn"},
        [&](const std::string& n) { return layer_of(n) == 1 && test::contains(n, "self_attn"); });
  check({"--minlayer", "1", "--maxlayer", "2", "--invert"},
        [&](const std::string& n) { return layer_of(n) != 1; });
}

BOOST_AUTO_TEST_CASE(a_selection_is_compressed_and_the_rest_is_not) {
  const Texts texts;
  report_of(texts, {"--sparsity", "0.5", "--wbits", "4", "--minlayer", "2", "--prune-only",
                    "out_proj", "--save", (texts / "saved").string()});
  check_saved(tiny, texts / "saved",
              {"layers.2.self_attn.out_proj", "layers.3.self_attn.out_proj"});
}

BOOST_AUTO_TEST_CASE(magnitude_pruning_removes_the_smallest_weights) {
  const Texts texts;
  const auto saved = [&](const std::string& name) { return (texts / name).string(); };
  const Json report =
      report_of(texts, {"--gmp", "--sparsity", "0.4", "--save", saved("unstructured")});
  BOOST_TEST(report.at("config").at("gmp") == true);
  report_of(texts, {"--gmp", "--prunen", "2", "--prunem", "4", "--save", saved("groups")});
  report_of(texts, {"--gmp", "--wbits", "4", "--save", saved("rounded")});
  const pare::SafetensorsFile before(tiny / weights_name),
      unstructured(texts / "unstructured" / weights_name), groups(texts / "groups" / weights_name),
      rounded(texts / "rounded" / weights_name);
  for (const std::string& name : all_names()) BOOST_TEST_CONTEXT(name) {
      const Matrix<float> W = before.read_float(tensor_of(name));
      const Matrix<float> U = unstructured.read_float(tensor_of(name));
      float largest_gone = 0, smallest_kept = std::numeric_limits<float>::infinity();
      index_t changed = 0, gone = 0;
      for (index_t i = 0; i < W.size(); ++i) {
        const float w = W.data()[i], u = U.data()[i];
        changed += u != w && u != 0;
        gone += u == 0;
        float& bound = u == 0 ? largest_gone : smallest_kept;
        bound = u == 0 ? std::max(bound, std::abs(w)) : std::min(bound, std::abs(w));
      }
      BOOST_TEST(changed == 0);
      BOOST_TEST(largest_gone <= smallest_kept);
      BOOST_TEST(std::abs(double(gone) - 0.4 * double(W.size())) <
                 2 + double(std::count(W.data(), W.data() + W.size(), 0.0f)));

      const Matrix<float> G = groups.read_float(tensor_of(name));
      index_t wrong = 0;
      for (index_t i = 0; i < W.size(); i += 4) {
        std::vector<float> size;
        for (index_t k = i; k < i + 4; ++k) size.push_back(std::abs(W.data()[k]));
        std::sort(size.begin(), size.end());
        for (index_t k = i; k < i + 4; ++k) {
          const float w = std::abs(W.data()[k]), g = G.data()[k];
          wrong += w > size[1] ? g != W.data()[k] : w < size[1] && g != 0;
        }
      }
      BOOST_TEST(wrong == 0);

      const Matrix<float> R = rounded.read_float(tensor_of(name));
      index_t near = 0;
      for (index_t i = 0; i < W.rows(); ++i) {
        const test::PublishedGrid grid =
            test::published_grid({W.view().row(i), W.view().row(i) + W.cols()}, 4, false, false);
        for (index_t j = 0; j < W.cols(); ++j)
          near += std::abs(R(i, j) - grid.round(W(i, j))) < 0.01 * grid.scale;
      }
      // The bound is what float16 rounds away; the rest are ties.
      BOOST_TEST(double(near) / double(W.size()) > 0.99);
    }
}

BOOST_AUTO_TEST_CASE(magnitude_pruning_reads_no_calibration_text) {
  const Texts texts;
  const Outcome outcome = cli::run(PARE_TOOL,
                                   {"compress", tiny.string(), (texts / "none.txt").string(),
                                    "--gmp", "--sparsity", "0.5"},
                                   texts.path);
  check_success(outcome);
  BOOST_CHECK(test::contains(outcome.out, "no calibration"));
}

BOOST_AUTO_TEST_CASE(options_change_the_result_and_are_reported) {
  const Texts texts;
  struct Case {
    Arguments options;
    std::string key;
    Json value;
  };
  const Arguments base{"--wbits", "3", "--minlayer", "3"};
  const std::vector<Case> cases{
      {{}, "act_order", false},
      {{"--act-order"}, "act_order", true},
      {{"--clip-search"}, "clip_search", true},
      {{"--symmetric"}, "symmetric", true},
      {{"--group-size", "48"}, "group_size", 48},
      {{"--groupsize", "48", "--group-fit", "compensated"}, "group_fit", "compensated"},
      {{"--percdamp", "0.1"}, "percdamp", 0.1},
      {{"--sparsity", "0.5"}, "sparsity", 0.5},
      {{"--sparsity", "0.5", "--blocksize", "64"}, "blocksize", 64},
      {{"--prunen", "2", "--prunem", "4"}, "prunem", 4},
      {{"--seqlen", "128"}, "seqlen", 128},
      {{"--nsamples", "7"}, "nsamples", 7},
      {{"--true-sequential"}, "true_sequential", true},
      {{"--true-sequential", "--asymmetric", "0.5"}, "asymmetric", 0.5},
      {{"--target-avg-bits", "3"}, "bit_method", "budget"},
      {{"--target-avg-bits", "3", "--axis", "input"}, "axis", "input"},
  };
  std::map<double, std::string> losses;
  for (const Case& c : cases) BOOST_TEST_CONTEXT(cli::text_of(c.options)) {
      Arguments options = base;
      options.insert(options.end(), c.options.begin(), c.options.end());
      const Json report = report_of(texts, options);
      BOOST_TEST(report.at("config").at(c.key) == c.value);
      const double loss = report.at("totals").at("loss");
      const bool is_new = losses.emplace(loss, cli::text_of(c.options)).second;
      BOOST_TEST_INFO("same loss as " << losses[loss]);
      BOOST_CHECK(is_new);
    }
}

BOOST_AUTO_TEST_CASE(both_axes_count_their_channels) {
  const Texts texts;
  for (const bool input_axis : {false, true})
    for (const char* method : {"quantile", "budget"})
      BOOST_TEST_CONTEXT(method << (input_axis ? " input" : " output")) {
        const double target = 3.7;
        const Json report =
            report_of(texts, {"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "3.7",
                              "--bit-method", method, "--axis", input_axis ? "input" : "output"});
        index_t channels = 0;
        for (const Json& layer : report.at("layers")) BOOST_TEST_CONTEXT(layer.at("name")) {
            const index_t n = layer.at(input_axis ? "columns" : "rows");
            channels += n;
            const double mean = layer.at("average_bits");
            BOOST_TEST(mean <= target + 1e-12);
            BOOST_TEST(target - mean < 2.0 / double(n));
            BOOST_TEST(layer.at("bits_histogram").size() > 1u);
          }
        BOOST_TEST(report.at("totals").at("channels") == channels);
        BOOST_TEST(report.at("layers").size() == 24u);
      }
}

BOOST_AUTO_TEST_CASE(groups_of_four_lose_two) {
  const Texts texts;
  const Json report = report_of(texts, {"--prunen", "2", "--prunem", "4", "--wbits", "4",
                                        "--act-order", "--save", (texts / "saved").string()});
  BOOST_TEST(report.at("totals").at("sparsity") == 0.5);
  const pare::SafetensorsFile saved(texts / "saved" / weights_name);
  for (const std::string& name : all_names()) BOOST_TEST_CONTEXT(name) {
      const Matrix<float> Q = saved.read_float(tensor_of(name));
      index_t short_groups = 0;
      for (index_t i = 0; i < Q.size(); i += 4)
        short_groups += std::count(Q.data() + i, Q.data() + i + 4, 0.0f) < 2;
      BOOST_TEST(short_groups == 0);
    }
}

BOOST_AUTO_TEST_CASE(pruning_alone_says_that_quantization_is_off) {
  const Texts texts;
  for (const Arguments& options :
       std::vector<Arguments>{{"--sparsity", "0.5", "--report", (texts / "report.json").string()},
                              {"--sparsity", "0.5", "--wbits", "16", "--report",
                               (texts / "report.json").string()}}) {
    const Outcome outcome = pare_opt(texts, "compress", options);
    check_success(outcome);
    BOOST_CHECK(test::contains(outcome.out, "quantization is off"));
    const Json report = cli::parse_json(cli::read_text(texts / "report.json"));
    BOOST_TEST(report.at("totals").at("channels") == 0);
    BOOST_CHECK(report.at("totals").at("average_bits").is_null());
    BOOST_CHECK(report.at("layers").at(0).at("bits_histogram").empty());
    BOOST_TEST(report.at("perplexity").at("compressed").at("short").get<double>() >
               report.at("perplexity").at("dense").at("short").get<double>());
  }
  const Outcome quantized = pare_opt(texts, "compress", {"--wbits", "4"});
  check_success(quantized);
  BOOST_CHECK(!test::contains(quantized.out, "quantization is off"));
}

BOOST_AUTO_TEST_CASE(the_same_run_gives_the_same_report) {
  const Texts texts;
  const Arguments options{
      "--sparsity",        "0.5", "--wbits", "4",
      "--target-avg-bits", "4",   "--eval",  "short=" + texts.evaluation.string()};
  const Json first = timeless(report_of(texts, options));
  const Json again = timeless(report_of(texts, options));
  BOOST_CHECK(first == again);
  BOOST_CHECK(!first.at("totals").contains("seconds"));
}

BOOST_AUTO_TEST_CASE(what_openmp_is_told_changes_no_byte) {
  const Texts texts;
  const Arguments options{"--sparsity", "0.5",    "--wbits",
                          "3",          "--eval", "short=" + texts.evaluation.string()};
  const Json expected = timeless(report_of(texts, options));
  for (const auto& [variable, value] : cli::openmp_settings) {
    const cli::Environment environment(variable, value);
    BOOST_TEST_INFO(variable << "=" << value);
    BOOST_CHECK(timeless(report_of(texts, options)) == expected);
  }
}

BOOST_AUTO_TEST_CASE(every_backend_agrees_or_says_how_to_build_it) {
  const Texts texts;
  const Arguments options{
      "--sparsity",        "0.5", "--wbits", "4",
      "--target-avg-bits", "4",   "--eval",  "short=" + texts.evaluation.string()};
  const Json expected = report_of(texts, options);
  BOOST_TEST(expected.at("config").at("backend") == "eigen");
  for (const auto& [name, built] : cli::backends()) BOOST_TEST_CONTEXT(name) {
      Arguments chosen = options;
      chosen.insert(chosen.end(), {"--backend", name});
      if (!built) {
        cli::check_not_built(pare_opt(texts, "compress", chosen), "pare", name);
        continue;
      }
      const Arguments pruning{"--sparsity", "0.5", "--backend", name};
      if (cli::needs_missing_gpu(name)) {
        cli::check_without_gpu(pare_opt(texts, "compress", pruning), "pare");
        continue;
      }
      const Json report = report_of(texts, chosen);
      BOOST_TEST(report.at("config").at("backend") == name);
      for (const char* which : {"dense", "compressed"}) {
        const double value = report.at("perplexity").at(which).at("short");
        const double other = expected.at("perplexity").at(which).at("short");
        BOOST_TEST(test::relative_difference(value, other) <
                   (which == std::string("dense") ? 1e-4 : 0.05));
      }
    }
}

BOOST_AUTO_TEST_CASE(a_shape_stands_for_a_model_and_a_text) {
  const Folder folder;
  const fs::path report = folder / "report.json";
  const Outcome outcome =
      cli::run(PARE_TOOL, {"compress", "--shape", "opt-125m", "--sparsity", "0.5", "--wbits", "4",
                           "--maxlayer", "1", "--prune-only", "k_proj", "--nsamples", "2",
                           "--seqlen", "16", "--report", report.string()});
  check_success(outcome);
  BOOST_CHECK(test::contains(outcome.out, "calibration: 2 windows of 16 tokens"));
  const Json json = cli::parse_json(cli::read_text(report));
  BOOST_TEST(json.at("config").at("shape") == "opt-125m");
  BOOST_TEST(json.at("config").at("model").is_null());
  BOOST_REQUIRE(json.at("layers").size() == 1u);
  BOOST_TEST(json.at("layers")[0].at("rows") == 768);
  BOOST_TEST(json.at("layers")[0].at("sparsity") == 0.5);
  BOOST_TEST(json.at("totals").at("peak_device_bytes").is_null());
}

BOOST_AUTO_TEST_CASE(several_texts_are_evaluated) {
  const Texts texts;
  cli::write_text(texts / "other.txt", cli::excerpt("sampled.calib.txt", 3000));
  const Outcome outcome =
      pare_opt(texts, "evaluate",
               {"--eval", "other=" + (texts / "other.txt").string(), "--report", "evaluated.json"});
  check_success(outcome);
  const Json report = cli::parse_json(cli::read_text(texts / "evaluated.json"));
  BOOST_TEST(report.at("perplexity").size() == 2u);
  BOOST_TEST(report.at("perplexity").at("short") != report.at("perplexity").at("other"));
  BOOST_CHECK(test::contains(outcome.out, "perplexity on short: "));
  BOOST_CHECK(test::contains(outcome.out, "perplexity on other: "));
}

BOOST_AUTO_TEST_CASE(help_lists_the_options) {
  check_success(cli::run(PARE_TOOL, {"--help"}));
  BOOST_CHECK(test::contains(cli::run(PARE_TOOL, {"compress", "--help"}).out, "--target-avg-bits"));
}

BOOST_AUTO_TEST_CASE(texts_that_cannot_be_used_name_the_file_and_the_cause) {
  const Texts texts;
  const fs::path bad = texts / "bad.txt";
  struct Case {
    std::string name;
    std::optional<std::string> content;
    std::string cause;
  };
  const std::string good = cli::excerpt("sampled.calib.txt", 3000);
  const std::vector<Case> cases{
      {"missing", std::nullopt, "No such file"},
      {"empty", "", "less than one window of 256"},
      {"short", "One line is less than a window.\n", "less than one window of 256"},
      {"latin-1", good + "caf\xe9 noir",
       "not valid UTF-8 at byte " + std::to_string(good.size() + 3)},
      {"surrogate", "\xed\xa0\x80" + good, "not valid UTF-8 at byte 0"},
      {"cut in a character", good + "\xe2\x82",
       "not valid UTF-8 at byte " + std::to_string(good.size())},
  };
  for (const Case& c : cases) BOOST_TEST_CONTEXT(c.name) {
      fs::remove(bad);
      if (c.content) cli::write_text(bad, *c.content);
      const auto before = cli::listing(texts.path);
      const Arguments outputs{"--save", (texts / "saved").string(), "--report",
                              (texts / "report.json").string()};
      Arguments calibrate{"compress", tiny.string(), bad.string(), "--wbits", "4"};
      calibrate.insert(calibrate.end(), outputs.begin(), outputs.end());
      check_failure(cli::run(PARE_TOOL, calibrate, texts.path), 2, "pare",
                    {bad.string() + ": ", c.cause});
      Arguments evaluate{"--wbits", "4", "--eval", "bad=" + bad.string()};
      evaluate.insert(evaluate.end(), outputs.begin(), outputs.end());
      const Outcome outcome = pare_opt(texts, "compress", evaluate);
      check_failure(outcome, 2, "pare", {bad.string() + ": ", c.cause});
      BOOST_CHECK(!test::contains(outcome.out, "perplexity"));  // before any work
      check_failure(pare_opt(texts, "evaluate", {"--eval", "bad=" + bad.string()}), 2, "pare",
                    {bad.string() + ": ", c.cause});
      BOOST_CHECK(cli::listing(texts.path) == before);
    }
  check_failure(pare_opt(texts, "evaluate", {"--eval", "folder=" + texts.path.string()}), 2, "pare",
                {texts.path.string(), "not a regular file"});
}

BOOST_AUTO_TEST_CASE(one_window_is_enough) {
  const Texts texts;
  const std::string text = cli::excerpt("sampled.calib.txt", 1400);
  cli::write_text(texts.calibration, text);
  const Outcome outcome = pare_opt(texts, "compress", {"--sparsity", "0.5", "--minlayer", "3"});
  check_success(outcome);
  BOOST_CHECK(test::contains(outcome.out, "asked for 8"));  // fewer than asked for is said
}

BOOST_AUTO_TEST_CASE(models_that_cannot_be_used_name_the_file_and_the_cause) {
  const Texts texts;
  const fs::path model = texts / "model";
  const auto refuse = [&](const std::string& what, const std::vector<std::string>& parts) {
    BOOST_TEST_CONTEXT(what) {
      const auto before = cli::listing(texts.path);
      check_failure(pare_opt(texts, "compress",
                             {"--wbits", "4", "--save", (texts / "saved").string(), "--report",
                              (texts / "report.json").string()},
                             model),
                    2, "pare", parts);
      check_failure(pare_opt(texts, "evaluate", {}, model), 2, "pare", parts);
      BOOST_CHECK(cli::listing(texts.path) == before);
    }
  };
  const auto fresh = [&](bool weights = true) {
    fs::remove_all(model);
    copy_model(model, weights);
  };
  refuse("no folder", {model.string(), "No such file"});

  const std::string config_file = (model / "config.json").string() + ": ";
  const Json config = cli::parse_json(cli::read_text(tiny / "config.json"));
  struct Field {
    const char* name;
    Json value;  // null: the field is left out
    std::string got;
  };
  for (const Field& field :
       std::vector<Field>{{"hidden_size", -1, "got -1"},
                          {"hidden_size", "x", "got \"x\""},
                          {"hidden_size", 1e12, "got 1000000000000.0"},
                          {"hidden_size", 1000000000000, "got 1000000000000"},
                          {"hidden_size", 0, "got 0"},
                          {"hidden_size", 192.5, "got 192.5"},
                          {"hidden_size", Json::array({192}), "got [192]"},
                          {"hidden_size", nullptr, "got nothing"},
                          {"ffn_dim", nullptr, "got nothing"},
                          {"num_hidden_layers", nullptr, "got nothing"},
                          {"num_hidden_layers", 1000000000000000000, "got 1000000000000000000"},
                          {"num_attention_heads", nullptr, "got nothing"},
                          {"num_attention_heads", 7, "got 7"},
                          {"vocab_size", nullptr, "got nothing"},
                          {"max_position_embeddings", nullptr, "got nothing"},
                          {"max_position_embeddings", -256, "got -256"},
                          {"model_type", "mamba", "got \"mamba\""},
                          {"model_type", nullptr, "got nothing"},
                          {"activation_function", "tanh", "got \"tanh\""},
                          {"do_layer_norm_before", "yes", "got \"yes\""},
                          {"enable_bias", 1, "got 1"},
                          {"word_embed_proj_dim", -5, "got -5"},
                          {"bos_token_id", 4096, "got 4096"}}) {
    fresh();
    Json changed = config;
    changed[field.name] = field.value;
    if (field.value.is_null()) changed.erase(field.name);
    cli::write_text(model / "config.json", changed.dump());
    refuse(std::string(field.name) + " " + field.value.dump(),
           {config_file + field.name + ": expected ", field.got});
  }
  // Plausible, but not what the weights are.
  for (const auto& [name, value, shape] : std::vector<std::tuple<std::string, int, std::string>>{
           {"hidden_size", 384, "(258, 384), got (258, 192)"},
           {"ffn_dim", 512, "(512, 192), got (768, 192)"},
           {"max_position_embeddings", 512, "(514, 192), got (258, 192)"},
           {"vocab_size", 5000, "(5000, 192), got (4096, 192)"},
           {"word_embed_proj_dim", 96, "(4096, 96), got (4096, 192)"}}) {
    fresh();
    Json changed = config;
    changed[name] = value;
    if (name == "hidden_size") changed["word_embed_proj_dim"] = 192;
    cli::write_text(model / "config.json", changed.dump());
    refuse("another " + name,
           {(model / weights_name).string() + ": tensor", "expected shape " + shape});
  }
  fresh();
  Json deeper = config;
  deeper["num_hidden_layers"] = 5;
  cli::write_text(model / "config.json", deeper.dump());
  refuse("a layer too many", {model.string(), "there is no tensor", "layers.4."});
  fresh();
  fs::remove(model / "config.json");
  refuse("no config", {config_file, "No such file"});
  fresh();
  cli::write_text(model / "config.json", "{\"hidden_size\": 192,");
  refuse("half a config", {config_file, "not valid JSON"});
  cli::write_text(model / "config.json", "[]");
  refuse("a list as config", {config_file, "expected a JSON object"});

  for (const char* name : {"vocab.json", "merges.txt"}) {
    fresh();
    fs::remove(model / name);
    refuse(std::string("no ") + name, {(model / name).string() + ": ", "No such file"});
  }
  fresh();
  cli::write_text(model / "vocab.json", "{}");
  refuse("an empty vocabulary", {model.string(), "is not in the vocabulary"});
  cli::write_text(model / "vocab.json", "[]");
  refuse("a list as vocabulary", {(model / "vocab.json").string() + ": "});
  fresh();
  Json vocabulary = cli::parse_json(cli::read_text(tiny / "vocab.json"));
  vocabulary["one too many"] = 4096;
  cli::write_text(model / "vocab.json", vocabulary.dump());
  refuse("an id outside the embeddings", {(model / "vocab.json").string() + ": ", "4096"});
  fresh();
  cli::write_text(model / "merges.txt", "#version: 0.2\nnot a merge\n");
  refuse("bad merges", {(model / "merges.txt").string() + ": "});

  const std::string weights_file = (model / weights_name).string() + ": ";
  fresh(false);
  refuse("no weights", {model.string() + ": found none of", "pytorch_model.bin"});
  cli::write_text(model / "pytorch_model.bin", "");
  refuse("an empty pickle", {(model / "pytorch_model.bin").string() + ": not a zip archive"});
  fresh();
  const std::string whole = cli::read_text(tiny / weights_name);
  for (const std::size_t keep :
       {std::size_t(0), std::size_t(4), std::size_t(1000), whole.size() / 2, whole.size() - 1}) {
    cli::write_text(model / weights_name, whole.substr(0, keep));
    refuse("weights cut to " + std::to_string(keep), {weights_file, "bytes"});
  }
  std::string oversized = whole;
  oversized[7] = '\x7f';
  cli::write_text(model / weights_name, oversized);
  refuse("oversized header", {weights_file, "header length"});

  const std::string victim = tensor_of("layers.1.fc1");
  const auto change = [&](const std::function<void(TensorData&)>& edit) {
    std::vector<TensorData> tensors = tensors_of(tiny / weights_name);
    for (TensorData& tensor : tensors)
      if (tensor.name == victim) edit(tensor);
    pare::write_safetensors(model / weights_name, tensors);
  };
  change([](TensorData& t) {
    t.dtype = "I64";
    t.bytes.assign(t.bytes.size() * 4, std::byte{0});
  });
  refuse("an integer tensor", {weights_file + "tensor '" + victim + "'", "I64"});
  change([](TensorData& t) { std::swap(t.shape[0], t.shape[1]); });
  refuse("a transposed tensor",
         {weights_file + "tensor '" + victim + "'", "expected shape (768, 192), got (192, 768)"});
  change([](TensorData& t) { t.name += "s"; });
  refuse("a renamed tensor", {model.string(), "there is no tensor '" + victim + "'"});
  change([](TensorData& t) {
    const std::uint16_t nan = 0x7e00;
    std::memcpy(t.bytes.data() + 2 * (5 * 192 + 7), &nan, 2);
  });
  refuse("a NaN in a tensor", {weights_file + "tensor '" + victim + "'", "NaN", "(5, 7)"});

  fs::remove_all(model);
  copy_sharded(model);
  fs::remove(model / "model-00002-of-00003.safetensors");
  refuse("a missing shard", {"model-00002-of-00003.safetensors"});
  fs::remove_all(model);
  copy_sharded(model);
  cli::write_text(model / "model-00003-of-00003.safetensors", "");
  refuse("an empty shard", {(model / "model-00003-of-00003.safetensors").string() + ": "});
}

BOOST_AUTO_TEST_CASE(standard_output_that_cannot_be_written_is_a_failure) {
  if (!fs::exists("/dev/full")) {
    std::cout << "skipped: there is no /dev/full\n";
    return;
  }
  const Texts texts;
  const Outcome outcome =
      cli::run(PARE_TOOL,
               {"evaluate", tiny.string(), "--eval", "short=" + texts.evaluation.string()},
               texts.path, "/dev/full");
  check_failure(outcome, 1, "pare", {"standard output"});
}
