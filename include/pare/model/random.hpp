// Models of published shapes with random weights, made where the backend computes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/random.hpp"
#include "pare/model/decoder.hpp"
#include "pare/model/families.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

struct PublishedShape {
  std::string_view name, family;
  index_t hidden, intermediate, layers, heads, key_value_heads, vocab, positions;
  double theta = 0;  ///< 0: of the family
};
inline constexpr PublishedShape published_shapes[] = {
    {"opt-125m", "opt", 768, 3072, 12, 12, 12, 50272, 2048},
    {"opt-350m", "opt", 1024, 4096, 24, 16, 16, 50272, 2048},
    {"opt-1.3b", "opt", 2048, 8192, 24, 32, 32, 50272, 2048},
    {"opt-2.7b", "opt", 2560, 10240, 32, 32, 32, 50272, 2048},
    {"opt-6.7b", "opt", 4096, 16384, 32, 32, 32, 50272, 2048},
    {"opt-13b", "opt", 5120, 20480, 40, 40, 40, 50272, 2048},
    {"opt-30b", "opt", 7168, 28672, 48, 56, 56, 50272, 2048},
    {"opt-66b", "opt", 9216, 36864, 64, 72, 72, 50272, 2048},
    {"opt-175b", "opt", 12288, 49152, 96, 96, 96, 50272, 2048},
    {"llama-2-7b", "llama", 4096, 11008, 32, 32, 32, 32000, 4096},
    {"llama-3-8b", "llama", 4096, 14336, 32, 32, 8, 128256, 8192, 5e5},
    {"mistral-7b", "mistral", 4096, 14336, 32, 32, 8, 32000, 32768},
    {"qwen3-8b", "qwen3", 4096, 12288, 36, 32, 8, 151936, 40960, 1e6}};

}  // namespace detail

/// The names that named_shape takes.
inline std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const auto& shape : detail::published_shapes) names.emplace_back(shape.name);
  return names;
}

/// The architecture of a published model, by a name out of shape_names(). Throws argument_error for
/// another one. Sources: Zhang et al. 2022 (OPT), table 1; the published config.json files.
inline Architecture named_shape(std::string_view name) {
  std::string known;
  for (const auto& shape : detail::published_shapes) {
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
    if (shape.name != name) continue;
    Architecture a = std::ranges::find(known_families(), shape.family, &Family::model_type)->base;
    a.family = shape.family;
    a.hidden_size = a.embedding_size = shape.hidden;
    a.intermediate_size = shape.intermediate;
    a.num_hidden_layers = shape.layers;
    a.num_attention_heads = shape.heads;
    a.num_key_value_heads = shape.key_value_heads;
    a.head_dim = shape.hidden / shape.heads;
    a.vocab_size = shape.vocab;
    a.max_position_embeddings = shape.positions;
    a.layers.assign(std::size_t(shape.layers),
                    LayerSpec{.window = shape.family == "mistral" ? 4096 : 0});
    for (Rotary& rotary : a.rotaries) {
      rotary.width = a.head_dim;
      if (shape.theta > 0) rotary.theta = shape.theta;
    }
    if (shape.name == "opt-350m") {
      a.embedding_size = 512;
      a.norm_place = NormPlace::after;
      a.names.final_norm.clear();
    }
    return a;
  }
  throw argument_error("shape: expected one of " + known + ", got " + std::string(name));
}

namespace detail {

/// Makes the tensors of a model one after the other, each from a key of its own.
template <class B, class S>
class RandomModel {
 public:
  RandomModel(const Architecture& config, std::uint64_t seed) : config_(config), key_(seed) {}

  LanguageModel<B, S> model() {
    const index_t hidden = config_.hidden_size, word = config_.embedding_size;
    const TensorNames& names = config_.names;
    LanguageModel<B, S> model;
    model.config = config_;
    model.embed_tokens = normal(config_.vocab_size, word);
    if (config_.positions == PositionKind::learned)
      model.embed_positions =
          normal(config_.max_position_embeddings + config_.position_offset, hidden);
    if (!names.embedding_norm.empty()) model.embedding_norm = norm(hidden);
    if (config_.projects_embeddings()) {
      model.project_in =
          linear({.role = LinearRole::up, .name = names.project_in}, "", hidden, word);
      model.project_out =
          linear({.role = LinearRole::up, .name = names.project_out}, "", word, hidden);
    }
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) model.layers.push_back(layer(i));
    if (!names.final_norm.empty()) model.final_norm = norm(hidden);
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

  Linear<B, S> linear(const LinearSpec& spec, const std::string& within, index_t out, index_t in) {
    auto linear = described_linear<B, S>(spec, config_.names.prefixes.front(), within);
    linear.dtype = scalar_traits<S>::dtype;
    linear.weight = normal(out, in);
    if (spec.bias) linear.bias = constant(out, 0);
    return linear;
  }

  Norm<B, S> norm(index_t width) const {
    Norm<B, S> norm;
    if (!config_.norm_affine) return norm;
    norm.weight = constant(width, float(1 - config_.norm_offset));
    if (config_.norm == NormKind::layer) norm.bias = constant(width, 0);
    return norm;
  }

  DecoderLayer<B, S> layer(index_t index) {
    return build_layer<B, S>(
        config_, index, [&](const auto&... given) { return linear(given...); },
        [&](const std::string&, index_t width) { return norm(width); });
  }

  Architecture config_;
  std::uint64_t key_;
};

}  // namespace detail

/// A model with weights and embeddings N(0, 0.02), biases 0 and layer norms 1, as the published
/// initialisation has them.
/// @param config  its shape, from named_shape or load_architecture
/// @param seed    the same seed gives the same bytes on every backend
template <class B, class S>
LanguageModel<B, S> random_model(const Architecture& config, std::uint64_t seed) {
  return detail::RandomModel<B, S>(config, seed).model();
}

/// Token ids to go with it, uniform over the vocabulary but for the four special ones in front.
inline std::vector<std::int32_t> random_tokens(const Architecture& config, index_t count,
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
