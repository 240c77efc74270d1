// OPT configurations, checkpoints and arguments, good and bad; perplexity against published values.
#define BOOST_TEST_MODULE pare_model
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "files.hpp"
#include "model_support.hpp"
#include "opt_architecture.hpp"
#include "pare/model/save.hpp"
#include "pare/tokenizer/tokenizer.hpp"

using namespace test;
namespace tt = boost::test_tools;

namespace {

using pare::LinearRole;
using EigenBackend = pare::backend::Eigen;
struct NoModels : pare::backend::HostMemory {
  static constexpr std::string_view name = "none";
};
static_assert(!pare::ModelBackend<NoModels, float> && !pare::ModelBackend<EigenBackend, int>);

}  // namespace

// ---------------------------------------------------------------- configuration

BOOST_AUTO_TEST_CASE(good_configurations) {
  const auto c = pare::parse_architecture(
      "f", R"({"model_type":"opt","hidden_size":12,"ffn_dim":20,"num_hidden_layers":2,
               "num_attention_heads":3,"vocab_size":17,"max_position_embeddings":9})");
  BOOST_TEST(c.hidden_size == 12);
  BOOST_TEST(c.intermediate_size == 20);
  BOOST_TEST(c.num_hidden_layers == 2);
  BOOST_TEST(c.head_dim == 4);
  BOOST_TEST(c.embedding_size == 12);
  BOOST_TEST(!c.projects_embeddings());
  BOOST_CHECK(c.norm_place == pare::NormPlace::before);
  BOOST_TEST(c.names.final_norm == "final_layer_norm");
  for (const pare::LinearSpec& linear : c.linears) BOOST_TEST(linear.bias);
  BOOST_TEST(c.norm_affine);
  BOOST_TEST(c.tie_word_embeddings);
  BOOST_TEST(c.bos_token_id == 2);
  BOOST_CHECK(c == opt_architecture(12, 20, 2, 3, 17, 9));
  BOOST_TEST(message_of<pare::io_error>([] { pare::load_architecture("no/such/folder"); }) ==
             "no/such/folder/config.json: cannot open for reading: No such file or directory");
}

BOOST_AUTO_TEST_CASE(null_fields) {
  const auto read = [](const char* field) {
    auto config = SmallModel().config;
    config[field] = nullptr;
    return pare::parse_architecture("f", config.dump());
  };
  BOOST_TEST(read("bos_token_id").bos_token_id == -1);  // none is put in front of a text
  BOOST_TEST(read("word_embed_proj_dim").embedding_size == 12);
  for (const char* field : {"_remove_final_layer_norm", "enable_bias", "do_layer_norm_before",
                            "layer_norm_elementwise_affine", "tie_word_embeddings"})
    BOOST_CHECK(read(field) == opt_architecture(12, 20, 2, 3, 17, 9));
  BOOST_TEST(read("quantization_config").hidden_size == 12);
  BOOST_TEST(read("pad_token_id").hidden_size == 12);
}

