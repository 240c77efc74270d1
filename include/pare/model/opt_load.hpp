// Loads OPT models from Hugging Face folders, whole or a decoder layer at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"
#include "pare/model/opt.hpp"
#include "pare/model/opt_config_json.hpp"
#include "pare/model/opt_names.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/quantized.hpp"

namespace pare::inline PARE_TARGET {

/// What stands in front of every tensor's name but the head's: "model.decoder." in language models,
/// "decoder." in base models, nothing in bare decoders. Throws format_error if the checkpoint holds
/// the token embeddings under none of these or under two, or weights that are quantized already.
inline std::string opt_tensor_prefix(const Checkpoint& checkpoint) {
  if (const auto method = quantized_by(checkpoint))
    throw detail::already_quantized(checkpoint.folder().string(), *method);
  std::optional<std::string> prefix;
  // The token embeddings may be there as the head only; see opt_embedding_name.
  const auto embedding = [](const std::string& p) {
    return detail::quoted_name(p + "embed_tokens.weight");
  };
  for (const char* candidate : {"model.decoder.", "decoder.", ""}) {
    const bool head_only = checkpoint.find(std::string(candidate) + "embed_positions.weight") &&
                           checkpoint.find(opt_head_name);
    if (!head_only && !checkpoint.find(std::string(candidate) + "embed_tokens.weight")) continue;
    if (prefix)
      throw format_error(checkpoint.folder().string() + ": holds both tensor " +
                         embedding(*prefix) + " and tensor " + embedding(candidate) +
                         ", expected one of them");
    prefix = candidate;
  }
  if (!prefix)
    throw format_error(checkpoint.folder().string() + ": there is no tensor " +
                       embedding("model.decoder.") + ", " + embedding("decoder.") + " or " +
                       embedding(""));
  return *prefix;
}

/// The tensor that holds the token embeddings: `embed_tokens.weight` under the prefix, or where
/// that is missing the head that is tied to it, under whose name alone safetensors.torch.save_model
/// keeps the two.
inline std::string opt_embedding_name(const OptConfig& config, const Checkpoint& checkpoint,
                                      const std::string& prefix) {
  const std::string name = prefix + "embed_tokens.weight";
  const bool head_only =
      config.tie_word_embeddings && !checkpoint.find(name) && checkpoint.find(opt_head_name);
  return head_only ? opt_head_name : name;
}

/// What of a checkpoint may be read in two ways, and how it is: one sentence each. Reads the head
/// and the embeddings where both are there.
inline std::vector<std::string> opt_notes(const OptConfig& config, const Checkpoint& checkpoint) {
  const std::string embedding = opt_tensor_prefix(checkpoint) + "embed_tokens.weight";
  const auto head = checkpoint.find(opt_head_name), tokens = checkpoint.find(embedding);
  if (!config.tie_word_embeddings || !head || !tokens) return {};
  const bool equal =
      head->info->dtype == tokens->info->dtype && head->info->shape == tokens->info->shape &&
      std::ranges::equal(head->file->bytes(*head->info), tokens->file->bytes(*tokens->info));
  head->file->release(*head->info);
  tokens->file->release(*tokens->info);
  if (equal) return {};
  return {head->file->path().string() + ": tensor " + detail::quoted_name(opt_head_name) +
          " is not equal to tensor " + detail::quoted_name(embedding) +
          ", to which config.json ties it; the latter is the head, as in transformers 4. For the "
          "former, as in transformers 5, write \"tie_word_embeddings\": false"};
}

namespace detail {

/// Reads checked tensors of an OPT checkpoint into the memory of B.
template <class B, class T>
class OptLoader {
 public:
  /// @param packed   the file whose linears stay packed; null: all are dense
  /// @param instead  a file whose tensors go before those of the checkpoint; null: none does
  OptLoader(const OptConfig& config, const Checkpoint& checkpoint,
            const PackedFile* packed = nullptr, const TensorFile* instead = nullptr)
      : config_(config),
        checkpoint_(checkpoint),
        packed_(packed),
        instead_(instead),
        prefix_(opt_tensor_prefix(checkpoint)) {}

  /// Checks names, types and shapes of all tensors; reads none.
  void check() {
    reads_ = false;
    OptModel<B, T> model = frame();
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) layer(i);
    reads_ = true;
  }

