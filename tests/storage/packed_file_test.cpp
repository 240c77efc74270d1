// Packed model files: whole models to disk and back, evaluation from packed weights, hostile files.
#define BOOST_TEST_MODULE pare_packed_file
#include <boost/test/unit_test.hpp>

#include <array>
#include <functional>
#include <memory>

#include "model_support.hpp"
#include "packed_support.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/storage/packed_writer.hpp"

using namespace pare;
using namespace test;

namespace {

using B = backend::Eigen;
using Model = LanguageModel<B, float>;

/// A way to compress a model.
struct Way {
  const char* name;
  CompressionRequest request;
  LinearSelection selection = {};
  std::optional<kernels::HadamardRotation> rotation = {};
};

std::vector<Way> ways() {
  const GridOptions half{.half_scale = true};
  return {
      {"dense 4", {.solver = {.bits = 4, .grid = half}}},
      {"50% + 3", {.solver = {.sparsity = 0.5, .bits = 3, .grid = half}}},
      {"2:4, budget by row",
       {PolicyKind::budget,
        {.zeros = 2, .of = 4, .bits = 4, .target_average_bits = 3.3, .grid = half}}},
      {"70%, quantile by column",
       {PolicyKind::quantile,
        {.sparsity = 0.7,
         .bits = 4,
         .target_average_bits = 5,
         .axis = ChannelAxis::input,
         .grid = half}},
       {.name_part = "fc"}},
      {"only pruned", {.solver = {.sparsity = 0.6}}},
      {"50% + 4 in groups of 16, by column",
       {PolicyKind::budget,
        {.sparsity = 0.5,
         .bits = 4,
         .target_average_bits = 3.5,
         .axis = ChannelAxis::input,
         .grid = half,
         .group_size = 16}}},
  };
}

CalibrationWindows windows_of(const Model& model) {
  CalibrationWindows windows;
  windows.seqlen = model.config.max_position_embeddings;
  std::mt19937 engine(5);
  for (index_t i = 0; i < 12 * windows.seqlen; ++i)
    windows.ids.push_back(std::int32_t(engine() % unsigned(model.config.vocab_size)));
  return windows;
}

/// A model that was compressed in memory and packed.
struct Packed {
  SmallModel source;
  Folder folder;
  Model model;
  CalibrationWindows windows;
  Statistics statistics;
  PackedLinears linears;

  explicit Packed(const Way& way, const nlohmann::json& changes = {}) : source(wide(changes)) {
    model = load_model<B, float>(source.write());
    windows = windows_of(model);
    CompressionProgress progress;
    progress.linear_packed = [&](const std::string& tensor, PackedLinear&& packed) {
      linears.emplace(tensor, std::move(packed));
    };
    const ModelCompressionOptions options{.solver = way.request.solver,
                                          .selection = way.selection,
                                          .rotation = way.rotation};
    statistics = dispatch(way.request, [&]<class Config>(std::type_identity<Config>) {
      return compress_model<Config>(model, windows, options, progress);
    });
    fs::copy_file(source.folder / "config.json", folder / "config.json");
    write_packed(file(), Checkpoint(source.folder), linears);
  }
  fs::path file() const { return folder / PackedFile::name; }

