// Loads models from Hugging Face folders, whole or a decoder layer at a time.
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
#include "pare/kernels/matrices.hpp"
#include "pare/model/config_json.hpp"
#include "pare/model/decoder.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/quantized.hpp"

namespace pare::inline PARE_TARGET {

/// What stands in front of every tensor's name but the head's. Throws format_error if the checkpoint
/// holds the embeddings under none of the family's prefixes or under two, or weights that are
/// quantized already.
inline std::string tensor_prefix(const Architecture& config, const Checkpoint& checkpoint) {
  if (const auto method = quantized_by(checkpoint))
    throw detail::already_quantized(checkpoint.folder().string(), *method);
  const TensorNames& names = config.names;
  std::optional<std::string> prefix;
  const auto embedding = [&](const std::string& p) {
    return detail::quoted_name(p + names.embedding + ".weight");
  };
  std::string wanted;
  for (const std::string& candidate : names.prefixes) {
    wanted += (wanted.empty() ? "" : ", ") + embedding(candidate);
    // The embeddings may be there as the head only; see embedding_name.
    const bool head_only =
        checkpoint.find(names.head + ".weight") &&
        checkpoint.find(candidate + names.layers + "0." + names.attention_norm + ".weight");
    if (!head_only && !checkpoint.find(candidate + names.embedding + ".weight")) continue;
    if (prefix)
      throw format_error(checkpoint.folder().string() + ": holds both tensor " +
                         embedding(*prefix) + " and tensor " + embedding(candidate) +
                         ", expected one of them");
    prefix = candidate;
  }
  if (!prefix)
    throw format_error(checkpoint.folder().string() + ": there is no tensor, expected one of " +
                       wanted);
  return *prefix;
}

/// The tensor that holds the token embeddings; where it is missing, the head that is tied to it,
/// under whose name alone safetensors.torch.save_model keeps the two.
inline std::string embedding_name(const Architecture& config, const Checkpoint& checkpoint,
                                  const std::string& prefix) {
  const std::string name = prefix + config.names.embedding + ".weight";
  const std::string head = config.names.head + ".weight";
  const bool head_only =
      config.tie_word_embeddings && !checkpoint.find(name) && checkpoint.find(head);
  return head_only ? head : name;
}

/// What of a checkpoint may be read in two ways, and how it is: one sentence each. Reads the head
/// and the embeddings where both are there.
inline std::vector<std::string> weight_notes(const Architecture& config,
                                             const Checkpoint& checkpoint) {
  const std::string head_name = config.names.head + ".weight";
  const std::string embedding =
      tensor_prefix(config, checkpoint) + config.names.embedding + ".weight";
  const auto head = checkpoint.find(head_name), tokens = checkpoint.find(embedding);
  if (!config.tie_word_embeddings || !head || !tokens) return {};
  const bool equal =
      head->info->dtype == tokens->info->dtype && head->info->shape == tokens->info->shape &&
      std::ranges::equal(head->file->bytes(*head->info), tokens->file->bytes(*tokens->info));
  head->file->release(*head->info);
  tokens->file->release(*tokens->info);
  if (equal) return {};
  return {head->file->path().string() + ": tensor " + detail::quoted_name(head_name) +
          " is not equal to tensor " + detail::quoted_name(embedding) +
          ", to which config.json ties it; the latter is the head, as in transformers 4. For the "
          "former, as in transformers 5, write \"tie_word_embeddings\": false"};
}

namespace detail {

/// Reads checked tensors of a checkpoint into the memory of B.
template <class B, class T>
class ModelLoader {
 public:
  /// @param packed   the file whose linears stay packed; null: all are dense
  /// @param instead  a file whose tensors go before those of the checkpoint; null: none does
  ModelLoader(const Architecture& config, const Checkpoint& checkpoint,
              const PackedFile* packed = nullptr, const TensorFile* instead = nullptr)
      : config_(config),
        checkpoint_(checkpoint),
        packed_(packed),
        instead_(instead),
        prefix_(tensor_prefix(config, checkpoint)) {}

  /// Checks names, types and shapes of all tensors; reads none.
  void check() {
    reads_ = false;
    LanguageModel<B, T> model = frame();
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) layer(i);
    reads_ = true;
  }

  /// All but the decoder layers.
  LanguageModel<B, T> frame() const {
    const index_t hidden = config_.hidden_size, word = config_.embedding_size;
    const TensorNames& names = config_.names;
    LanguageModel<B, T> model;
    model.config = config_;
    model.embed_tokens =
        matrix(embedding_name(config_, checkpoint_, prefix_), config_.vocab_size, word);
    if (config_.positions == PositionKind::learned)
      model.embed_positions =
          matrix(prefix_ + names.positions + ".weight",
                 config_.max_position_embeddings + config_.position_offset, hidden);
    if (!names.embedding_norm.empty())
      model.embedding_norm = norm(prefix_ + names.embedding_norm, hidden);
    if (config_.projects_embeddings()) {
      model.project_in =
          linear({.role = LinearRole::up, .name = names.project_in}, "", hidden, word);
      model.project_out =
          linear({.role = LinearRole::up, .name = names.project_out}, "", word, hidden);
    }
    if (!names.final_norm.empty()) model.final_norm = norm(prefix_ + names.final_norm, hidden);
    if (!config_.tie_word_embeddings)
      model.untied_head = matrix(names.head + ".weight", config_.vocab_size, word);
    return model;
  }