BOOST_AUTO_TEST_CASE(configurations_of_quantized_models) {
  const auto message = [](const char* field, const nlohmann::json& value) {
    auto config = SmallModel().config;
    config["model_type"] = "mamba";  // what it is quantized by comes first
    config[field] = value;
    return message_of<pare::format_error>([&] { pare::parse_architecture("f", config.dump()); });
  };
  BOOST_TEST(
      message("quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}) ==
      "f: quantization_config: the model is already quantized by gptq; give the model it was "
      "made from, with weights in F16, BF16 or F32");
  BOOST_TEST(
      message("quantization_config", {{"load_in_8bit", true}})
          .starts_with("f: quantization_config: the model is already quantized by a program"));
  BOOST_TEST(
      message("compression_config", {{"quant_method", "compressed-tensors"}})
          .starts_with("f: compression_config: the model is already quantized by compressed"));
}

BOOST_AUTO_TEST_CASE(what_is_no_model_folder_is_called_by_name) {
  const test::Folder folder;
  const auto message = [&](const fs::path& path) {
    try {
      pare::load_architecture(path);
    } catch (const pare::error& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  const auto check = [&](const fs::path& path, const std::string& what) {
    BOOST_TEST_INFO(message(path));
    BOOST_CHECK(message(path).starts_with(path.string() + ": "));
    BOOST_TEST_INFO(message(path));
    BOOST_CHECK(message(path).find(what) != std::string::npos);
  };
  check("facebook/opt-125m", "'hf download facebook/opt-125m --local-dir FOLDER' and give FOLDER");
  check("opt-125m", "if it is the name of a model on the Hugging Face hub");
  for (const char* name : {"model.safetensors", "pytorch_model.bin", "x.pt"}) {
    test::write_text(folder / name, "");
    check(folder / name, "a file of weights; give the folder that holds it");
  }
  test::write_text(folder / "config.json", "{}");
  check(folder / "config.json", "a file of a model; give its folder, " + folder.path.string());
  test::write_text(folder / "x.gguf", "GGUF\x03");
  check(folder / "x.gguf", "a GGUF file of llama.cpp, which is not read");
  test::write_text(folder / "text.txt", "a text");
  check(folder / "text.txt", "a file, not a folder; give the Hugging Face folder of a model");
  fs::remove(folder / "config.json");
  check(folder.path, "there is no config.json but 'x.gguf', a GGUF file");
  fs::create_directories(folder / "A");  // before x.gguf
  test::write_text(folder / "A" / "config.json", "{}");
  check(folder.path, "there is no config.json in it, but in " + (folder / "A").string());
  fs::create_directories(folder / "snapshots" / "12ab");
  test::write_text(folder / "snapshots" / "12ab" / "config.json", "{}");
  check(folder.path, "cache; give " + (folder / "snapshots" / "12ab").string());
  test::write_text(folder / "model_index.json", "{}");
  check(folder.path, "a pipeline of several models");
  test::write_text(folder / "adapter_config.json",
                   R"({"base_model_name_or_path":"facebook/opt-x"})");
  check(folder.path, "an adapter of PEFT (LoRA) for 'facebook/opt-x', not a model; merge it");
  test::write_text(folder / "config.json", "version https://git-lfs.github.com/spec/v1\n");
  BOOST_TEST(message(folder.path) ==
             (folder / "config.json").string() +
                 ": a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'");
}

BOOST_AUTO_TEST_CASE(bad_configurations) {
  const std::string good = SmallModel().config.dump();
  const struct {
    const char* field;
    const char* value;  ///< as JSON; nothing: the field is taken out
    const char* message;
  } table[] = {
      {"hidden_size", "-3", "hidden_size: expected a positive integer, got -3"},
      {"hidden_size", "0", "hidden_size: expected a positive integer, got 0"},
      {"hidden_size", "12.0", "hidden_size: expected a positive integer, got 12.0"},
      {"hidden_size", "\"12\"", "hidden_size: expected a positive integer, got \"12\""},
      {"hidden_size", nullptr, "hidden_size: expected a positive integer, got nothing"},
      {"hidden_size", "16777217",
       "hidden_size: expected an integer of at most 16777216, got "
       "16777217"},
      {"hidden_size", "1e300", "hidden_size: expected a positive integer, got 1e+300"},
      {"ffn_dim", "null", "ffn_dim: expected a positive integer, got null"},
      {"ffn_dim", "[20]", "ffn_dim: expected a positive integer, got [20]"},
      {"num_hidden_layers", "true", "num_hidden_layers: expected a positive integer, got true"},
      {"num_attention_heads", "5",
       "num_attention_heads: expected a divisor of hidden_size 12, "
       "got 5"},
      {"vocab_size", "18446744073709551615",
       "vocab_size: expected an integer of at most "
       "16777216, got 18446744073709551615"},
      {"vocab_size", "2",
       "bos_token_id: expected a token id from 0 to 1 (vocab_size - 1), got "
       "nothing"},
      {"max_position_embeddings", nullptr,
       "max_position_embeddings: expected a positive "
       "integer, got nothing"},
      {"word_embed_proj_dim", "-1", "word_embed_proj_dim: expected a positive integer, got -1"},
      {"do_layer_norm_before", "1", "do_layer_norm_before: expected true or false, got 1"},
      {"_remove_final_layer_norm", "\"no\"",
       "_remove_final_layer_norm: expected true or false, "
       "got \"no\""},
      {"enable_bias", "\"yes\"", "enable_bias: expected true or false, got \"yes\""},
      {"layer_norm_elementwise_affine", "0",
       "layer_norm_elementwise_affine: expected true or "
       "false, got 0"},
      {"tie_word_embeddings", "{}", "tie_word_embeddings: expected true or false, got {}"},
      {"bos_token_id", "17",
       "bos_token_id: expected a token id from 0 to 16 (vocab_size - 1), "
       "got 17"},
      {"bos_token_id", "-1",
       "bos_token_id: expected a token id from 0 to 16 (vocab_size - 1), "
       "got -1"},
      {"activation_function", "\"tanh\"",
       "activation_function: expected one of relu, gelu, gelu_python, gelu_new, gelu_fast, "
       "gelu_pytorch_tanh, gelu_python_tanh, gelu_accurate, quick_gelu, silu, swish, got \"tanh\""},
      {"model_type", "\"mamba\"",
       "model_type: expected one of bloom, gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral, "
       "opt, phi3, qwen2, qwen3, got \"mamba\""},
      {"model_type", nullptr,
       "model_type: expected one of bloom, gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral, "
       "opt, phi3, qwen2, qwen3, got nothing"},
  };
  for (const auto& row : table) {
    auto config = nlohmann::json::parse(good);
    config.erase(row.field);
    if (row.value != nullptr) config[row.field] = nlohmann::json::parse(row.value);
    BOOST_TEST(message_of<pare::format_error>([&] {
                 pare::parse_architecture("DIR/config.json", config.dump());
               }) == std::string("DIR/config.json: ") + row.message);
  }
  for (const char* text : {"", "{", "[]", "3", "{} x", "{\"a\":1,\"a\":2}"})
    BOOST_CHECK_EXCEPTION(pare::parse_architecture("DIR/config.json", text), pare::format_error,
                          [](const auto& e) {
                            const std::string message = e.what();
                            return message.starts_with("DIR/config.json: ") &&
                                   message.find('\n') == std::string::npos;
                          });
}

// ---------------------------------------------------------------- loading

BOOST_AUTO_TEST_CASE(names_of_linears) {
  for (const char* prefix : {"model.decoder.", "decoder.", ""}) {
    SmallModel files;
    files.prefix = prefix;
    auto model = pare::load_model<EigenBackend, float>(files.write());
    const auto linears = model.layers.at(1).linears();
    const char* names[] = {"self_attn.k_proj",
                           "self_attn.v_proj",
                           "self_attn.q_proj",
                           "self_attn.out_proj",
                           "fc1",
                           "fc2"};
    for (std::size_t i = 0; i < 6; ++i) {
      BOOST_TEST(linears[i]->name == std::string("layers.1.") + names[i]);
      BOOST_TEST(linears[i]->tensor == prefix + linears[i]->name + ".weight");
      BOOST_TEST((linears[i]->dtype == pare::DType::f32));
    }
  }
}

BOOST_AUTO_TEST_CASE(every_prefix_names_the_same_model) {
  const ids_t ids{2, 3, 4, 5, 6, 7};
  std::vector<Matrix<float>> logits;
  for (const char* prefix : {"model.decoder.", "decoder.", ""}) {
    SmallModel files(nlohmann::json{{"tie_word_embeddings", false}});
    files.prefix = prefix;
    logits.push_back(run_model(pare::load_model<EigenBackend, float>(files.write()), ids, 3));
    BOOST_TEST(distance(logits.back(), logits.front()) == 0);
  }
}

BOOST_AUTO_TEST_CASE(tied_embeddings_may_be_kept_as_the_head_alone) {
  const ids_t ids{2, 3, 4, 5, 6, 7};
  for (const char* prefix : {"model.decoder.", "decoder.", ""}) {
    SmallModel files;
    files.prefix = prefix;
    const auto expected = run_model(pare::load_model<EigenBackend, float>(files.write()), ids, 3);
    auto embedding = files.tensors.extract("embed_tokens.weight");
    embedding.key() = "lm_head.weight";
    embedding.mapped().name = "";  // no prefix
    files.tensors.insert(std::move(embedding));
    BOOST_TEST(distance(run_model(pare::load_model<EigenBackend, float>(files.write()), ids, 3),
                        expected) == 0);
    // Not tied, the head is no embedding.
    files.config["tie_word_embeddings"] = false;
    const fs::path folder = files.write();
    BOOST_TEST(message_of<pare::format_error>([&] {
                 pare::load_model<EigenBackend, float>(folder);
               }).ends_with("there is no tensor '" + std::string(prefix) + "embed_tokens.weight'"));
  }
}

BOOST_AUTO_TEST_CASE(a_head_beside_embeddings_that_it_is_tied_to) {
  SmallModel files;
  const auto notes = [&] {
    const fs::path folder = files.write();
    return pare::weight_notes(pare::load_architecture(folder), pare::Checkpoint(folder));
  };
  BOOST_TEST(notes().empty());
  files.tensors["lm_head.weight"] = files.tensors["embed_tokens.weight"];
  files.tensors["lm_head.weight"].name = "";  // no prefix
  BOOST_TEST(notes().empty());
  files.tensors["lm_head.weight"].bytes[0] ^= std::byte{1};
  BOOST_REQUIRE(notes().size() == 1u);
  BOOST_CHECK(notes()[0].find("'lm_head.weight' is not equal to tensor "
                              "'model.decoder.embed_tokens.weight'") != std::string::npos);
  files.config["tie_word_embeddings"] = false;
  BOOST_TEST(notes().empty());
}

BOOST_AUTO_TEST_CASE(tensors_that_nobody_needs_may_be_of_any_type) {
  SmallModel files;
  const ids_t ids{2, 3, 4};
  const auto expected = run_model(pare::load_model<EigenBackend, float>(files.write()), ids, 3);
  for (const char* dtype : {"U16", "F8_E4M3", "F8_E5M2", "F4", "F6_E3M2"})
    files.tensors[std::string("score.") + dtype] = {
        "", dtype, {8}, std::vector<std::byte>(std::size_t(pare::element_bits(dtype)))};
  BOOST_TEST(distance(run_model(pare::load_model<EigenBackend, float>(files.write()), ids, 3),
                      expected) == 0);
  files.tensors["layers.0.fc1.weight"].dtype = "F8_E4M3";
  files.tensors["layers.0.fc1.weight"].bytes.resize(240);
  const fs::path folder = files.write();
  BOOST_TEST(message_of<pare::format_error>([&] { pare::load_model<EigenBackend, float>(folder); })
                 .ends_with("expected dtype F16, BF16, F32 or F64, got F8_E4M3; give a model with "
                            "plain weights"));
}

BOOST_AUTO_TEST_CASE(weights_that_are_quantized_already) {
  SmallModel files;
  files.tensors["layers.0.fc1.qweight"] = {"with the prefix",
                                           "I32",
                                           {1},
                                           std::vector<std::byte>(4)};
  files.tensors["layers.0.fc1.g_idx"] = files.tensors["layers.0.fc1.qweight"];
  files.tensors.erase("layers.0.fc1.weight");
  const fs::path folder = files.write();
  BOOST_TEST(message_of<pare::format_error>([&] {
               pare::load_model<EigenBackend, float>(folder);
             }) == folder.string() +
                       ": the model is already quantized by gptq (tensor "
                       "'model.decoder.layers.0.fc1.qweight'); give the model it was made from, "
                       "with weights in F16, BF16 or F32");
}

BOOST_AUTO_TEST_CASE(bad_weights) {
  const auto load = [](const SmallModel& files) {
    const fs::path folder = files.write();
    return message_of<pare::error>([&] { pare::load_model<EigenBackend, float>(folder); });
  };
  {
    SmallModel files;
    files.tensors.erase("layers.1.fc1.bias");
    BOOST_TEST(load(files) ==
               files.folder.string() + ": there is no tensor 'model.decoder.layers.1.fc1.bias'");
  }
  {
    SmallModel files;
    files.tensors.erase("embed_tokens.weight");
    BOOST_TEST(load(files) == files.folder.string() +
                                  ": there is no tensor, expected one of "
                                  "'model.decoder.embed_tokens.weight', "
                                  "'decoder.embed_tokens.weight', 'embed_tokens.weight'");
  }
  {
    SmallModel files;
    auto& second = files.tensors["decoder.embed_tokens.weight"];
    second = files.tensors["embed_tokens.weight"];
    second.name = "";  // no prefix
    BOOST_TEST(load(files) == files.folder.string() +
                                  ": holds both tensor 'model.decoder.embed_tokens.weight' and "
                                  "tensor 'decoder.embed_tokens.weight', expected one of them");
  }
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{12, 20}, {20}, {240}, {2, 10, 12}, {}}) {
    SmallModel files;
    files.put("layers.0.fc1.weight", shape);
    std::string given;
    for (const auto side : shape) given += (given.empty() ? "" : ", ") + std::to_string(side);
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc1.weight': expected shape "
                                  "(20, 12), got (" +
                                  given + ")");
  }
  {
    SmallModel files;
    files.put("layers.0.fc1.bias", {1, 20});  // as many numbers, another shape
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc1.bias': expected shape "
                                  "(20), got (1, 20)");
  }
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    SmallModel files;
    auto& bytes = files.tensors["layers.0.fc2.weight"].bytes;
    std::memcpy(bytes.data() + sizeof(float) * (3 * 20 + 7), &value, sizeof(value));
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc2.weight': expected finite "
                                  "numbers, got " +
                                  (std::isnan(value) ? "NaN" : "infinity") + " at (3, 7)");
  }
  {
    SmallModel files;
    files.tensors["final_layer_norm.weight"].dtype = "I32";
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.final_layer_norm.weight': expected "
                                  "dtype F16, BF16, F32 or F64, got I32; give a model with "
                                  "plain weights");
  }
  {
    SmallModel files(nlohmann::json{{"tie_word_embeddings", false}});
    files.tensors.erase("lm_head.weight");
    BOOST_TEST(load(files) == files.folder.string() + ": there is no tensor 'lm_head.weight'");
  }
}