  static nlohmann::json wide(nlohmann::json changes) {
    nlohmann::json all{{"hidden_size", 24}, {"ffn_dim", 40}};
    if (changes.is_object()) all.update(changes);
    return all;
  }
};

double perplexity_of(const Model& model, const CalibrationWindows& windows) {
  return perplexity(model, std::span<const std::int32_t>(windows.ids), windows.seqlen);
}

/// The file with another description of its linears.
void describe_anew(const fs::path& file, const std::function<void(nlohmann::json&)>& change) {
  std::vector<TensorData> tensors;
  std::map<std::string, std::string> metadata;
  {
    const SafetensorsFile source(file);
    for (const TensorInfo& info : source.tensors())
      tensors.push_back({info.name, info.dtype, info.shape, source.read_bytes(info.name)});
    metadata = source.metadata();
  }
  nlohmann::json description = nlohmann::json::parse(metadata.at("pare.packed"));
  change(description);
  metadata["pare.packed"] = description.dump();
  write_safetensors(file, tensors, metadata);
}

/// Reads everything there is to read. A refusal is what is expected; anything else fails the test.
bool is_refused(const fs::path& folder) {
  try {
    const PackedFile file(folder);
    for (const PackedEntry& entry : file.linears()) file.read(entry);
    for (const TensorInfo& info : file.file().tensors())
      if (!file.is_part(info.name)) file.require_intact(info.name, file.file().bytes(info));
    return false;
  } catch (const error&) {
    return true;
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_packed_model_is_the_compressed_one_to_the_bit) {
  for (const Way& way : ways()) BOOST_TEST_CONTEXT(way.name) {
      const Packed packed(way);
      BOOST_REQUIRE(PackedFile::is_in(packed.folder.path));
      const Model read = load_model<B, float>(packed.folder.path);
      BOOST_TEST(perplexity_of(read, packed.windows) ==
                 perplexity_of(packed.model, packed.windows));
      for (std::size_t i = 0; i < read.layers.size(); ++i)
        for (std::size_t l = 0; l < 6; ++l) {
          const auto& linear = *read.layers[i].linears()[l];
          const auto& expected = *packed.model.layers[i].linears()[l];
          BOOST_TEST((linear.packed != nullptr) == packed.linears.contains(linear.tensor));
          if (!linear.packed) continue;
          BOOST_TEST(linear.weight.size() == 0);  // nothing dense is held
          Matrix<float> rows(expected.weight.rows(), expected.weight.cols());
          unpack_rows(*linear.packed, 0, rows.view());
          BOOST_TEST((same_bytes(rows, expected.weight)));
        }
    }
}

// From the packed bytes where the backend has such a product, else from unpacked rows, which give the
// dense model's bits.
BOOST_AUTO_TEST_CASE(few_tokens_through_a_packed_model) {
  for (const Way& way : ways()) BOOST_TEST_CONTEXT(way.name) {
      const Packed packed(way, {{"max_position_embeddings", 20}});
      const Model read = load_model<B, float>(packed.folder.path);
      for (const index_t tokens : {1, 3, 8, 9, 20}) {
        const auto hidden_of = [&](const Model& model) {
          ModelWorkspace<B, float> workspace;
          Matrix<float> hidden;
          embed(model, std::span(packed.windows.ids).first(std::size_t(tokens)), tokens, workspace,
                hidden);
          for (const auto& layer : model.layers)
            forward_layer(model, layer, hidden.view(), tokens, workspace);
          return hidden;
        };
        const Matrix<float> expected = hidden_of(packed.model), found = hidden_of(read);
        BOOST_TEST_CONTEXT(tokens << " tokens") {
#if defined(PARE_HIGHWAY)
          static_assert(MultipliesPacked<B, float>);
          if (tokens <= B::packed_tokens) {
            Matrix<float> zero(expected.rows(), expected.cols());
            zero.fill(0);
            BOOST_TEST(distance(found, expected) < 1e-5 * distance(expected, zero));
            continue;
          }
#endif
          BOOST_TEST((same_bytes(found, expected)));
        }
      }
    }
}

namespace {

/// Multiplies two tokens at most, by its own product, and counts.
struct Counting : backend::Eigen {
  using packed_linear = Matrix<float>;  // (out, in)
  static constexpr index_t packed_tokens = 2;
  static inline int prepared = 0, multiplied = 0;

  static packed_linear prepare(const std::shared_ptr<const PackedLinear>& packed) {
    ++prepared;
    Matrix<float> weights(packed->layout.rows, packed->layout.columns);
    unpack_rows(*packed, 0, weights.view());
    return weights;
  }
  template <class T>
  static void packed_multiply(MatrixView<T> Y, MatrixView<const T> X, const packed_linear& W,
                              MatrixView<const T> bias) {
    ++multiplied;
    linear<T>(Y, X, W.view(), bias);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(few_tokens_use_the_product_of_the_backend) {
  const PackedLayout layout{.rows = 500, .columns = 40, .widths = {4}, .group_size = 16};
  Linear<Counting, float> linear;
  prepare_packed(linear, std::make_shared<const PackedLinear>(
                             random_packed(layout, PackedMask::none, DType::f16, 3)));
  BOOST_TEST(Counting::prepared == 1);
  linear.bias = random_matrix<float>(1, 500, 4);
  const Matrix<float> weights = Counting::prepare(linear.packed);
  UnpackedRows<Counting, float> rows;
  for (index_t tokens = 1; tokens <= 4; ++tokens) {
    const Matrix<float> X = random_matrix<float>(tokens, 40, 5);
    Matrix<float> found(tokens, 500), expected(tokens, 500);
    Counting::linear<float>(expected.view(), X.view(), weights.view(), linear.bias.view());
    detail::apply(linear, X.view(), found.view(), rows);
    BOOST_TEST((same_bytes(found, expected)));
    BOOST_TEST(Counting::multiplied == std::min<index_t>(tokens, 2));
  }
  // Where nothing is prepared, rows are unpacked.
  linear.prepared.reset();
  const Matrix<float> X = random_matrix<float>(1, 40, 5);
  Matrix<float> found(1, 500), expected(1, 500);
  Counting::linear<float>(expected.view(), X.view(), weights.view(), linear.bias.view());
  detail::apply(linear, X.view(), found.view(), rows);
  BOOST_TEST((same_bytes(found, expected)));
  BOOST_TEST(Counting::multiplied == 2);
}

BOOST_AUTO_TEST_CASE(every_byte_of_the_file_is_in_the_statistics_or_as_it_was) {
  for (const Way& way : ways())
    for (const bool base : {false, true}) BOOST_TEST_CONTEXT(way.name) {
        Packed packed(way, {{"enable_bias", base}});
        const SafetensorsFile file(packed.file());
        const PackedFile description(packed.folder.path);
        const Checkpoint source(packed.source.folder);
        std::uint64_t expected = file.data_offset();
        for (const LinearStatistics& layer : packed.statistics.linears)
          expected += std::uint64_t(layer.stored_bits / 8);
        for (const TensorInfo& info : file.tensors()) {
          BOOST_TEST(info.begin % std::uint64_t(detail::alignment_of(info)) == 0u);
          if (description.is_part(info.name)) continue;
          expected += info.end - info.begin;
          const TensorInfo& before = *source.at(info.name).info;
          BOOST_TEST((before.dtype == info.dtype && before.shape == info.shape));
          BOOST_TEST(
              (file.read_bytes(info.name) == source.at(info.name).file->read_bytes(info.name)));
        }
        BOOST_TEST(fs::file_size(packed.file()) == expected);
        BOOST_TEST(description.linears().size() == packed.statistics.linears.size());
      }
}

BOOST_AUTO_TEST_CASE(rotated_inputs_are_rotated_when_the_model_runs) {
  const Packed packed({"3, rotated",
                       {.solver = {.sparsity = 0.3, .bits = 3, .grid = {.half_scale = true}}},
                       {},
                       kernels::HadamardRotation{5}});
  const Model read = load_model<B, float>(packed.folder.path);
  BOOST_TEST(relative_difference(perplexity_of(read, packed.windows),
                                 perplexity_of(packed.model, packed.windows)) < 1e-4);
  write_unpacked(packed.folder / "dense", PackedFile(packed.folder.path));
  const SafetensorsFile dense(packed.folder / "dense");
  for (std::size_t i = 0; i < read.layers.size(); ++i)
    for (std::size_t l = 0; l < 6; ++l) {
      const auto& linear = *read.layers[i].linears()[l];
      const auto& expected = *packed.model.layers[i].linears()[l];
      BOOST_REQUIRE(linear.packed != nullptr);
      BOOST_CHECK(linear.packed->rotation == kernels::HadamardRotation{5});
      BOOST_TEST((same_bytes(dense.read_float(linear.tensor), expected.weight)));
      Matrix<float> rows(expected.weight.rows(), expected.weight.cols());
      unpack_rows(*linear.packed, 0, rows.view());
      index_t zeros = 0;  // where they were pruned
      for (index_t k = 0; k < rows.size(); ++k) zeros += rows.data()[k] == 0 ? 1 : 0;
      BOOST_TEST(double(zeros) >= 0.3 * double(rows.size()) - 1);
    }
  const auto description =
      nlohmann::json::parse(SafetensorsFile(packed.file()).metadata().at("pare.packed"));
  BOOST_TEST(description["version"] == 2);
  BOOST_TEST(description["linears"][0]["rotation_seed"] == 5);
}

BOOST_AUTO_TEST_CASE(a_file_is_of_the_oldest_version_that_holds_it) {
  for (const Way& way : ways()) {
    const Packed packed(way, {{"num_hidden_layers", 1}});
    const bool groups = way.request.solver.group_size != 0;
    const auto description =
        nlohmann::json::parse(SafetensorsFile(packed.file()).metadata().at("pare.packed"));
    BOOST_TEST(description["version"] == (groups ? 2 : 1));
    BOOST_TEST(description["linears"][0].contains("group_size") == groups);
  }
}

// Written out by docs/format.md, not by the writer: both versions, as they will stay.
BOOST_AUTO_TEST_CASE(files_of_both_versions_written_by_hand) {
  struct ByHand {
    std::string description, grids;  // as JSON within JSON, and their count
    std::string scales, zeros;
    std::vector<float> weights;  // (2, 3)
  };
  using namespace std::string_literals;
  const std::string codes = "\x21\x03\0\0\x0f\x08\0\0"s;  // 1 2 3; 15 0 8
  for (const ByHand& file : {
           ByHand{R"({\"version\":1,\"linears\":[{\"tensor\":\"w\",\"shape\":[2,3],)"
                  R"(\"dtype\":\"F32\",\"axis\":\"output\",\"bits\":4,\"mask\":\"none\",)"
                  R"(\"checksum\":\"f40c799861efbc20\",\"original\":\"0123456789abcdef\"}]})",
                  "1",
                  "\0\x38\0\x40"s,
                  "\x02\x08",
                  {-0.5f, 0, 0.5f, 14, -16, 0}},
           ByHand{R"({\"version\":2,\"linears\":[{\"tensor\":\"w\",\"shape\":[2,3],)"
                  R"(\"dtype\":\"F32\",\"axis\":\"output\",\"bits\":4,\"mask\":\"none\",)"
                  R"(\"group_size\":2,)"
                  R"(\"checksum\":\"ca00b830093e8173\",\"original\":\"0123456789abcdef\"}]})",
                  "2",
                  "\0\x38\0\x40\0\x3c\0\x34"s,
                  "\x02\x08\0\x09"s,
                  {-0.5f, 0, 3, 14, -16, -0.25f}},
           ByHand{R"({\"version\":2,\"linears\":[{\"tensor\":\"w\",\"shape\":[2,3],)"
                  R"(\"dtype\":\"F32\",\"axis\":\"output\",\"bits\":4,\"mask\":\"none\",)"
                  R"(\"rotation_seed\":1,)"
                  R"(\"checksum\":\"f40c799861efbc20\",\"original\":\"0123456789abcdef\"}]})",
                  "1",
                  "\0\x38\0\x40"s,
                  "\x02\x08",
                  {-0.5f, 0, -0.5f, 14, 16, 0}},
       }) {
    const std::size_t scales_end = 8 + file.scales.size(), end = scales_end + file.zeros.size();
    std::string header =
        R"({"__metadata__":{"format":"pt","pare.packed":")" + file.description +
        R"("},"w.codes":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)" +
        R"("w.scales":{"dtype":"F16","shape":[)" + file.grids + R"(,2],"data_offsets":[8,)" +
        std::to_string(scales_end) + R"(]},"w.zeros":{"dtype":"U8","shape":[)" + file.grids +
        R"(,2],"data_offsets":[)" + std::to_string(scales_end) + "," + std::to_string(end) + "]}}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string length(8, '\0');
    length[0] = char(header.size() % 256);
    length[1] = char(header.size() / 256);
    const Folder folder;
    write_text(folder / PackedFile::name, length + header + codes + file.scales + file.zeros);
    const PackedFile read(folder.path);
    BOOST_REQUIRE(read.linears().size() == 1u);
    const PackedLinear linear = read.read(read.linears().front());
    Matrix<float> weights(2, 3);
    unpack_rows(linear, 0, weights.view());
    rotate_back(linear, weights.view());
    BOOST_TEST(std::vector<float>(weights.data(), weights.data() + 6) == file.weights,
               boost::test_tools::per_element());
    BOOST_TEST(linear.layout.group_size == (file.grids == "1" ? 0 : 2));
  }
}

BOOST_AUTO_TEST_CASE(unpacked_it_is_a_dense_checkpoint_with_the_same_weights) {
  for (const Way& way : ways()) BOOST_TEST_CONTEXT(way.name) {
      const Packed packed(way);
      const Folder out;
      fs::copy_file(packed.source.folder / "config.json", out / "config.json");
      write_unpacked(out / Checkpoint::single_name, PackedFile(packed.folder.path));
      const Model read = load_model<B, float>(out.path);
      for (std::size_t i = 0; i < read.layers.size(); ++i)
        for (std::size_t l = 0; l < 6; ++l)
          BOOST_TEST((same_bytes(read.layers[i].linears()[l]->weight,
                                 packed.model.layers[i].linears()[l]->weight)));
      const Checkpoint before(packed.source.folder), after(out.path);
      BOOST_TEST(after.files()[0].tensors().size() == before.files()[0].tensors().size());
    }
}

BOOST_AUTO_TEST_CASE(a_block_of_rows_is_all_that_is_dense) {
  // Wider than a block of rows, so that linears are multiplied in pieces.
  const nlohmann::json wide{{"hidden_size", 48}, {"ffn_dim", 1200}, {"num_hidden_layers", 1}};
  const Packed packed(ways()[1], wide);
  const Model read = load_model<B, float>(packed.folder.path);
  ModelWorkspace<B, float> workspace;
  Matrix<float> hidden;
  embed(read, std::span<const std::int32_t>(packed.windows.ids), packed.windows.seqlen, workspace,
        hidden);
  forward_layer(read, read.layers[0], hidden.view(), packed.windows.seqlen, workspace);
  BOOST_TEST(workspace.rows.host.size() <= 512 * 1200);
  BOOST_TEST(workspace.rows.copy.size() == 0);
  BOOST_TEST(relative_difference(perplexity_of(read, packed.windows),
                                 perplexity_of(packed.model, packed.windows)) < 1e-5);
  Model again = read;
  BOOST_TEST(contains(message_of<argument_error>([&] {
                        compress_model<Compression<Dense, BaseQuantizer>>(again, packed.windows,
                                                                          {.solver = {.bits = 4}});
                      }),
                      "layers.0.self_attn.k_proj: expected dense weights, got packed ones"));
}

BOOST_AUTO_TEST_CASE(a_file_cut_anywhere_is_refused) {
  const Packed packed(ways()[2], {{"num_hidden_layers", 1}});
  const std::string whole = read_text(packed.file());
  const Folder cut;
  // Every byte of the header's beginning and end, and of the data every few.
  std::size_t accepted = 0;
  const std::size_t header = std::size_t(SafetensorsFile(packed.file()).data_offset());
  for (std::size_t length = 0; length < whole.size();
       length += length < 40 || (length + 40 > header && length < header + 40) ? 1 : 13) {
    write_text(cut / PackedFile::name, whole.substr(0, length));
    accepted += !is_refused(cut.path);
  }
  BOOST_TEST(accepted == 0u);
  write_text(cut / PackedFile::name, whole);
  BOOST_TEST(!is_refused(cut.path));
}

BOOST_AUTO_TEST_CASE(flipped_bits_are_refused_and_never_crash) {
  for (const std::size_t way : {2u, 3u, 4u}) {
    const Packed packed(ways()[way], {{"num_hidden_layers", 1}});
    const std::string whole = read_text(packed.file());
    const SafetensorsFile file(packed.file());
    const PackedFile description(packed.folder.path);
    BOOST_TEST(description.checks_every_tensor());
    const Folder flipped;
    Random random(way);
    std::size_t accepted = 0;
    for (int i = 0; i < 150; ++i) {
      std::string bytes = whole;
      const std::size_t at = std::size_t(random.below(index_t(whole.size())));
      bytes[at] = char(bytes[at] ^ (1 << random.below(8)));
      write_text(flipped / PackedFile::name, bytes);
      if (is_refused(flipped.path)) continue;
      // In the header names and spaces may change unseen, of the data nothing.
      accepted += at >= file.data_offset();
    }
    BOOST_TEST(accepted == 0u);
    // The same with a checksum that fits: what is checked is all that protects the reader.
    for (int i = 0; i < 50; ++i) {
      std::string bytes = whole;
      std::vector<const TensorInfo*> parts;
      for (const TensorInfo& info : file.tensors())
        if (description.is_part(info.name)) parts.push_back(&info);
      const TensorInfo& part = *parts[std::size_t(random.below(index_t(parts.size())))];
      for (int k = 0; k < 3; ++k) {
        const std::size_t at = std::size_t(file.data_offset() + part.begin) +
                               std::size_t(random.below(index_t(part.end - part.begin)));
        bytes[at] = char(bytes[at] ^ (1 << random.below(8)));
      }
      write_text(flipped / PackedFile::name, bytes);
      describe_anew(flipped / PackedFile::name, [&](nlohmann::json& json) {
        for (nlohmann::json& linear : json["linears"]) {
          Fingerprint hash;
          const SafetensorsFile now(flipped / PackedFile::name);
          for (const char* suffix : detail::packed_parts)
            if (const auto* info = now.find(linear["tensor"].get<std::string>() + suffix))
              hash.add(now.read_bytes(info->name));
          linear["checksum"] = hex_text(hash.value());
        }
      });
      is_refused(flipped.path);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_of_any_tensor_is_found_when_it_is_read) {
  const Packed packed(ways()[2], {{"num_hidden_layers", 1}});
  const std::string whole = read_text(packed.file());
  const SafetensorsFile file(packed.file());
  for (const TensorInfo& info : file.tensors()) BOOST_TEST_CONTEXT(info.name) {
      std::string bytes = whole;
      bytes[std::size_t(file.data_offset() + info.end - 1)] ^= 1;
      write_text(packed.file(), bytes);
      std::string tensor = info.name;
      for (const char* part : detail::packed_parts)
        if (tensor.ends_with(part)) tensor.resize(tensor.size() - std::string(part).size());
      BOOST_CHECK(contains(message_of<error>([&] { load_model<B, float>(packed.folder.path); }),
                           "packed.safetensors: tensor '" + tensor));
      BOOST_CHECK_THROW(write_unpacked(packed.folder / "dense", PackedFile(packed.folder.path)),
                        error);
      BOOST_TEST(!fs::exists(packed.folder / "dense"));
      write_text(packed.file(), whole);
    }
  const std::string embeddings = "model.decoder.embed_tokens.weight";
  {
    const PackedFile good(packed.folder.path);
    std::vector<std::byte> bytes = file.read_bytes(embeddings);
    good.require_intact(embeddings, bytes);
    const std::string expected = hex_text(xxh64(bytes));
    bytes[3] ^= std::byte(1);
    BOOST_TEST(message_of<format_error>([&] { good.require_intact(embeddings, bytes); }) ==
               packed.file().string() + ": tensor '" + embeddings + "': expected checksum " +
                   expected + ", got " + hex_text(xxh64(bytes)) + ": the data was changed");
    for (const std::string& other : {good.linears()[0].tensor + ".codes", std::string("none")})
      BOOST_TEST(message_of<argument_error>([&] { good.require_intact(other, bytes); }) ==
                 packed.file().string() + ": tensor '" + other +
                     "': expected one that is there and not packed");
  }
  // A file of before has no checksums of these, and is read all the same.
  describe_anew(packed.file(), [](nlohmann::json& json) { json.erase("checksums"); });
  const PackedFile before(packed.folder.path);
  BOOST_TEST(!before.checks_every_tensor());
  before.require_intact(embeddings, {});
  const auto read = load_model<B, float>(packed.folder.path);
  BOOST_TEST(read.layers.size() == 1u);
}

BOOST_AUTO_TEST_CASE(what_breaks_the_format_is_named) {
  const Packed packed(ways()[2], {{"num_hidden_layers", 1}});
  const std::string whole = read_text(packed.file());
  const auto refusal = [&](const std::function<void(nlohmann::json&)>& change) {
    write_text(packed.file(), whole);
    describe_anew(packed.file(), change);
    return message_of<error>([&] {
      const PackedFile file(packed.folder.path);
      for (const PackedEntry& entry : file.linears()) file.read(entry);
    });
  };
  // The first linear whose mask is an index per group.
  const auto first = [](const char* key, nlohmann::json value) {
    return [key, value](nlohmann::json& json) {
      for (nlohmann::json& linear : json["linears"])
        if (linear["mask"] == "groups") {
          linear[key] = value;
          return;
        }
    };
  };
  // Version 2, with groups in that linear.
  const auto with_groups = [&](nlohmann::json size) {
    return [&first, size](nlohmann::json& json) {
      json["version"] = 2;
      first("group_size", size)(json);
    };
  };
  const auto with_rotation = [&](nlohmann::json seed) {
    return [&first, seed](nlohmann::json& json) {
      json["version"] = 2;
      first("rotation_seed", seed)(json);
    };
  };
  struct Break {
    std::function<void(nlohmann::json&)> change;
    std::string message;
  };
  for (const Break& b : std::vector<Break>{
           {[](nlohmann::json& j) { j["version"] = 3; }, "version: expected 1 or 2, got 3"},
           {[](nlohmann::json& j) { j.erase("version"); }, "version: expected 1 or 2, got none"},
           {with_groups(0), "group_size: expected a whole number from 1 to "},
           {with_groups(-8), "group_size: expected a whole number from 1 to "},
           {with_groups("all"), "group_size: expected a whole number from 1 to "},
           {with_groups(8), ".scales: expected shape (5, 24), got (1, 24)"},
           {[&](nlohmann::json& j) {
              with_groups(8)(j);
              first("bits", nullptr)(j);
            },
            "group_size: expected none without bits"},
           {with_rotation(-1), "rotation_seed: expected a whole number from 0 to "},
           {with_rotation("full"), "rotation_seed: expected a whole number from 0 to "},
           {[](nlohmann::json& j) { j["linears"] = 3; }, "linears: expected an array"},
           {[](nlohmann::json& j) { j["linears"][0] = 3; }, "is not described by an object"},
           {[](nlohmann::json& j) { j["linears"][0].erase("bits"); }, "a linear has no bits"},
           {[](nlohmann::json& j) { j["linears"][1] = j["linears"][0]; }, "is there twice"},
           {first("shape", {0, 24}), "shape: expected a whole number from 1 to 16777216"},
           {first("shape", {1ull << 40, 24}), "shape: expected a whole number"},
           {first("shape", "wide"), "shape: expected two numbers"},
           {first("shape", {48, 24}), ": expected "},
           {first("shape", {24, 48}), ": expected "},
           {first("dtype", "I8"), "dtype: expected F16, BF16, F32 or F64"},
           {first("axis", "depth"), "axis: expected output or input"},
           {first("bits", 9), "bits: expected a whole number from 2 to 8"},
           {first("bits", -1), "bits: expected a whole number"},
           {first("bits", nullptr), "bytes, got"},
           {first("mask", "some"), "mask: expected none, bits or groups"},
           {first("mask", "bits"), "bytes, got"},
           {first("zeros", 4), "zeros: expected a whole number from 1 to 3"},
           {first("group", 7), "group: expected a divisor of "},
           {first("group", 1000), "group: expected a whole number from 2 to 64"},
           {first("zeros", 1), "bytes, got"},
           {first("checksum", "0123456789abcdef"), "expected checksum 0123456789abcdef, got "},
           {first("checksum", "x"), "checksum: expected 16 hexadecimal digits"},
           {[](nlohmann::json& j) { j["checksums"] = 3; }, "checksums: expected an object"},
           {[](nlohmann::json& j) { j["checksums"].front() = "x"; },
            "expected 16 hexadecimal digits"},
           {[](nlohmann::json& j) { j["checksums"].front() = 16; },
            "expected 16 hexadecimal digits"},
           {[](nlohmann::json& j) { j["checksums"].erase("model.decoder.embed_tokens.weight"); },
            "checksums: there is none for tensor 'model.decoder.embed_tokens.weight'"},
           {[](nlohmann::json& j) { j["checksums"]["nothing"] = "0123456789abcdef"; },
            "checksums: tensor 'nothing': expected one that is there and not packed"},
           {first("tensor", "nothing"), "checksums: there is none for tensor"},
           {[&](nlohmann::json& j) {
              j.erase("checksums");
              first("tensor", "nothing")(j);
            },
            "tensor 'nothing': there is no ."}}) {
    const std::string message = refusal(b.change);
    BOOST_TEST_INFO("expected '" << b.message << "' in '" << message << "'");
    BOOST_CHECK(contains(message, b.message));
    BOOST_CHECK(contains(message, "packed.safetensors"));
  }
  BOOST_TEST(refusal([](nlohmann::json&) {}) == "");
  // A group may be longer than a row, and version 1 knows of none.
  BOOST_TEST(refusal(with_groups(1ull << 60)) == "");
  BOOST_TEST(refusal(first("group_size", 8)) == "");
  write_safetensors(packed.file(), std::vector<TensorData>{});
  BOOST_TEST(contains(message_of<format_error>([&] { PackedFile{packed.folder.path}; }),
                      "its metadata has no pare.packed"));
  BOOST_CHECK_THROW(PackedFile{packed.folder / "nowhere"}, io_error);
}

BOOST_AUTO_TEST_CASE(shards_may_hold_more_than_the_index_lists) {
  // A tensor that two shards hold, one that no list names, and one of a type that came later.
  const Folder folder, target;
  const auto bytes = [](int value, std::size_t n) {
    return std::vector<std::byte>(n, std::byte(value));
  };
  write_safetensors(folder / "one.safetensors",
                    {{"a", "F32", {1}, bytes(1, 4)}, {"twice", "U16", {1}, bytes(2, 2)}});
  test::write_text(folder / "two.safetensors",
                   detail::safetensors_start("two",
                                             {{"new", "F3", {5}, 0, 2},
                                              {"twice", "U16", {1}, 0, 2},
                                              {"unlisted", "F8_E4M3", {3}, 0, 3}},
                                             {}) +
                       "nntwuuu");
  test::write_text(folder / Checkpoint::index_name,
                   R"({"weight_map":{"a":"one.safetensors","twice":"one.safetensors",)"
                   R"("new":"two.safetensors"}})");
  const Checkpoint source(folder.path);
  const auto check = [](const SafetensorsFile& file) {
    BOOST_TEST(file.tensors().size() == 4u);
    for (const auto& [name, dtype, content] :
         std::vector<std::array<std::string, 3>>{{"a", "F32", "\1\1\1\1"},
                                                 {"twice", "U16", "\2\2"},
                                                 {"new", "F3", "nn"},
                                                 {"unlisted", "F8_E4M3", "uuu"}}) {
      BOOST_TEST(file.at(name).dtype == dtype);
      const auto stored = file.bytes(file.at(name));
      BOOST_TEST(std::string(reinterpret_cast<const char*>(stored.data()), stored.size()) ==
                 content);
    }
  };
  write_packed(target / PackedFile::name, source, PackedLinears());
  check(SafetensorsFile(target / PackedFile::name));
  write_unpacked(target / "dense", PackedFile(target.path));
  check(SafetensorsFile(target / "dense"));
}