  LanguageModel<B, T> model() const {
    LanguageModel<B, T> model = frame();
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) model.layers.push_back(layer(i));
    return model;
  }

  DecoderLayer<B, T> layer(index_t index) const {
    return build_layer<B, T>(
        config_, index, [&](const auto&... given) { return linear(given...); },
        [&](const std::string& name, index_t width) { return norm(prefix_ + name, width); });
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

  /// @param within  what stands in front of its name in a layer
  Linear<B, T> linear(const LinearSpec& spec, const std::string& within, index_t out,
                      index_t in) const {
    auto linear = described_linear<B, T>(spec, prefix_, within);
    const PackedEntry* entry = packed_ != nullptr ? packed_->find(linear.tensor) : nullptr;
    if (entry != nullptr) {
      const Shape expected{out, in}, given{entry->layout.rows, entry->layout.columns};
      if (given != expected)
        throw format_error(packed_->file().path().string() + ": tensor " +
                           quoted_name(linear.tensor) + ": expected shape " + shape_text(expected) +
                           ", got " + shape_text(given));
      if (reads_)
        prepare_packed(linear, std::make_shared<const PackedLinear>(packed_->read(*entry)));
      linear.dtype = entry->dtype;
    } else {
      auto stored =
          spec.transposed ? matrix(linear.tensor, in, out) : matrix(linear.tensor, out, in);
      linear.dtype = *float_dtype(at(linear.tensor).info->dtype);
      if (spec.transposed && reads_) {
        linear.weight.resize(out, in);
        B::for_each_element(out, in,
                            kernels::TransposeElement<T>{stored.view(), linear.weight.view()});
      } else {
        linear.weight = std::move(stored);
      }
    }
    if (spec.bias) linear.bias = read(prefix_ + linear.name + ".bias", {out});
    return linear;
  }

  /// @param name  with all that stands in front of it
  Norm<B, T> norm(const std::string& name, index_t width) const {
    Norm<B, T> norm;
    if (!config_.norm_affine) return norm;
    norm.weight = read(name + ".weight", {width});
    if (config_.norm == NormKind::layer) norm.bias = read(name + ".bias", {width});
    return norm;
  }

  Architecture config_;
  const Checkpoint& checkpoint_;
  const PackedFile* packed_;
  const TensorFile* instead_;
  std::string prefix_;  // of all names but the head's
  bool reads_ = true;   // otherwise all matrices stay empty
};

}  // namespace detail

/// The model that `config` describes with the weights of `checkpoint`. Throws format_error naming
/// the tensor that is missing or has another shape or dtype and as tensor_prefix,
/// non_finite_error naming tensor and index of a NaN or infinity, io_error if a file cannot be
/// read.
template <class B, class T>
LanguageModel<B, T> load_model(const Architecture& config, const Checkpoint& checkpoint) {
  return detail::ModelLoader<B, T>(config, checkpoint).model();
}

/// A model folder whose decoder layers are read one at a time. Nothing but tables stays in memory.
template <class B, class T>
class ModelFiles {
 public:
  /// Opens `folder` and checks the names, types and shapes of all its tensors. Throws as load_model,
  /// but for numbers that are not finite, which are found when they are read.
  /// @param folder    of the model
  /// @param families  those that are known
  explicit ModelFiles(const std::filesystem::path& folder,
                      const std::vector<Family>& families = known_families())
      : config_(load_architecture(folder, families)) {
    if (PackedFile::is_in(folder)) {
      packed_.emplace(folder);
      checkpoint_.emplace(folder, PackedFile::name);
    } else {
      checkpoint_.emplace(folder);
    }
    loader().check();
  }

  /// What config.json says.
  const Architecture& config() const { return config_; }
  /// The files of its weights.
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  /// Whether its linears are packed.
  bool packed() const { return packed_.has_value(); }
  /// The model without its decoder layers.
  LanguageModel<B, T> frame() const { return loader().frame(); }
  /// Decoder layer `index`.
  /// @param index    from 0
  /// @param instead  a file whose tensors go before the folder's; null: none does
  DecoderLayer<B, T> layer(index_t index, const TensorFile* instead = nullptr) const {
    return loader(instead).layer(index);
  }
  /// The whole model.
  LanguageModel<B, T> model() const { return loader().model(); }

 private:
  detail::ModelLoader<B, T> loader(const TensorFile* instead = nullptr) const {
    return {config_, *checkpoint_, packed_ ? &*packed_ : nullptr, instead};
  }

  Architecture config_;
  std::optional<PackedFile> packed_;
  std::optional<Checkpoint> checkpoint_;
};

/// The model in `folder` (config.json and a Checkpoint). The linears of a packed model stay packed:
/// they are multiplied a block of rows at a time. Throws as load_architecture, PackedFile and the
/// above.
template <class B, class T>
LanguageModel<B, T> load_model(const std::filesystem::path& folder,
                               const std::vector<Family>& families = known_families()) {
  return ModelFiles<B, T>(folder, families).model();
}

}  // namespace pare