  /// All but the decoder layers.
  OptModel<B, T> frame() const {
    const index_t hidden = config_.hidden_size, word = config_.word_embed_proj_dim;
    OptModel<B, T> model;
    model.config = config_;
    model.embed_tokens =
        matrix(opt_embedding_name(config_, checkpoint_, prefix_), config_.vocab_size, word);
    model.embed_positions = matrix(prefix_ + "embed_positions.weight",
                                   config_.max_position_embeddings + opt_position_offset, hidden);
    if (config_.projects_embeddings()) {
      model.project_in = linear("project_in", hidden, word, false);
      model.project_out = linear("project_out", word, hidden, false);
    }
    if (config_.has_final_layer_norm()) model.final_layer_norm = layer_norm("final_layer_norm");
    if (!config_.tie_word_embeddings)
      model.untied_head = matrix(opt_head_name, config_.vocab_size, word);
    return model;
  }

  OptModel<B, T> model() const {
    OptModel<B, T> model = frame();
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) model.layers.push_back(layer(i));
    return model;
  }

  OptLayer<B, T> layer(index_t index) const {
    const index_t hidden = config_.hidden_size, ffn = config_.ffn_dim;
    const std::string name = "layers." + std::to_string(index) + ".";
    OptLayer<B, T> layer;
    layer.q_proj = linear(name + "self_attn.q_proj", hidden, hidden, config_.enable_bias);
    layer.k_proj = linear(name + "self_attn.k_proj", hidden, hidden, config_.enable_bias);
    layer.v_proj = linear(name + "self_attn.v_proj", hidden, hidden, config_.enable_bias);
    layer.out_proj = linear(name + "self_attn.out_proj", hidden, hidden, config_.enable_bias);
    layer.fc1 = linear(name + "fc1", ffn, hidden, config_.enable_bias);
    layer.fc2 = linear(name + "fc2", hidden, ffn, config_.enable_bias);
    layer.self_attn_layer_norm = layer_norm(name + "self_attn_layer_norm");
    layer.final_layer_norm = layer_norm(name + "final_layer_norm");
    return layer;
  }

 private:
  using Shape = std::vector<std::int64_t>;

  TensorLocation at(const std::string& name) const {
    if (const TensorInfo* info = instead_ != nullptr ? instead_->find(name) : nullptr)
      return {instead_, info};
    return checkpoint_.at(name);
  }

