// Made-up models of any family, in memory and in files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model_support.hpp"
#include "pare/model/families.hpp"
#include "pare/model/random.hpp"

namespace test {

/// A small configuration of a family; what it may have besides is switched on.
inline nlohmann::json small_config(const pare::Family& family) {
  const pare::FieldNames& names = family.fields;
  nlohmann::json config = {{"model_type", family.model_type},
                           {"vocab_size", 37},
                           {"bos_token_id", 1}};
  config[names.hidden_size] = 32;
  config[names.layers] = 3;
  config[names.heads] = 4;
  if (!names.intermediate_size.empty()) config[names.intermediate_size] = 40;
  if (!names.positions.empty()) config[names.positions] = 16;
  for (const pare::BiasField& field : family.biases) config[field.name] = true;
  if (family.base.norm == pare::NormKind::rms)
    config.update({{"num_key_value_heads", 2},
                   {"head_dim", 10},
                   {"sliding_window", 5},
                   {"use_sliding_window", true},
                   {"max_window_layers", 1}});
  if (family.model_type == "opt") config["word_embed_proj_dim"] = 20;
  return config;
}

/// A model of random weights, among them those of norms and biases.
template <class B>
pare::LanguageModel<B, float> made_up(const pare::Architecture& architecture) {
  auto model = pare::random_model<B, float>(architecture, 3);
  unsigned seed = 10;
  const auto stir = [&](auto& owner) {
    const auto view = owner.view();
    if (view.rows > 0) owner = upload<B>(random_matrix<float>(view.rows, view.cols, ++seed, 0.3));
  };
  const auto stir_norm = [&](pare::Norm<B, float>& norm) {
    stir(norm.weight);
    stir(norm.bias);
  };
  stir(model.embed_tokens);
  stir(model.embed_positions);
  stir(model.untied_head);
  if (model.embedding_norm) stir_norm(*model.embedding_norm);
  if (model.final_norm) stir_norm(*model.final_norm);
  for (auto& layer : model.layers) {
    for (auto* norm : {&layer.attention_norm, &layer.feed_forward_norm, &layer.after_attention_norm,
                       &layer.after_feed_forward_norm, &layer.query_norm, &layer.key_norm})
      stir_norm(*norm);
    for (auto* linear : layer.linears()) {
      stir(linear->weight);
      stir(linear->bias);
    }
  }
  return model;
}

/// All tensors of a model as a checkpoint names and holds them.
template <class B>
std::vector<pare::TensorData> tensors_of(const pare::LanguageModel<B, float>& model,
                                         const std::string& prefix) {
  std::vector<pare::TensorData> tensors;
  const auto add = [&](const std::string& name, const auto& owner, bool transposed = false) {
    Matrix<float> m = download<B>(owner);
    if (m.size() == 0) return;
    if (transposed) {
      Matrix<float> other(m.cols(), m.rows());
      for (index_t i = 0; i < m.rows(); ++i)
        for (index_t j = 0; j < m.cols(); ++j) other(j, i) = m(i, j);
      m = other;
    }
    std::vector<std::int64_t> shape{m.rows(), m.cols()};
    if (m.rows() == 1) shape.erase(shape.begin());
    tensors.push_back({name, "F32", shape,
                       pare::encode_floats({m.data(), std::size_t(m.size())}, pare::DType::f32)});
  };
  const auto add_norm = [&](const std::string& name, const pare::Norm<B, float>& norm) {
    add(name + ".weight", norm.weight);
    add(name + ".bias", norm.bias);
  };
  const pare::TensorNames& names = model.config.names;
  add(prefix + names.embedding + ".weight", model.embed_tokens);
  add(prefix + names.positions + ".weight", model.embed_positions);
  if (model.embedding_norm) add_norm(prefix + names.embedding_norm, *model.embedding_norm);
  if (model.project_in) add(prefix + names.project_in + ".weight", model.project_in->weight);
  if (model.project_out) add(prefix + names.project_out + ".weight", model.project_out->weight);
  if (model.final_norm) add_norm(prefix + names.final_norm, *model.final_norm);
  add(names.head + ".weight", model.untied_head);
  for (const auto& layer : model.layers) {
    const std::string within = prefix + names.layers + std::to_string(layer.index) + ".";
    add_norm(within + names.attention_norm, layer.attention_norm);
    add_norm(within + names.feed_forward_norm, layer.feed_forward_norm);
    add_norm(within + names.after_attention_norm, layer.after_attention_norm);
    add_norm(within + names.after_feed_forward_norm, layer.after_feed_forward_norm);
    add_norm(within + names.query_norm, layer.query_norm);
    add_norm(within + names.key_norm, layer.key_norm);
    for (std::size_t l = 0; l < layer.weights.size(); ++l) {
      const pare::LinearSpec& spec = model.config.linears[l];
      add(within + spec.name + ".weight", layer.weights[l].weight, spec.transposed);
      add(within + spec.name + ".bias", layer.weights[l].bias);
    }
  }
  return tensors;
}

}  // namespace test
