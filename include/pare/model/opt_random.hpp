// OPT models of the published shapes with random weights, made where the backend computes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/random.hpp"
#include "pare/model/opt.hpp"
#include "pare/model/opt_names.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

struct PublishedShape {
  std::string_view name;
  index_t hidden, layers, heads;
};
inline constexpr PublishedShape published_shapes[] = {{"opt-125m", 768, 12, 12},
                                                      {"opt-350m", 1024, 24, 16},
                                                      {"opt-1.3b", 2048, 24, 32},
                                                      {"opt-2.7b", 2560, 32, 32},
                                                      {"opt-6.7b", 4096, 32, 32}};

}  // namespace detail

/// The names that opt_shape takes.
inline std::vector<std::string> opt_shape_names() {
  std::vector<std::string> names;
  for (const auto& shape : detail::published_shapes) names.emplace_back(shape.name);
  return names;
}

/// The configuration of a published size: "opt-125m", "opt-350m" (norms behind the residual sums,
/// projected embeddings), "opt-1.3b", "opt-2.7b" or "opt-6.7b". Throws argument_error for another
/// name. Source: Zhang et al. 2022 (OPT), table 1, and the published config.json files.
inline OptConfig opt_shape(std::string_view name) {
  std::string known;
  for (const auto& shape : detail::published_shapes) {
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
    if (shape.name != name) continue;
    OptConfig config;
    config.hidden_size = config.word_embed_proj_dim = shape.hidden;
    config.ffn_dim = 4 * shape.hidden;
    config.num_hidden_layers = shape.layers;
    config.num_attention_heads = shape.heads;
    config.vocab_size = 50272;
    config.max_position_embeddings = 2048;
    if (shape.name == "opt-350m") {
      config.word_embed_proj_dim = 512;
      config.do_layer_norm_before = false;
    }
    return config;
  }
  throw argument_error("shape: expected one of " + known + ", got " + std::string(name));
}

namespace detail {

/// Makes the tensors of a model one after the other, each from a key of its own.
template <class B, class S>
class RandomOpt {
 public:
  RandomOpt(const OptConfig& config, std::uint64_t seed) : config_(config), key_(seed) {}

  OptModel<B, S> model() {
    const index_t hidden = config_.hidden_size, word = config_.word_embed_proj_dim;
    OptModel<B, S> model;
    model.config = config_;
    model.embed_tokens = normal(config_.vocab_size, word);
    model.embed_positions = normal(config_.max_position_embeddings + opt_position_offset, hidden);
    if (config_.projects_embeddings()) {
      model.project_in = linear("project_in", hidden, word, false);
      model.project_out = linear("project_out", word, hidden, false);
    }
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) model.layers.push_back(layer(i));
    if (config_.has_final_layer_norm()) model.final_layer_norm = layer_norm();
    if (!config_.tie_word_embeddings) model.untied_head = normal(config_.vocab_size, word);
    return model;
  }

 private:
  using Owner = typename B::template matrix<S>;

  static constexpr float deviation = 0.02f;  ///< init_std of the published configurations

  Owner normal(index_t rows, index_t cols) {
    Owner A(rows, cols);
    key_ = kernels::FillNormal<S>::mix(key_ + 1);
    B::for_each_element(rows, cols, kernels::FillNormal<S>{A.view(), key_, deviation});
    return A;
  }

  Owner constant(index_t cols, float value) const {
    Owner A(1, cols);
    B::for_each_element(1, cols, kernels::FillConstant<S>{A.view(), value});
    return A;
  }

  Linear<B, S> linear(const std::string& name, index_t out, index_t in, bool has_bias) {
    Linear<B, S> linear;
    linear.name = name;
    linear.tensor = "model.decoder." + name + ".weight";
    linear.dtype = scalar_traits<S>::dtype;
    linear.weight = normal(out, in);
    if (has_bias) linear.bias = constant(out, 0);
    return linear;
  }

  LayerNorm<B, S> layer_norm() const {
    LayerNorm<B, S> norm;
    if (!config_.layer_norm_elementwise_affine) return norm;
    norm.weight = constant(config_.hidden_size, 1);
    norm.bias = constant(config_.hidden_size, 0);
    return norm;
  }

  OptLayer<B, S> layer(index_t index) {
    const index_t hidden = config_.hidden_size, ffn = config_.ffn_dim;
    const auto names = opt_linear_names(index);
    OptLayer<B, S> layer;
    const auto linears = layer.linears();
    for (std::size_t l = 0; l < linears.size(); ++l)
      *linears[l] = linear(names[l], linears[l] == &layer.fc1 ? ffn : hidden,
                           linears[l] == &layer.fc2 ? ffn : hidden, config_.enable_bias);
    layer.self_attn_layer_norm = layer_norm();
    layer.final_layer_norm = layer_norm();
    return layer;
  }

  OptConfig config_;
  std::uint64_t key_;
};

}  // namespace detail

/// A model with weights and embeddings N(0, 0.02), biases 0 and layer norms 1, as the published
/// initialisation has them.
/// @param config  its shape, from opt_shape or load_opt_config
/// @param seed    the same seed gives the same bytes on every backend
template <class B, class S>
OptModel<B, S> random_opt(const OptConfig& config, std::uint64_t seed) {
  return detail::RandomOpt<B, S>(config, seed).model();
}

/// Token ids to go with it, uniform over the vocabulary but for the four special ones in front.
inline std::vector<std::int32_t> random_tokens(const OptConfig& config, index_t count,
                                               std::uint64_t seed) {
  constexpr std::uint64_t special = 4;
  const std::uint64_t words = std::uint64_t(config.vocab_size) - special;
  std::vector<std::int32_t> ids(std::size_t(count), 0);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint64_t at = kernels::FillNormal<float>::mix(seed) + i;
    ids[i] =
        std::int32_t(special + kernels::FillNormal<float>::mix(0x9e3779b97f4a7c15ull * at) % words);
  }
  return ids;
}

}  // namespace pare
