// Packed models from the command line, on the shipped opt-tiny: compress --save-packed and --save-as,
// evaluate, unpack, export, inspect, verify.
#define BOOST_TEST_MODULE pare_packed_tool
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstring>
#include <functional>

#include "address_sanitizer.hpp"
#include "cli_support.hpp"
#include "pare/model/config_json.hpp"
#include "pare/pipeline/run/export_folder.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/tokenizer/tokenizer.hpp"

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

namespace {

const fs::path tiny = cli::data / "opt-tiny";

Outcome pare_opt(const Texts& texts, const Arguments& arguments) {
  return cli::run(PARE_TOOL, arguments, texts.path);
}

/// A compression of opt-tiny, saved dense and packed.
struct Compressed : Texts {
  fs::path packed = path / "packed", saved = path / "saved";
  Json report;

  explicit Compressed(const Arguments& options) {
    Arguments all{"compress",
                  tiny.string(),
                  calibration.string(),
                  "--eval",
                  "short=" + evaluation.string(),
                  "--save",
                  saved.string(),
                  "--save-packed",
                  packed.string(),
                  "--report",
                  (path / "report.json").string()};
    if (std::find(options.begin(), options.end(), "--gmp") == options.end())
      all.insert(all.end(), {"--nsamples", "4"});
    all.insert(all.end(), options.begin(), options.end());
    const Outcome outcome = pare_opt(*this, all);
    BOOST_TEST_INFO(cli::text_of(all) << outcome.err);
    BOOST_REQUIRE(outcome.code == 0);
    BOOST_CHECK(test::contains(outcome.out, "packed to " + packed.string()));
    report = cli::parse_json(cli::read_text(path / "report.json"));
  }
  bool gmp() const { return report.at("config").at("gmp"); }
  fs::path file() const { return packed / pare::PackedFile::name; }
  Outcome verify(const fs::path& original = tiny) const {
    Arguments words{"verify", original.string(), packed.string()};
    if (!gmp()) words.push_back(calibration.string());
    return pare_opt(*this, words);
  }
};

/// The 32-bit words of a tensor.
std::vector<std::uint32_t> words_of(const pare::SafetensorsFile& file, const std::string& name) {
  const std::vector<std::byte> bytes = file.read_bytes(name);
  std::vector<std::uint32_t> words(bytes.size() / sizeof(std::uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(std::uint32_t));
  return words;
}

double perplexity(const Texts& texts, const fs::path& model) {
  const fs::path file = texts / "evaluated.json";
  check_success(pare_opt(texts, {"evaluate", model.string(), "--eval",
                                 "short=" + texts.evaluation.string(), "--report", file.string()}));
  return cli::parse_json(cli::read_text(file)).at("perplexity").at("short");
}

/// The packed file with other tensors and another description, its checksums made to fit.
void forge(const Compressed& c,
           const std::function<void(std::vector<pare::TensorData>&, Json&)>& change,
           bool also_report) {
  std::vector<pare::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  {
    const pare::SafetensorsFile source(c.file());
    for (const pare::TensorInfo& info : source.tensors())
      tensors.push_back({info.name, info.dtype, info.shape, source.read_bytes(info.name)});
    metadata = source.metadata();
  }
  Json description = Json::parse(metadata.at("pare.packed"));
  change(tensors, description);
  for (const pare::TensorData& tensor : tensors)
    if (description["checksums"].contains(tensor.name))
      description["checksums"][tensor.name] = pare::hex_text(pare::xxh64(tensor.bytes));
  Json report = cli::parse_json(cli::read_text(c.packed / "report.json"));
  for (Json& linear : description["linears"]) {
    pare::Fingerprint hash;
    for (const char* suffix : pare::detail::packed_parts)
      for (const pare::TensorData& tensor : tensors)
        if (tensor.name == linear["tensor"].get<std::string>() + suffix) hash.add(tensor.bytes);
    linear["checksum"] = pare::hex_text(hash.value());
    if (also_report)
      report["packed"]["checksums"][linear["tensor"].get<std::string>()] = linear["checksum"];
  }
  metadata["pare.packed"] = description.dump();
  pare::write_safetensors(c.file(), tensors, metadata);
  report["packed"]["file_bytes"] = fs::file_size(c.file());
  cli::write_text(c.packed / "report.json", report.dump());
}

pare::TensorData& tensor(std::vector<pare::TensorData>& tensors, const std::string& name) {
  for (pare::TensorData& t : tensors)
    if (t.name == name) return t;
  BOOST_REQUIRE_MESSAGE(false, "no tensor " + name);
  return tensors.front();
}

const std::string fc1 = "model.decoder.layers.3.fc1.weight";

/// Both folders hold the same tensors, bit by bit.
void check_same_model(const fs::path& a, const fs::path& b) {
  const pare::SafetensorsFile one(a / "model.safetensors"), other(b / "model.safetensors");
  BOOST_TEST(one.tensors().size() == other.tensors().size());
  for (const pare::TensorInfo& info : one.tensors()) {
    BOOST_TEST_INFO(info.name);
    BOOST_REQUIRE(other.find(info.name) != nullptr);
    BOOST_CHECK(other.find(info.name)->shape == info.shape);
    BOOST_CHECK(one.read_bytes(info.name) == other.read_bytes(info.name));
  }
  for (const char* name : {"config.json", "vocab.json", "merges.txt", "tokenizer.json"})
    BOOST_CHECK(cli::read_text(a / name) == cli::read_text(b / name));
}

/// The perplexity that transformers computes of a folder; none, and a line saying so, where Python
/// lacks it.
std::optional<double> perplexity_of_transformers(const Texts& texts, const fs::path& model) {
  const fs::path python = "/usr/bin/env";
  if (cli::run(python, {"python3", "-c", "import torch, transformers"}).code != 0) {
    std::cout << "skipped: the perplexity of the unpacked folder in transformers: install it\n";
    return {};
  }
  const pare::Architecture config = pare::load_architecture(model);
  const auto tokenizer = pare::Tokenizer::load(model / "vocab.json", model / "merges.txt");
  std::vector<std::int32_t> ids = tokenizer.encode(cli::read_text(texts.evaluation));
  ids.insert(ids.begin(), std::int32_t(config.bos_token_id));
  const std::size_t seqlen = std::size_t(config.max_position_embeddings);
  ids.resize(ids.size() / seqlen * seqlen);
  cli::write_text(texts / "ids.json", Json(ids).dump());
  const std::string script = R"(
import json, math, sys, torch, transformers
model = transformers.OPTForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32).eval()
ids = torch.tensor(json.load(open(sys.argv[2]))).view(-1, int(sys.argv[3]))
with torch.no_grad():
    losses = [model(row[None], labels=row[None]).loss.item() for row in ids]
print(math.exp(sum(losses) / len(losses)))
)";
  const Outcome outcome = cli::run(python, {"python3", "-c", script, model.string(),
                                            (texts / "ids.json").string(), std::to_string(seqlen)});
  BOOST_TEST_INFO(outcome.err);
  BOOST_REQUIRE(outcome.code == 0);
  return std::stod(outcome.out);
}

}  // namespace

