// What the tests of models share: comparisons, published values, made-up checkpoints.
#pragma once

#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "matrix_support.hpp"
#include "pare/model/load.hpp"
#include "pare/model/perplexity.hpp"
#include "support.hpp"

namespace test {

namespace fs = std::filesystem;
namespace utf = boost::unit_test;

/// Folder of the shared test data, empty when there is none.
inline fs::path shared_folder() {
  return shared_folder(utf::framework::current_test_case().p_name.get()).value_or(fs::path());
}

/// The model folder called `name`: from the examples where they ship it, else the shared one.
inline fs::path model_folder(const std::string& name) {
  const fs::path data = fs::path(test::examples_data) / name;
  if (fs::exists(data / "config.json")) return data;
  const fs::path shared = shared_folder();
  return shared.empty() ? fs::path() : shared / "models" / name;
}

/// The elements of an int32 tensor.
inline ids_t read_ids(const pare::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.read_bytes(name);
  ids_t ids(bytes.size() / sizeof(ids[0]));
  std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

/// A float tensor of any rank as (rows, its last side).
inline Matrix<float> read_rows(const pare::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.read_bytes(name);
  const index_t cols = index_t(file.at(name).shape.back());
  Matrix<float> m(index_t(bytes.size() / sizeof(float)) / cols, cols);
  std::memcpy(m.data(), bytes.data(), bytes.size());
  return m;
}

/// All logits of `hidden`, (tokens, vocab).
template <class B, class T>
Matrix<T> all_logits(const pare::LanguageModel<B, T>& model, MatrixView<const T> hidden,
                     pare::ModelWorkspace<B, T>& workspace) {
  Matrix<T> all(hidden.rows, model.config.vocab_size);
  index_t expected = 0;
  pare::head(model, hidden, workspace, [&](index_t first, MatrixView<const T> logits) {
    BOOST_TEST(first == expected);
    BOOST_TEST(logits.rows <= 1024);
    expected += logits.rows;
    const Matrix<T> rows = B::to_host(logits);
    for (index_t t = 0; t < rows.rows(); ++t)
      std::copy_n(rows.view().row(t), rows.cols(), all.view().row(first + t));
  });
  BOOST_TEST(expected == hidden.rows);
  return all;
}

template <class B, class T>
Matrix<T> run_model(const pare::LanguageModel<B, T>& model, const ids_t& ids, index_t seqlen) {
  pare::ModelWorkspace<B, T> workspace;
  typename B::template matrix<T> hidden;
  pare::embed(model, std::span<const std::int32_t>(ids), seqlen, workspace, hidden);
  for (const auto& layer : model.layers)
    pare::forward_layer(model, layer, hidden.view(), seqlen, workspace);
  return all_logits<B, T>(model, hidden.view(), workspace);
}

/// A made-up OPT model in a folder that is removed at the end.
struct SmallModel {
  nlohmann::json config{{"model_type", "opt"},    {"activation_function", "relu"},
                        {"hidden_size", 12},      {"ffn_dim", 20},
                        {"num_hidden_layers", 2}, {"num_attention_heads", 3},
                        {"vocab_size", 17},       {"max_position_embeddings", 9}};
  std::string prefix = "model.decoder.";
  std::map<std::string, pare::TensorData> tensors;
  fs::path folder;

  explicit SmallModel(const nlohmann::json& changes = nlohmann::json::object()) {
    static int counter = 0;
    folder = fs::temp_directory_path() /
             ("pare_model_" + std::to_string(::getpid()) + "_" + std::to_string(counter++));
    fs::create_directories(folder);
    config.update(changes);
    const pare::Architecture c = pare::parse_architecture("config.json", config.dump());
    const auto h = c.hidden_size, word = c.embedding_size;
    put("embed_tokens.weight", {c.vocab_size, word});
    put("embed_positions.weight", {c.max_position_embeddings + c.position_offset, h});
    if (c.projects_embeddings()) {
      put("project_in.weight", {h, word});
      put("project_out.weight", {word, h});
    }
    for (index_t i = 0; i < c.num_hidden_layers; ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
        put_linear(layer + "self_attn." + name, h, h, c);
      put_linear(layer + "fc1", c.intermediate_size, h, c);
      put_linear(layer + "fc2", h, c.intermediate_size, c);
      put_norm(layer + "self_attn_layer_norm", c);
      put_norm(layer + "final_layer_norm", c);
    }
    if (!c.names.final_norm.empty()) put_norm("final_layer_norm", c);
    if (!c.tie_word_embeddings) {
      put("lm_head.weight", {c.vocab_size, word});
      tensors["lm_head.weight"].name = "";  // the only one without prefix
    }
  }
  ~SmallModel() {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  void put(const std::string& name, std::vector<std::int64_t> shape) {
    index_t count = 1;
    for (const auto side : shape) count *= side;
    const auto values = random_matrix<float>(1, count, unsigned(tensors.size() + 1), 0.4);
    tensors[name] = {name, "F32", std::move(shape),
                     pare::encode_floats({values.data(), std::size_t(count)}, pare::DType::f32)};
  }
  void put_linear(const std::string& name, index_t out, index_t in, const pare::Architecture& c) {
    put(name + ".weight", {out, in});
    if (c.linears.front().bias) put(name + ".bias", {out});
  }
  void put_norm(const std::string& name, const pare::Architecture& c) {
    if (!c.norm_affine) return;
    put(name + ".weight", {c.hidden_size});
    put(name + ".bias", {c.hidden_size});
  }
  fs::path write() const {
    std::vector<pare::TensorData> list;
    for (const auto& [name, tensor] : tensors) {
      list.push_back(tensor);
      list.back().name = tensor.name.empty() ? name : prefix + name;
    }
    pare::write_safetensors(folder / "model.safetensors", list);
    pare::detail::OutputFile out(folder / "config.json");
    const std::string text = config.dump();
    out.write(std::as_bytes(std::span(text)));
    out.commit();
    return folder;
  }
};

}  // namespace test