BOOST_AUTO_TEST_CASE(layers_that_are_read_one_at_a_time_are_the_same_model) {
  SmallModel files(nlohmann::json{{"vocab_size", 29}});
  const auto model = pare::load_model<EigenBackend, float>(files.write());
  const pare::ModelFiles<EigenBackend, float> folder(files.folder);
  const auto frame = folder.frame();
  BOOST_TEST(frame.layers.empty());
  // 1100 windows of 4 tokens: batches of 512 windows.
  ids_t ids(4400);
  test::Random random(5);
  for (auto& id : ids) id = std::int32_t(random.below(29));
  const double whole = pare::perplexity(model, std::span<const std::int32_t>(ids), 4);
  std::optional<pare::DecoderLayer<EigenBackend, float>> held;
  index_t reads = 0;
  const auto layer = [&](index_t i) -> const auto& {
    ++reads;
    held.reset();
    return held.emplace(folder.layer(i));
  };
  for (const auto& [tokens, groups] : std::map<index_t, index_t>{{0, 3}, {4096, 2}, {9000, 1}}) {
    reads = 0;
    index_t told = 0;
    const double apart = pare::perplexity(frame, 2, layer, ids, {.seqlen = 4}, tokens,
                                          [&](index_t done, index_t all) {
                                            BOOST_TEST((done >= told && all == 1100));
                                            told = done;
                                          });
    BOOST_TEST(apart == whole, tt::tolerance(0.0));
    BOOST_TEST(told == 1100);
    BOOST_TEST(reads == 2 * groups);
  }

  // Another file's tensors go before the folder's.
  pare::TensorData fc1 = files.tensors.at("layers.1.fc1.weight");
  fc1.name = files.prefix + fc1.name;
  std::fill(fc1.bytes.begin(), fc1.bytes.end(), std::byte{0});
  pare::write_safetensors(files.folder / "finished.safetensors", {fc1});
  const pare::SafetensorsFile finished(files.folder / "finished.safetensors");
  const auto changed = folder.layer(1, &finished);
  const Matrix<float>& zeros = changed.at(LinearRole::up).weight;
  for (index_t i = 0; i < zeros.size(); ++i) BOOST_REQUIRE(zeros.data()[i] == 0.0f);
  BOOST_TEST(changed.at(LinearRole::down).weight(3, 5) ==
             model.layers[1].at(LinearRole::down).weight(3, 5));

  // Names, types and shapes are checked before any layer is read.
  files.put("layers.1.fc2.weight", {12, 19});
  files.write();
  BOOST_TEST(test::contains(message_of<pare::format_error>([&] {
                              const pare::ModelFiles<EigenBackend, float> bad(files.folder);
                            }),
                            "layers.1.fc2.weight': expected shape (12, 20), got (12, 19)"));
}