BOOST_AUTO_TEST_CASE(packed_unpacked_inspected_and_verified_it_is_the_same_model) {
  for (const Arguments& options :
       {Arguments{"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "3.5", "--group-size",
                  "40", "--group-fit", "compensated"},
        Arguments{"--prunen", "2", "--prunem", "4", "--wbits", "4", "--target-avg-bits", "4.5",
                  "--axis", "input", "--true-sequential", "--asymmetric", "0.5", "--clip-search",
                  "--minlayer", "2", "--group-size", "64"},
        Arguments{"--wbits", "3", "--symmetric", "--prune-only", "fc", "--act-order"},
        Arguments{"--sparsity", "0.6", "--maxlayer", "2"},
        Arguments{"--sparsity", "0.5", "--wbits", "4", "--rotate", "full"},
        Arguments{"--sparsity", "0.5", "--rotate", "full", "--maxlayer", "2"},
        Arguments{"--wbits", "4", "--rotate", "folded", "--prune-only", "fc"},
        Arguments{"--sparsity", "0.5", "--wbits", "4", "--rotate", "auto",
                  "--target-bits-per-weight", "3.3", "--kl-windows", "1", "--minlayer", "2",
                  "--true-sequential", "--asymmetric", "0.5"},
        Arguments{"--gmp", "--sparsity", "0.4", "--wbits", "5", "--group-size", "32"}})
    BOOST_TEST_CONTEXT(cli::text_of(options)) {
      const Compressed c(options);
      const double expected = c.report.at("perplexity").at("compressed").at("short");
      // Where inputs are rotated, weights are not rounded to the checkpoint's type before.
      const bool rotated = std::find(options.begin(), options.end(), "--rotate") != options.end();
      BOOST_TEST(test::relative_difference(perplexity(c, c.packed), expected) <
                 (rotated ? 1e-3 : 1e-5));

      // Every byte is in the report.
      double stored = 0;
      for (const Json& layer : c.report.at("layers"))
        stored += layer.at("stored_bits_per_weight").get<double>() *
                  double(layer.at("rows").get<int>() * layer.at("columns").get<int>()) / 8;
      const pare::PackedFile file(c.packed);
      std::uint64_t rest = file.file().data_offset();
      for (const pare::TensorInfo& info : file.file().tensors())
        if (!file.is_part(info.name)) rest += info.end - info.begin;
      BOOST_TEST(std::uint64_t(std::llround(stored)) + rest == fs::file_size(c.file()));
      BOOST_TEST(c.report.at("packed").at("file_bytes") == fs::file_size(c.file()));
      BOOST_TEST(c.report.at("config").at("half_scale") ==
                 (std::find(options.begin(), options.end(), "--wbits") != options.end()));

      check_success(pare_opt(c, {"unpack", c.packed.string(), (c / "unpacked").string()}));
      check_same_model(c.saved, c / "unpacked");

      const Outcome table = pare_opt(c, {"inspect", c.packed.string()});
      check_success(table);
      for (const pare::PackedEntry& entry : file.linears()) {
        BOOST_CHECK(test::contains(table.out, entry.tensor));
        BOOST_CHECK(test::contains(table.out, pare::hex_text(entry.checksum)));
      }
      BOOST_CHECK(test::contains(table.out, std::to_string(fs::file_size(c.file())) + " in all"));
      BOOST_CHECK(test::contains(table.out, "of every tensor; all hold"));

      const Outcome verified = c.verify();
      check_success(verified);
      BOOST_CHECK(test::contains(verified.out, ", and every loss"));
      check_success(pare_opt(c, {"verify", tiny.string(), c.packed.string()}));
      if (const auto other = perplexity_of_transformers(c, c / "unpacked"))
        BOOST_TEST(test::relative_difference(*other, expected) < 1e-4);
    }
}