  typename B::template matrix<T> read(const std::string& name, const Shape& expected) const {
    const TensorLocation tensor = at(name);
    const std::string who =
        tensor.file->file().path().string() + ": tensor " + quoted_name(name) + ": ";
    // Before the data is read: what a bad file claims must not decide how much is allocated.
    if (!float_dtype(tensor.info->dtype))
      throw format_error(who + "expected dtype F16, BF16, F32 or F64, got " +
                         dtype_text(tensor.info->dtype) +
                         (packed_ == nullptr ? "; give a model with plain weights" : ""));
    if (tensor.info->shape != expected)
      throw format_error(who + "expected shape " + shape_text(expected) + ", got " +
                         shape_text(tensor.info->shape));
    if (!reads_) return {};
    if (packed_ != nullptr) packed_->require_intact(name, tensor.file->bytes(*tensor.info));
    Matrix<float> values = tensor.file->read_float(name);
    for (index_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values.data()[i])) {
        const index_t row = i / values.cols(), column = i % values.cols();
        throw non_finite_error(who + "expected finite numbers, got " +
                                   (std::isnan(values.data()[i]) ? "NaN" : "infinity") + " at " +
                                   shape_text(row, column),
                               row, column);
      }
    if constexpr (std::is_same_v<typename B::template matrix<T>, Matrix<float>>) {
      return values;
    } else if constexpr (std::is_same_v<T, float>) {
      return B::from_host(detail::as_const(values.view()));
    } else {
      Matrix<T> converted(values.rows(), values.cols());
      for (index_t i = 0; i < values.size(); ++i) {
        converted.data()[i] = T(values.data()[i]);
        if (std::isfinite(double(converted.data()[i]))) continue;
        const index_t row = i / values.cols(), column = i % values.cols();
        throw non_finite_error(who + "expected numbers within " +
                                   std::string(scalar_traits<T>::name) + ", got " +
                                   std::to_string(values.data()[i]) + " at " +
                                   shape_text(row, column),
                               row, column);
      }
      return B::from_host(MatrixView<const T>(converted.view()));
    }
  }

  auto matrix(const std::string& name, index_t rows, index_t cols) const {
    return read(name, {rows, cols});
  }

  Linear<B, T> linear(const std::string& name, index_t out, index_t in, bool has_bias) const {
    Linear<B, T> linear;
    linear.name = name;
    linear.tensor = prefix_ + name + ".weight";
    const PackedEntry* entry = packed_ != nullptr ? packed_->find(linear.tensor) : nullptr;
    if (entry != nullptr) {
      const Shape expected{out, in}, given{entry->layout.rows, entry->layout.columns};
      if (given != expected)
        throw format_error(packed_->file().path().string() + ": tensor " +
                           quoted_name(linear.tensor) + ": expected shape " + shape_text(expected) +
                           ", got " + shape_text(given));
      if (reads_) linear.packed = std::make_shared<const PackedLinear>(packed_->read(*entry));
      linear.dtype = entry->dtype;
    } else {
      linear.weight = matrix(linear.tensor, out, in);
      linear.dtype = *float_dtype(at(linear.tensor).info->dtype);
    }
    if (has_bias) linear.bias = read(prefix_ + name + ".bias", {out});
    return linear;
  }

  LayerNorm<B, T> layer_norm(const std::string& name) const {
    LayerNorm<B, T> norm;
    if (!config_.layer_norm_elementwise_affine) return norm;
    norm.weight = read(prefix_ + name + ".weight", {config_.hidden_size});
    norm.bias = read(prefix_ + name + ".bias", {config_.hidden_size});
    return norm;
  }

  OptConfig config_;
  const Checkpoint& checkpoint_;
  const PackedFile* packed_;
  const TensorFile* instead_;
  std::string prefix_;  // of all names but the head's
  bool reads_ = true;   // otherwise all matrices stay empty
};

}  // namespace detail

/// The model that `config` describes with the weights of `checkpoint`. Throws format_error naming
/// the tensor that is missing or has another shape or dtype and as opt_tensor_prefix,
/// non_finite_error naming tensor and index of a NaN or infinity, io_error if a file cannot be
/// read.
template <class B, class T>
OptModel<B, T> load_opt(const OptConfig& config, const Checkpoint& checkpoint) {
  return detail::OptLoader<B, T>(config, checkpoint).model();
}

/// A model folder whose decoder layers are read one at a time. Nothing but tables stays in memory.
template <class B, class T>
class OptFiles {
 public:
  /// Opens `folder` and checks the names, types and shapes of all its tensors. Throws as load_opt,
  /// but for numbers that are not finite, which are found when they are read.
  explicit OptFiles(const std::filesystem::path& folder) : config_(load_opt_config(folder)) {
    if (PackedFile::is_in(folder)) {
      packed_.emplace(folder);
      checkpoint_.emplace(folder, PackedFile::name);
    } else {
      checkpoint_.emplace(folder);
    }
    loader().check();
  }

  /// What config.json says.
  const OptConfig& config() const { return config_; }
  /// The model without its decoder layers.
  OptModel<B, T> frame() const { return loader().frame(); }
  /// Decoder layer `index`.
  /// @param index    from 0
  /// @param instead  a file whose tensors go before the folder's; null: none does
  OptLayer<B, T> layer(index_t index, const TensorFile* instead = nullptr) const {
    return loader(instead).layer(index);
  }
  /// The whole model.
  OptModel<B, T> model() const { return loader().model(); }

 private:
  detail::OptLoader<B, T> loader(const TensorFile* instead = nullptr) const {
    return {config_, *checkpoint_, packed_ ? &*packed_ : nullptr, instead};
  }

  OptConfig config_;
  std::optional<PackedFile> packed_;
  std::optional<Checkpoint> checkpoint_;
};

/// The model in `folder` (config.json and a Checkpoint). The linears of a packed model stay packed:
/// they are multiplied a block of rows at a time. Throws as load_opt_config, PackedFile and the
/// above.
template <class B, class T>
OptModel<B, T> load_opt(const std::filesystem::path& folder) {
  return OptFiles<B, T>(folder).model();
}

}  // namespace pare