BOOST_AUTO_TEST_CASE(a_saved_model_is_the_one_in_memory) {
  SmallModel files;
  const fs::path source = files.write();
  auto model = pare::load_model<EigenBackend, float>(source);
  auto& fc2 = model.layers[1].at(LinearRole::down).weight;
  for (pare::index_t i = 0; i < fc2.size(); ++i) fc2.data()[i] = i % 3 == 0 ? 0.0f : 0.5f;
  test::write_text(source / "tokenizer.json", "{}");
  const test::Folder results;
  const fs::path saved = results / "saved";
  pare::save_model(model, source, saved);

  for (const char* name : {"config.json", "tokenizer.json"})
    BOOST_CHECK(test::read_text(saved / name) == test::read_text(source / name));
  const auto again = pare::load_model<EigenBackend, float>(saved);
  const ids_t ids{1, 2, 3, 4, 5, 6};
  const auto expected = run_model(model, ids, 3), got = run_model(again, ids, 3);
  BOOST_CHECK(test::same_bytes(expected, got));
  BOOST_TEST(again.layers[1].at(LinearRole::down).weight(0, 0) == 0.0f);
  BOOST_TEST(again.layers[1].at(LinearRole::down).weight(0, 1) == 0.5f);
  // Another model's weights would be found: the dense one's logits differ.
  BOOST_CHECK(!test::same_bytes(expected,
                                run_model(pare::load_model<EigenBackend, float>(source), ids, 3)));

  BOOST_TEST(message_of<pare::argument_error>([&] { pare::save_model(model, source, saved); }) ==
             "folder: expected a new or empty one, got " + saved.string());
  BOOST_TEST(message_of<pare::argument_error>([&] { pare::save_model(model, source, source); }) ==
             "folder: expected a new or empty one, got " + source.string());
  BOOST_TEST(test::contains(message_of<pare::io_error>([&] {
                              pare::save_model(model, source, results / "no" / "folder");
                            }),
                            "cannot be made"));
}