BOOST_AUTO_TEST_CASE(verify_fails_on_every_difference) {
  const Compressed c(
      {"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "3.5", "--minlayer", "3"});
  const std::string file = cli::read_text(c.file());
  const std::string report = cli::read_text(c.packed / "report.json");
  const auto restore = [&] {
    cli::write_text(c.file(), file);
    cli::write_text(c.packed / "report.json", report);
  };
  check_success(c.verify());
  using Tensors = std::vector<pare::TensorData>;
  const auto refuse_to_unpack = [&](const std::string& tensor) {  // the input is named, not OUT
    const Outcome outcome = pare_opt(c, {"unpack", c.packed.string(), (c / "unpacked").string()});
    check_failure(outcome, 2, "pare: " + c.file().string(), {tensor, "the data was changed"});
    BOOST_TEST(!fs::exists(c / "unpacked"));
  };

  // A flipped code, as a disk would do it, whatever the command.
  {
    const pare::SafetensorsFile source(c.file());
    std::string bytes = file;
    bytes[source.data_offset() + source.find(fc1 + ".codes")->begin + 40] ^= 4;
    cli::write_text(c.file(), bytes);
    for (const Outcome& outcome : {c.verify(), pare_opt(c, {"inspect", c.packed.string()})})
      BOOST_TEST((outcome.code != 0 && test::contains(outcome.err, fc1) &&
                  test::contains(outcome.err, "the data was changed")));
    refuse_to_unpack(fc1);
  }
  // The same in the embeddings.
  {
    const std::string embeddings = "model.decoder.embed_tokens.weight";
    const pare::SafetensorsFile source(c.file());
    std::string bytes = file;
    bytes[source.data_offset() + source.find(embeddings)->begin + 41] ^= 4;
    cli::write_text(c.file(), bytes);
    for (const Outcome& outcome :
         {pare_opt(c, {"evaluate", c.packed.string(), "--eval", "e=" + c.evaluation.string()}),
          pare_opt(c, {"inspect", c.packed.string()})})
      BOOST_TEST((outcome.code != 0 && test::contains(outcome.err, embeddings) &&
                  test::contains(outcome.err, "the data was changed")));
    refuse_to_unpack(embeddings);
  }
  // The same by someone who makes the file's checksum fit.
  restore();
  forge(
      c, [](Tensors& t, Json&) { tensor(t, fc1 + ".codes").bytes[40] ^= std::byte(4); }, false);
  check_failure(c.verify(), 1, "pare", {fc1, "checksum: recorded "});
  // Scales of one linear, by someone who makes everything fit: only the loss tells.
  restore();
  forge(
      c,
      [](Tensors& t, Json&) {
        pare::TensorData& scales = tensor(t, fc1 + ".scales");
        for (std::size_t k = 1; k < scales.bytes.size(); k += 2) scales.bytes[k] ^= std::byte(1);
      },
      true);
  check_failure(c.verify(), 1, "pare", {"layers.3.fc1: loss: recorded "});
  // Many codes.
  restore();
  forge(
      c,
      [](Tensors& t, Json&) {
        for (std::byte& b : tensor(t, fc1 + ".codes").bytes) b ^= std::byte(0x11);
      },
      true);
  BOOST_TEST(c.verify().code == 1);
  // Widths of two channels that take the same bytes, exchanged.
  restore();
  forge(
      c,
      [](Tensors& t, Json&) {
        std::vector<std::byte>& widths = tensor(t, fc1 + ".widths").bytes;
        std::swap(widths.front(), *std::find_if(widths.begin(), widths.end(),
                                                [&](std::byte b) { return b != widths.front(); }));
      },
      true);
  BOOST_TEST(c.verify().code != 0);
  // A mask bit moved.
  restore();
  forge(
      c, [](Tensors& t, Json&) { tensor(t, fc1 + ".mask").bytes[0] ^= std::byte(1); }, true);
  BOOST_TEST(c.verify().code != 0);
  // A tensor that is not packed.
  restore();
  const std::string norm = "model.decoder.layers.0.final_layer_norm.weight";
  forge(
      c, [&](Tensors& t, Json&) { tensor(t, norm).bytes[3] ^= std::byte(1); }, true);
  check_failure(c.verify(), 1, "pare", {norm, "is not the original's, though it is not packed"});

  // Another original: a weight of a packed linear, a file of the tokenizer.
  restore();
  const Folder other;
  for (const auto& entry : fs::directory_iterator(tiny))
    fs::copy_file(entry.path(), other / entry.path().filename());
  const pare::SafetensorsFile dense(tiny / "model.safetensors");
  std::string weights = cli::read_text(tiny / "model.safetensors");
  weights[dense.data_offset() + dense.find(fc1)->begin + 8] ^= 1;
  cli::write_text(other / "model.safetensors", weights);
  check_failure(c.verify(other.path), 1, "pare",
                {fc1, "was made from other weights than the original's"});
  fs::copy_file(tiny / "model.safetensors", other / "model.safetensors",
                fs::copy_options::overwrite_existing);
  check_success(c.verify(other.path));
  cli::write_text(other / "merges.txt", cli::read_text(tiny / "merges.txt") + "\n");
  check_failure(pare_opt(c, {"verify", other.path.string(), c.packed.string()}), 1, "pare",
                {"merges.txt: is not the original's"});

  // Another text, a shorter one, and reports that say something else.
  check_failure(pare_opt(c, {"verify", tiny.string(), c.packed.string(), c.evaluation.string()}), 1,
                "pare", {"is not the text that the model was calibrated on"});
  cli::write_text(c / "short.txt", cli::read_text(c.calibration).substr(0, 1500));
  check_failure(pare_opt(c,
                         {"verify", tiny.string(), c.packed.string(), (c / "short.txt").string()}),
                1, "pare", {"the model was calibrated on 4 windows of 256 tokens"});
  const auto with_report = [&](const std::function<void(Json&)>& change) {
    Json json = cli::parse_json(report);
    change(json);
    cli::write_text(c.packed / "report.json", json.dump());
    return c.verify();
  };
  for (const char* key : {"zeros", "sparsity", "average_bits", "stored_bits_per_weight", "loss"})
    check_failure(with_report([&](Json& json) {
                    json["layers"][4][key] = 1.01 * json["layers"][4][key].get<double>();
                  }),
                  1, "pare", {"1 difference: layers.3.fc1: ", key});
  check_failure(with_report([](Json& json) { json["layers"][4]["group_size"] = 64; }), 1, "pare",
                {"layers.3.fc1: group_size: recorded 64, found 0"});
  check_failure(with_report([](Json& json) { json["layers"].erase(4); }), 2, "pare",
                {"layers.3.fc1: expected a record of its compression"});
  check_failure(with_report([](Json& json) { json.erase("packed"); }), 2, "pare",
                {"report.json: not a report of compress --save-packed"});
  fs::remove(c.packed / "report.json");
  check_failure(c.verify(), 2, "pare", {"report.json"});
}

BOOST_AUTO_TEST_CASE(evaluation_needs_less_memory_than_the_dense_weights) {
  // Made-up codes: 4 layers of 12.6 million weights, 200 MiB in float32, 25 MB packed.
  const Texts texts;
  const std::int64_t hidden = 1024, ffn = 4096, layers = 4;
  Json config = cli::parse_json(cli::read_text(tiny / "config.json"));
  config.update({{"hidden_size", hidden},
                 {"word_embed_proj_dim", hidden},
                 {"ffn_dim", ffn},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", 16}});
  const fs::path folder = texts / "large";
  fs::create_directory(folder);
  for (const char* name : {"vocab.json", "merges.txt"}) fs::copy_file(tiny / name, folder / name);
  cli::write_text(folder / "config.json", config.dump());

  std::vector<pare::TensorData> tensors;
  Json linears = Json::array();
  test::Random random(1);
  const auto floats = [&](const std::string& name, std::vector<std::int64_t> shape, float size) {
    std::size_t count = 1;
    for (const std::int64_t side : shape) count *= std::size_t(side);
    std::vector<float> values(count);
    for (float& v : values) v = size * float(random.uniform() - 0.5);
    tensors.push_back({"model.decoder." + name, "F32", std::move(shape),
                       pare::encode_floats(values, pare::DType::f32)});
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    const std::string tensor = "model.decoder." + name + ".weight";
    std::vector<std::byte> codes(std::size_t(out * in / 2)), scales(std::size_t(2 * out)),
        zeros(std::size_t(out), std::byte(8));
    for (std::size_t k = 0; k < codes.size(); k += 8) {
      const std::uint64_t word = random.next();
      std::memcpy(codes.data() + k, &word, 8);
    }
    const std::uint16_t scale = pare::float_to_half(0.004f);
    for (std::size_t k = 0; k < scales.size(); k += 2) std::memcpy(scales.data() + k, &scale, 2);
    pare::Fingerprint hash;
    for (const auto* part : {&codes, &scales, &zeros}) hash.add(*part);
    linears.push_back({{"tensor", tensor},
                       {"shape", {out, in}},
                       {"dtype", "F32"},
                       {"axis", "output"},
                       {"bits", 4},
                       {"mask", "none"},
                       {"checksum", pare::hex_text(hash.value())},
                       {"original", "0000000000000000"}});
    const std::int64_t bytes = out * in / 2;
    tensors.push_back({tensor + ".codes", "U8", {bytes}, std::move(codes)});
    tensors.push_back({tensor + ".scales", "F16", {1, out}, std::move(scales)});
    tensors.push_back({tensor + ".zeros", "U8", {1, out}, std::move(zeros)});
    floats(name + ".bias", {out}, 0.01f);
  };
  floats("embed_tokens.weight", {config.at("vocab_size"), hidden}, 0.05f);
  floats("embed_positions.weight",
         {config.at("max_position_embeddings").get<std::int64_t>() + 2, hidden}, 0.05f);
  for (int i = 0; i < layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
      linear(layer + "self_attn." + name, hidden, hidden);
    linear(layer + "fc1", ffn, hidden);
    linear(layer + "fc2", hidden, ffn);
    for (const char* name : {"self_attn_layer_norm", "final_layer_norm"})
      for (const char* part : {".weight", ".bias"}) floats(layer + name + part, {hidden}, 1);
  }
  for (const char* part : {".weight", ".bias"})
    floats(std::string("final_layer_norm") + part, {hidden}, 1);
  pare::write_safetensors(folder / pare::PackedFile::name, tensors,
                          {{"format", "pt"},
                           {"pare.packed", Json{{"version", 1}, {"linears", linears}}.dump()}});
  cli::write_text(texts / "two.txt", cli::read_text(texts.evaluation).substr(0, 2000));
  const Outcome outcome = pare_opt(texts, {"evaluate", folder.string(), "--eval",
                                           "two=" + (texts / "two.txt").string()});
  check_success(outcome);
  // The libraries of the backends alone may take more than the model.
  const double libraries = cli::run(PARE_TOOL, {"--help"}).megabytes;
  BOOST_TEST_MESSAGE(outcome.megabytes << " MiB, of which libraries " << libraries);
  if (test::address_sanitizer)
    std::cout
        << "skipped: the memory of an evaluation: a sanitizer's own is many times a program's\n";
  else
    BOOST_TEST(outcome.megabytes - libraries < 140);
}

BOOST_AUTO_TEST_CASE(formats_of_other_programs_hold_every_weight) {
  const Texts texts;
  const auto folder = [&](const char* name) { return (texts / name).string(); };
  const Outcome outcome =
      pare_opt(texts,
               {"compress", tiny.string(), texts.calibration.string(), "--nsamples", "4", "--wbits",
                "4", "--symmetric", "--group-size", "64", "--save", folder("dense"), "--save-as",
                "compressed-tensors=" + folder("ct"), "--save-as", "gptq=" + folder("gptq")});
  check_success(outcome);
  BOOST_CHECK(test::contains(outcome.out, "exported to " + folder("ct") + ": 4.2"));
  const pare::SafetensorsFile dense(texts / "dense" / "model.safetensors");
  const pare::SafetensorsFile ct(texts / "ct" / "model.safetensors");
  const pare::SafetensorsFile gptq(texts / "gptq" / "model.safetensors");
  int linears = 0;
  for (const pare::TensorInfo& info : dense.tensors()) {
    const std::string name = info.name.substr(0, info.name.rfind('.'));
    if (ct.find(info.name + "_packed") == nullptr) {
      BOOST_CHECK((ct.read_bytes(info.name) == dense.read_bytes(info.name)));
      BOOST_CHECK((gptq.read_bytes(info.name) == dense.read_bytes(info.name)));
      continue;
    }
    ++linears;
    const Matrix<float> weights = dense.read_float(info.name);
    const auto of_ct = words_of(ct, name + ".weight_packed");
    const auto of_gptq = words_of(gptq, name + ".qweight");
    const Matrix<float> ct_scale = ct.read_float(name + ".weight_scale");  // (out, groups)
    const Matrix<float> gptq_scale = gptq.read_float(name + ".scales");    // (groups, out)
    const auto group = words_of(gptq, name + ".g_idx");                    // (in)
    index_t differing = 0;
    for (index_t i = 0; i < weights.rows(); ++i)
      for (index_t j = 0; j < weights.cols(); ++j) {
        // Eight codes of 4 bits in a word, along the inputs in both; zero is at 8.
        const auto shift = unsigned(4 * (j % 8));
        const auto a = of_ct[std::size_t(i * (weights.cols() / 8) + j / 8)] >> shift & 15u;
        const auto b = of_gptq[std::size_t(j / 8 * weights.rows() + i)] >> shift & 15u;
        const index_t g = index_t(group[std::size_t(j)]);
        if ((float(a) - 8) * ct_scale(i, j / 64) != weights(i, j) ||
            (float(b) - 8) * gptq_scale(g, i) != weights(i, j))
          ++differing;
      }
    BOOST_TEST(differing == 0, info.name);
  }
  BOOST_TEST(linears == 24);
  const Json config = cli::parse_json(cli::read_text(texts / "ct" / "config.json"));
  const Json& scheme = config.at("quantization_config").at("config_groups").at("group_0");
  BOOST_TEST(scheme.at("weights").at("num_bits") == 4);
  BOOST_TEST(scheme.at("weights").at("group_size") == 64);
  BOOST_TEST(scheme.at("targets").size() == 24u);

  const Outcome refused =
      pare_opt(texts, {"compress", tiny.string(), texts.calibration.string(), "--wbits", "4",
                       "--group-size", "56", "--save-as", "compressed-tensors=" + folder("never")});
  BOOST_TEST(refused.code != 0);
  for (const char* part :
       {"compressed-tensors cannot hold this model:", "20 linears, the first ",
        "groups of 56 do not divide its 192 inputs", "groups of 56 do not divide its 768 inputs"})
    BOOST_CHECK(test::contains(refused.err, part));
  BOOST_CHECK(!test::contains(refused.out, "self_attn"));  // no linear was compressed
}

namespace {

/// A configuration of the table in docs/export.md.
struct ExportRow {
  std::string name;
  pare::ExportLinear linear;
};

/// What a format answers of a linear: bits per weight, with the kind of blocks where it has several;
/// "dense" where every value is stored by itself, "refused", or the option that it needs.
std::string answer(const pare::ExportFormat& format, pare::ExportLinear linear) {
  const auto refused = [&] { return linear.rotated || format.linear_refusal(linear).has_value(); };
  std::string text;
  if (refused()) {
    linear.widened = true;
    if (refused()) return "refused";
    text = "`--widen`: ";
  }
  const double bits = format.bits_per_weight(linear);
  char number[32];
  std::snprintf(number, sizeof number, "%.4g", bits);
  text += number;
  if (&format != &pare::gguf_format) return text;
  const auto kind = pare::detail::gguf::block_kind(linear);
  return kind ? std::string(kind->name) + ", " + text : "dense, " + text;
}

pare::ExportLinear export_row(std::vector<int> widths, index_t group_size, bool symmetric) {
  const int widest = widths.back();
  pare::ExportLinear linear{.tensor = "a.weight", .rows = 4096, .columns = 4096};
  linear.dtype = pare::DType::f16;
  linear.widths = std::move(widths);
  linear.group_size = group_size;
  linear.symmetric = symmetric;
  linear.lowest = symmetric ? -(1 << (widest - 1)) : 1 - (1 << widest);
  linear.highest = symmetric ? (1 << (widest - 1)) - 1 : (1 << widest) - 1;
  linear.scale_digits = 8;
  return linear;
}

std::string rendered_table() {
  std::vector<ExportRow> rows;
  const auto row = [&](const std::string& name, std::vector<int> widths, index_t group_size,
                       bool symmetric) -> pare::ExportLinear& {
    rows.push_back({name, export_row(std::move(widths), group_size, symmetric)});
    return rows.back().linear;
  };
  for (const int bits : {2, 3, 4, 5, 6, 8})
    row(std::to_string(bits) + " bits symmetric, a grid per row", {bits}, 0, true);
  for (const int bits : {2, 3, 4, 8})
    row(std::to_string(bits) + " bits symmetric, groups of 64", {bits}, 64, true);
  for (const int bits : {2, 3, 4, 5, 6, 8})
    row(std::to_string(bits) + " bits with zero points, a grid per row", {bits}, 0, false);
  row("4 bits with zero points, groups of 256", {4}, 256, false);
  for (const int bits : {3, 4, 5, 8})
    row(std::to_string(bits) + " bits with zero points, groups of 64", {bits}, 64, false);
  for (const int bits : {4, 5})
    row(std::to_string(bits) + " bits with zero points, groups of 64, `--save-as gguf`", {bits}, 64,
        false)
        .exact_minima = true;
  row("4 bits symmetric, groups of 100", {4}, 100, true);
  row("4 bits symmetric, a grid per row, 576 inputs", {4}, 0, true).columns = 576;
  row("2 bits symmetric, a grid per row, 576 inputs", {2}, 0, true).columns = 576;
  row("4 bits symmetric, 100 rows", {4}, 0, true).rows = 100;
  row("4 bits symmetric, 100 inputs", {4}, 0, true).columns = 100;
  row("rows of 2, 4 and 8 bits, symmetric", {2, 4, 8}, 64, true);
  row("inputs of 2, 4 and 8 bits, symmetric", {2, 4, 8}, 64, true).widths_by_input = true;
  row("4 bits symmetric, stored as (in, out), GPT-2", {4}, 64, true).transposed = true;
  row("4 bits symmetric, bfloat16 checkpoint", {4}, 64, true).dtype = pare::DType::bf16;
  auto& unfitted =
      row("4 bits symmetric, bfloat16 checkpoint, packed without `--save-as`", {4}, 64, true);
  unfitted.dtype = pare::DType::bf16;
  unfitted.scale_digits = 11;
  row("4 bits symmetric, `--rotate full`", {4}, 64, true).rotated = true;
  std::string text = "| configuration |", line = "\n|---|";
  for (const pare::ExportFormat* format : pare::export_formats) {
    text += " " + std::string(format->name) + " |";
    line += "---|";
  }
  text += line + "\n";
  for (const ExportRow& at : rows) {
    text += "| " + at.name + " |";
    for (const pare::ExportFormat* format : pare::export_formats)
      text += " " + answer(*format, at.linear) + " |";
    text += "\n";
  }
  return text;
}

}  // namespace

namespace {

namespace gguf = pare::detail::gguf;

/// Weight k of a block, as llama.cpp's layouts say it. A layout of its own, not that of the writer.
float of_block(const gguf::Kind& kind, const std::byte* block, int k) {
  const auto at = [&](int i) { return unsigned(block[i]); };
  const auto half = [&](int i) {
    return pare::half_to_float(std::uint16_t(at(i) | at(i + 1) << 8));
  };
  const auto nibble = [&](int first) {  // of a block of 32
    return k < 16 ? at(first + k) & 15u : at(first + k - 16) >> 4;
  };
  const auto fifth = [&](int first) { return (at(first + k / 8) >> (k % 8) & 1u) << 4; };
  const int half_block = k / 128, run = k % 128 / 32, l = k % 32, part = k / 16;
  const auto pair = [&](int first) {  // two bits of a block of 256
    return at(first + half_block * 32 + l) >> (2 * run) & 3u;
  };
  if (kind == gguf::q4_0) return half(0) * float(int(nibble(2)) - 8);
  if (kind == gguf::q4_1) return half(0) * float(nibble(4)) + half(2);
  if (kind == gguf::q5_0) return half(0) * float(int(nibble(6) | fifth(2)) - 16);
  if (kind == gguf::q5_1) return half(0) * float(nibble(8) | fifth(4)) + half(2);
  if (kind == gguf::q8_0) return half(0) * float(std::int8_t(at(2 + k)));
  if (kind == gguf::q2_k)
    return half(80) * float((at(part) & 15u) * pair(16)) - half(82) * float(at(part) >> 4);
  if (kind == gguf::q3_k) {
    const unsigned low = part < 8 ? at(96 + part) & 15u : at(96 + part - 8) >> 4;
    const unsigned high = at(104 + part % 4) >> (part / 4 * 2) & 3u;
    const int value = int(pair(32)) - ((at(l) >> (k / 32) & 1u) != 0 ? 0 : 4);
    return half(108) * float((int(low | high << 4) - 32) * value);
  }
  if (kind == gguf::q6_k) {
    const unsigned low = at(half_block * 64 + run % 2 * 32 + l) >> (run / 2 * 4) & 15u;
    return half(208) * float(int(std::int8_t(at(192 + part))) * (int(low | pair(128) << 4) - 32));
  }
  // Q4_K and Q5_K: scales and minima of six bits for every 32.
  const int j = k / 32;
  const unsigned scale = j < 4 ? at(4 + j) & 63u : (at(8 + j) & 15u) | at(j) >> 6 << 4;
  const unsigned minimum = j < 4 ? at(8 + j) & 63u : at(8 + j) >> 4 | at(4 + j) >> 6 << 4;
  const bool five = kind == gguf::q5_k;
  unsigned code = at((five ? 48 : 16) + k / 64 * 32 + l) >> (k % 64 / 32 * 4) & 15u;
  if (five) code |= (at(16 + l) >> j & 1u) << 4;
  return half(0) * float(scale * code) - half(2) * float(minimum);
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_smallest_blocks_of_gguf_hold_every_weight) {
  const struct {
    int bits;
    bool symmetric;
    index_t columns, group_size;
    gguf::Kind kind;
  } cases[] = {{2, false, 512, 0, gguf::q2_k},  {2, true, 512, 256, gguf::q2_k},
               {2, false, 512, 64, gguf::q4_0}, {3, true, 512, 0, gguf::q3_k},
               {3, false, 512, 0, gguf::q4_0},  {4, true, 512, 0, gguf::q4_0},
               {4, false, 512, 0, gguf::q4_k},  {4, false, 512, 256, gguf::q4_k},
               {4, false, 320, 0, gguf::q4_1},  {5, true, 512, 0, gguf::q5_0},
               {5, false, 512, 0, gguf::q5_k},  {5, false, 512, 32, gguf::q5_1},
               {6, true, 512, 0, gguf::q6_k},   {6, false, 512, 0, gguf::q8_0},
               {7, false, 512, 96, gguf::q8_0}, {8, true, 512, 0, gguf::q8_0}};
  test::Random random(3);
  for (const auto& [bits, symmetric, columns, group_size, kind] : cases)
    BOOST_TEST_CONTEXT(kind.name << ", " << bits << " bits, groups of " << group_size) {
      pare::ExportLinear linear = export_row({bits}, group_size, symmetric);
      linear.rows = 3;
      linear.columns = columns;
      // As --save-as asks for.
      const int digits = gguf::scale_digits_of(linear);
      BOOST_TEST(digits == (kind == gguf::q4_1 || kind == gguf::q5_1 ? 11 - bits : 11));
      linear.exact_minima = digits < 11;
      BOOST_REQUIRE(gguf::block_kind(linear).has_value());
      BOOST_REQUIRE(*gguf::block_kind(linear) == kind);
      const index_t groups = linear.groups();
      pare::ExportCodes codes{.rows = 3, .columns = columns};
      for (index_t k = 0; k < groups * 3; ++k) {
        codes.scales.push_back(std::uint16_t((10 + random.below(10)) << 10 |
                                             random.below(1 << (digits - 1)) << (11 - digits)));
        codes.zeros.push_back(
            std::uint8_t(symmetric ? 1 << (bits - 1) : random.below(index_t{1} << bits)));
      }
      for (index_t j = 0; j < columns; ++j)
        codes.of_column.push_back(group_size == 0 ? 0 : std::int32_t(j / group_size));
      for (index_t k = 0; k < 3 * columns; ++k)
        codes.codes.push_back(std::uint8_t(random.below(index_t{1} << bits)));
      const std::vector<index_t> order{2, 0, 1};
      const std::vector<std::byte> blocks = gguf::blocks_of(kind, codes, order);
      const index_t of_row = columns / kind.weights;
      index_t differing = 0;
      for (index_t i = 0; i < 3; ++i)
        for (index_t j = 0; j < columns; ++j) {
          const index_t row = order[std::size_t(i)], g = codes.of_column[std::size_t(j)];
          const float value = pare::half_to_float(codes.scale(g, row)) *
                              float(codes.code(row, j) - codes.zero(g, row));
          const std::byte* block = blocks.data() + (i * of_row + j / kind.weights) * kind.bytes;
          if (of_block(kind, block, int(j % kind.weights)) != value) ++differing;
        }
      BOOST_TEST(differing == 0);
    }
  // Embeddings are rounded to a 254th of the range of 32 neighbours.
  std::vector<float> values(64);
  for (float& value : values) value = float(random.normal());
  const std::vector<std::byte> rounded = gguf::rounded_blocks(values);
  for (int k = 0; k < 64; ++k) {
    const std::byte* block = rounded.data() + k / 32 * gguf::q8_0.bytes;
    float largest = 0;
    for (int i = 0; i < 32; ++i)
      largest = std::max(largest, std::abs(values[std::size_t(k / 32 * 32 + i)]));
    BOOST_TEST(std::abs(of_block(gguf::q8_0, block, k % 32) - values[std::size_t(k)]) <=
               1.1f * largest / 254);
  }
}

BOOST_AUTO_TEST_CASE(the_page_of_formats_shows_what_they_answer) {
  const fs::path page = cli::data / "../../docs/export.md";
  const std::string begin = "<!-- what the formats answer -->\n", end = "<!-- end -->\n";
  std::string text = cli::read_text(page);
  const std::size_t from = text.find(begin), to = text.find(end);
  BOOST_REQUIRE((from != std::string::npos && to != std::string::npos && from < to));
  const std::size_t table = from + begin.size();
  const std::string rendered = rendered_table();
  if (const char* update = std::getenv("PARE_UPDATE_DOCS"); update && update == std::string("1")) {
    cli::write_text(page, text.substr(0, table) + rendered + text.substr(to));
    text = cli::read_text(page);
  }
  BOOST_TEST_INFO(
      "docs/export.md is stale; render it with PARE_UPDATE_DOCS=1 ctest -R packed_tool");
  BOOST_CHECK(text.substr(table, text.find(end) - table) == rendered);
}

BOOST_AUTO_TEST_CASE(packed_models_are_refused_where_dense_ones_are_needed) {
  const Compressed c({"--gmp", "--wbits", "4", "--maxlayer", "1"});
  const std::string packed = c.packed.string(), text = c.calibration.string();
  const std::string advice = packed + ": the model is packed, a dense one is needed here";
  check_failure(pare_opt(c, {"compress", packed, text, "--wbits", "4"}), 2, "pare", {advice});
  check_failure(pare_opt(c, {"compare", packed, text, "--eval", "a=" + text}), 2, "pare", {advice});
  check_failure(pare_opt(c, {"verify", packed, packed}), 2, "pare", {advice});
  check_failure(pare_opt(c, {"verify", tiny.string(), packed, text}), 2, "pare",
                {"verify with TEXT " + text + ": magnitude pruning made this model"});
  for (const char* command : {"inspect", "verify"}) {
    Arguments words{command, tiny.string()};
    if (words[0] == "verify") words.push_back(tiny.string());
    check_failure(pare_opt(c, words), 2, "pare",
                  {std::string(command) + " " + tiny.string() +
                   ": there is no packed.safetensors in it"});
  }
  check_failure(pare_opt(c, {"unpack", packed, packed}), 2, "pare",
                {"OUT " + packed + ": this is the model itself; name a new folder"});
  check_failure(pare_opt(c, {"unpack", packed, c.saved.string()}), 2, "pare",
                {"OUT " + c.saved.string() + ": the folder is not empty; name a new one"});
}
