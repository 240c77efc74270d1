// How much memory pare needs: a model that is larger than what the process may have is
// compressed a decoder layer at a time.
#define BOOST_TEST_MODULE pare_memory_tool
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <iostream>

#include "address_sanitizer.hpp"
#include "cli_support.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Json;
using cli::Outcome;
using cli::Texts;

namespace {

constexpr std::int64_t hidden = 768, ffn = 3072, layers = 16;
constexpr double mebi = 1 << 20;
constexpr double layer_megabytes = 4.0 * (4 * hidden * hidden + 2 * hidden * ffn) / mebi;

/// An OPT model of 16 layers, 27 MiB each while one is worked on, 216 MiB in float16 on the disk.
/// Equal tensors of all layers hold the same numbers, which takes no time to write.
struct LargeModel : Texts {
  fs::path folder = path / "large";

  LargeModel() {
    const fs::path tiny = cli::data / "opt-tiny";
    Json config = cli::parse_json(cli::read_text(tiny / "config.json"));
    config.update({{"hidden_size", hidden},
                   {"word_embed_proj_dim", hidden},
                   {"ffn_dim", ffn},
                   {"num_hidden_layers", layers},
                   {"num_attention_heads", 12}});
    fs::create_directory(folder);
    for (const char* name : {"vocab.json", "merges.txt"}) fs::copy_file(tiny / name, folder / name);
    cli::write_text(folder / "config.json", config.dump());

    std::vector<pare::TensorInfo> infos;
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
      infos.push_back({"model.decoder." + name, "F16", std::move(shape)});
    };
    const auto both = [&](const std::string& name, std::vector<std::int64_t> shape) {
      add(name + ".bias", {shape.front()});
      add(name + ".weight", std::move(shape));
    };
    add("embed_tokens.weight", {config.at("vocab_size"), hidden});
    add("embed_positions.weight",
        {config.at("max_position_embeddings").get<std::int64_t>() + 2, hidden});
    for (int i = 0; i < layers; ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
        both(layer + "self_attn." + name, {hidden, hidden});
      both(layer + "fc1", {ffn, hidden});
      both(layer + "fc2", {hidden, ffn});
      both(layer + "self_attn_layer_norm", {hidden});
      both(layer + "final_layer_norm", {hidden});
    }
    both("final_layer_norm", {hidden});

    std::vector<float> values(std::size_t(hidden * 4096));
    test::Random random(1);
    for (float& v : values) v = 0.1f * float(random.uniform() - 0.5);
    const std::vector<std::byte> numbers = pare::encode_floats(values, pare::DType::f16);
    pare::write_safetensors(folder / "model.safetensors", infos, {{"format", "pt"}},
                            [&](std::size_t i) {
                              std::size_t bytes = 2;
                              for (const auto side : infos[i].shape) bytes *= std::size_t(side);
                              return std::span<const std::byte>(numbers).first(bytes);
                            });
  }

  /// Runs pare with `megabytes` of private memory, files that are mapped not counted.
  Outcome limited(double megabytes, const Arguments& arguments) const {
    const std::string kilobytes = std::to_string(long(1024 * megabytes));
    Arguments words{"-c", "ulimit -d " + kilobytes + " && exec \"$@\"", "sh",
                    fs::absolute(PARE_TOOL).string()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return cli::run("/bin/sh", words, path);
  }

  Arguments compress(const Arguments& more) const {
    Arguments words{
        "compress", folder.string(), calibration.string(), "--nsamples", "2", "--seqlen",
        "64",       "--prune-only",  "self_attn"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_model_larger_than_the_process_may_be_is_compressed) {
  if (test::address_sanitizer) {
    std::cout << "skipped: memory limits: a sanitizer's own memory is many times a program's\n";
    return;
  }
  // Every thread has a stack of its own, and OpenBLAS a buffer for each.
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("OPENBLAS_NUM_THREADS", "1", 1);
  const LargeModel model;
  // What the program and its libraries need before they do anything.
  double base = 4;
  while (base < 4096 && model.limited(base, {"--help"}).code != 0) base *= 1.25;
  const double whole = layers * layer_megabytes;
  const double enough = base + 190;  // batches, states and embeddings besides two layers
  BOOST_REQUIRE(enough < whole);

  cli::write_text(model / "two.txt", cli::read_text(model.evaluation).substr(0, 2000));
  const Arguments main_path = model.compress(
      {"--sparsity", "0.5", "--wbits", "4", "--eval", "two=" + (model / "two.txt").string(),
       "--save", "saved", "--save-packed", "packed", "--report", "report.json"});
  const Outcome outcome = model.limited(enough, main_path);
  check_success(outcome);
  const double libraries = cli::run(PARE_TOOL, {"--help"}).megabytes;
  BOOST_TEST_MESSAGE("the model takes "
                     << whole << " MiB, a layer " << layer_megabytes << "; the limit was " << enough
                     << " MiB, of which " << base << " before any work; resident at most "
                     << outcome.megabytes << " MiB, of which " << libraries << " libraries");
  // Mapped files are given back as they are read.
  BOOST_TEST(outcome.megabytes - libraries < 0.5 * whole);
  BOOST_TEST(pare::SafetensorsFile(model / "saved/model.safetensors").tensors().size() ==
             pare::SafetensorsFile(model.folder / "model.safetensors").tensors().size());
  const Json report = cli::parse_json(cli::read_text(model / "report.json"));
  BOOST_TEST(report.at("layers").size() == std::size_t(4 * layers));

  // What needs the whole model does not fit, and less than a layer is too little for anything.
  check_failure(model.limited(enough, model.compress({"--wbits", "3", "--target-avg-bits", "3.5",
                                                      "--scope", "model", "--kl-windows", "1"})),
                1, "pare", {"out of memory"});
  check_failure(model.limited(base + 0.6 * layer_megabytes,
                              model.compress(
                                  {"--sparsity", "0.5", "--wbits", "4", "--save", "never"})),
                1, "pare", {"out of memory"});
  BOOST_TEST(!fs::exists(model / "never"));
  for (const auto& entry : fs::directory_iterator(model.path)) {
    const std::string name = entry.path().filename().string();
    BOOST_TEST_INFO("left behind: " << name);
    BOOST_CHECK(name.find(".partial-") == std::string::npos &&
                name.find(".layers-") == std::string::npos);
  }
}