// ---------------------------------------------------------------- forward pass

BOOST_AUTO_TEST_CASE(bad_arguments) {
  const SmallModel files;
  const auto model = pare::load_model<EigenBackend, float>(files.write());
  pare::ModelWorkspace<EigenBackend, float> workspace;
  Matrix<float> hidden;
  const auto embed = [&](ids_t ids, index_t seqlen) {
    return message_of<pare::argument_error>(
        [&] { pare::embed(model, std::span<const std::int32_t>(ids), seqlen, workspace, hidden); });
  };
  BOOST_TEST(embed({1, 2, 17, 3}, 2) == "embed: ids: expected 0 to 16, got 17 at 2");
  BOOST_TEST(embed({1, -2}, 2) == "embed: ids: expected 0 to 16, got -2 at 1");
  BOOST_TEST(embed({1, 2, 3}, 2) == "embed: ids: expected whole windows of 2 tokens, got 3");
  BOOST_TEST(embed({1, 2, 3}, 10) ==
             "embed: seqlen: expected 1 to 9 (max_position_embeddings), got 10");
  Matrix<float> wrong(4, 13);
  BOOST_TEST(message_of<pare::shape_error>([&] {
               pare::forward_layer(model, model.layers[0], wrong.view(), 2, workspace);
             }) == "forward_layer: hidden: expected shape (windows * 2, 12), got (4, 13)");
  ids_t ids{2, 3, 4};
  const auto ppl = [&](index_t seqlen) {
    return message_of<pare::argument_error>(
        [&] { pare::perplexity(model, std::span<const std::int32_t>(ids), seqlen); });
  };
  BOOST_TEST(ppl(5) == "perplexity: the text has 3 tokens, at least 5 are needed for one window");
  BOOST_TEST(ppl(1) == "perplexity: seqlen: expected 2 to 9 (max_position_embeddings), got 1");
  ids.resize(10, 5);
  BOOST_TEST(ppl(10) == "perplexity: seqlen: expected 2 to 9 (max_position_embeddings), got 10");
}

BOOST_AUTO_TEST_CASE(perplexity_of_a_broken_model) {
  const SmallModel files;
  auto model = pare::load_model<EigenBackend, float>(files.write());
  model.layers[0].at(LinearRole::down).weight(1, 1) = NAN;
  const ids_t ids{2, 3, 4, 5, 6};
  BOOST_TEST(message_of<pare::error>([&] {
               pare::perplexity(model, std::span<const std::int32_t>(ids), 2);
             }) == "perplexity: the cross entropy of windows 0 to 1 is not finite");
}

// ---------------------------------------------------------------- published values

namespace {

/// Perplexity of a model on the ids that came with the shared data.
void check_perplexity(const std::string& name, const std::string& text, double expected) {
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const auto model = pare::load_model<EigenBackend, float>(model_folder(name));
  const pare::SafetensorsFile golden(shared / "golden" / "tokens.safetensors");
  ids_t ids = read_ids(golden, name + "/" + text);
  ids.insert(ids.begin(), model.config.bos_token_id);
  const double got = pare::perplexity(model, std::span<const std::int32_t>(ids),
                                      model.config.max_position_embeddings);
  BOOST_TEST_CONTEXT(name << " on " << text) BOOST_TEST(std::abs(got / expected - 1) < 1e-3);
  BOOST_TEST_MESSAGE(name << " on " << text << ": " << got << ", expected " << expected);
}

}  // namespace

BOOST_AUTO_TEST_CASE(perplexity_of_opt_tiny) { check_perplexity("opt-tiny", "c4.test", 130.331); }

BOOST_AUTO_TEST_CASE(perplexity_from_text) {
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const fs::path folder = model_folder("opt-tiny");
  const auto tokenizer = pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
  const auto model = pare::load_model<EigenBackend, float>(folder);
  ids_t ids = tokenizer.encode(pare::detail::read_whole_file(shared / "text" / "c4.test.txt"));
  ids.insert(ids.begin(), model.config.bos_token_id);
  const double got = pare::perplexity(model, std::span<const std::int32_t>(ids), 256);
  BOOST_TEST(std::abs(got / 130.331 - 1) < 1e-3);
}

BOOST_AUTO_TEST_CASE(dense_perplexities, *utf::label("slow") * utf::disabled()) {
  check_perplexity("opt-tiny", "wikitext2.test", 35.658);
  check_perplexity("opt-tiny", "ptb.test", 46.448);
  check_perplexity("opt-small", "c4.test", 223.364);
  check_perplexity("opt-small", "ptb.test", 61.036);
  check_perplexity("opt-small", "wikitext2.test", 46.709);
}
