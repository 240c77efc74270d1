// An OPT language model: its weights, loaded from a Hugging Face folder, and its forward pass.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/model/linear.hpp"
#include "pare/model/model_backend.hpp"
#include "pare/model/opt_config.hpp"
#include "pare/model/opt_names.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"

namespace pare {

/// Weight and bias of a layer norm; both empty when it has none.
template <class B, class T>
struct LayerNorm {
  typename B::template matrix<T> weight;  // (1, hidden), or empty
  typename B::template matrix<T> bias;    // (1, hidden), or empty
};

/// One decoder layer.
template <class B, class T>
struct OptLayer {
  Linear<B, T> q_proj, k_proj, v_proj, out_proj;  // (hidden, hidden)
  Linear<B, T> fc1;                               // (ffn, hidden)
  Linear<B, T> fc2;                               // (hidden, ffn)
  /// In front of the attention and of fc1, or behind them; see OptConfig::do_layer_norm_before.
  LayerNorm<B, T> self_attn_layer_norm, final_layer_norm;

  /// The six in the order in which the published implementation compresses them.
  std::array<Linear<B, T>*, 6> linears() {
    return {&k_proj, &v_proj, &q_proj, &out_proj, &fc1, &fc2};
  }
  /// The same of a layer that is not changed.
  std::array<const Linear<B, T>*, 6> linears() const {
    return {&k_proj, &v_proj, &q_proj, &out_proj, &fc1, &fc2};
  }
};

/// A whole model in the memory of backend B.
template <class B, class T>
struct OptModel {
  static_assert(detail::check_model_backend<B, T>());

  /// Where the model lies.
  using backend_type = B;
  /// What its numbers are stored in.
  using scalar_type = T;

  /// Its shape.
  OptConfig config;
  typename B::template matrix<T> embed_tokens;     // (vocab, word_embed_proj_dim)
  typename B::template matrix<T> embed_positions;  // (max_position_embeddings + 2, hidden)
  std::optional<Linear<B, T>> project_in;          // (hidden, word_embed_proj_dim)
  /// The decoder, from the input to the output.
  std::vector<OptLayer<B, T>> layers;
  /// Behind the last layer; none in the shapes that have none.
  std::optional<LayerNorm<B, T>> final_layer_norm;
  std::optional<Linear<B, T>> project_out;         // (word_embed_proj_dim, hidden)
  typename B::template matrix<T> untied_head;      // (vocab, word_embed_proj_dim), empty if tied

  /// The matrix that turns embeddings into logits, (vocab, word_embed_proj_dim).
  MatrixView<const T> lm_head() const {
    return config.tie_word_embeddings ? embed_tokens.view() : untied_head.view();
  }
};

/// Rows of the position table in front of that of the first position.
inline constexpr index_t opt_position_offset = 2;

namespace detail {

/// Reads checked tensors of an OPT checkpoint into the memory of B.
template <class B, class T>
class OptLoader {
 public:
  /// @param packed  the file whose linears stay packed; null: all are dense
  OptLoader(const OptConfig& config, const Checkpoint& checkpoint,
            const PackedFile* packed = nullptr)
      : config_(config),
        checkpoint_(checkpoint),
        packed_(packed),
        prefix_(opt_tensor_prefix(checkpoint)) {}

  OptModel<B, T> model() const {
    const index_t hidden = config_.hidden_size, word = config_.word_embed_proj_dim;
    OptModel<B, T> model;
    model.config = config_;
    model.embed_tokens = matrix(prefix_ + "embed_tokens.weight", config_.vocab_size, word);
    model.embed_positions = matrix(prefix_ + "embed_positions.weight",
                                   config_.max_position_embeddings + opt_position_offset, hidden);
    if (config_.projects_embeddings()) {
      model.project_in = linear("project_in", hidden, word, false);
      model.project_out = linear("project_out", word, hidden, false);
    }
    for (index_t i = 0; i < config_.num_hidden_layers; ++i) model.layers.push_back(layer(i));
    if (config_.has_final_layer_norm()) model.final_layer_norm = layer_norm("final_layer_norm");
    if (!config_.tie_word_embeddings)
      model.untied_head = matrix("lm_head.weight", config_.vocab_size, word);
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

  static std::string text(const Shape& shape) {
    std::string out = "(";
    for (const auto side : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(side);
    return out + ")";
  }

  typename B::template matrix<T> read(const std::string& name, const Shape& expected) const {
    const TensorLocation tensor = checkpoint_.at(name);
    const std::string who =
        tensor.file->file().path().string() + ": tensor " + quoted_name(name) + ": ";
    // Before the data is read: what a bad file claims must not decide how much is allocated.
    if (!float_dtype(tensor.info->dtype))
      throw format_error(who + "expected dtype F16, BF16, F32 or F64, got " + tensor.info->dtype);
    if (tensor.info->shape != expected)
      throw format_error(who + "expected shape " + text(expected) + ", got " +
                         text(tensor.info->shape));
    const Matrix<float> values = checkpoint_.read_float(name);
    for (index_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values.data()[i])) {
        const index_t row = i / values.cols(), column = i % values.cols();
        throw non_finite_error(who + "expected finite numbers, got " +
                                   (std::isnan(values.data()[i]) ? "NaN" : "infinity") + " at " +
                                   shape_text(row, column),
                               row, column);
      }
    if constexpr (std::is_same_v<T, float>) {
      return B::from_host(values.view());
    } else {
      Matrix<T> converted;
      converted.resize(values.rows(), values.cols());
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
                           quoted_name(linear.tensor) + ": expected shape " + text(expected) +
                           ", got " + text(given));
      linear.packed = std::make_shared<const PackedLinear>(packed_->read(*entry));
      linear.dtype = entry->dtype;
    } else {
      linear.weight = matrix(linear.tensor, out, in);
      linear.dtype = *float_dtype(checkpoint_.at(linear.tensor).info->dtype);
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
  std::string prefix_;  // of all names but the head's
};

/// Y = norm of the rows of X; Y may be X.  (tokens, hidden)
template <class B, class T>
void apply(const LayerNorm<B, T>& norm, MatrixView<const T> X, MatrixView<T> Y) {
  B::template layer_norm<T>(Y, X, norm.weight.view(), norm.bias.view(), 1e-5);
}

}  // namespace detail

/// The model that `config` describes with the weights of `checkpoint`. Throws format_error naming
/// the tensor that is missing or has another shape or dtype and as opt_tensor_prefix,
/// non_finite_error naming tensor and index of a NaN or infinity, io_error if a file cannot be
/// read.
template <class B, class T>
OptModel<B, T> load_opt(const OptConfig& config, const Checkpoint& checkpoint) {
  return detail::OptLoader<B, T>(config, checkpoint).model();
}

/// The model in `folder` (config.json and a Checkpoint). The linears of a packed model stay packed:
/// they are multiplied a block of rows at a time. Throws as load_opt_config, PackedFile and the
/// above.
template <class B, class T>
OptModel<B, T> load_opt(const std::filesystem::path& folder) {
  if (PackedFile::is_in(folder)) {
    const OptConfig config = load_opt_config(folder);
    const PackedFile packed(folder);
    const Checkpoint checkpoint(folder, PackedFile::name);
    return detail::OptLoader<B, T>(config, checkpoint, &packed).model();
  }
  return load_opt<B, T>(load_opt_config(folder), Checkpoint(folder));
}

/// Buffers of a forward pass. They grow on first use and are reused by every later call.
template <class B, class T>
struct OptWorkspace {
  typename B::template matrix<T> mixed;    // (tokens, hidden) what a linear reads
  typename B::template matrix<T> q, k, v;  // (tokens, hidden)
  typename B::template matrix<T> ffn;      // (tokens, ffn)
  typename B::template matrix<T> words;    // (tokens, word_embed_proj_dim)
  typename B::template matrix<T> logits;   // (tokens of a chunk, vocab)
  UnpackedRows<B, T> rows;                 ///< of the packed linear at work
};

/// Which linears of a layer read an activation.
enum class LayerInput : std::uint8_t { qkv, out_proj, fc1, fc2 };

/// How far forward_layer goes: to an input of its linears, with `hidden` left as it was, or to the
/// end.
enum class LayerRun : std::uint8_t { to_qkv, to_out_proj, to_fc1, to_fc2, whole };

/// A tap that takes nothing.
struct NoTap {
  /// Takes the activation of one input of a layer and does nothing.
  template <class T>
  void operator()(LayerInput, MatrixView<const T>) const {}
};

/// Writes the embeddings of `ids`, windows of `seqlen` one after the other, to `hidden`, which is
/// resized to (ids.size(), hidden_size). Throws argument_error if the ids are not whole windows, a
/// window is longer than the model's positions, or an id is not in the vocabulary.
template <class B, class T>
void embed(const OptModel<B, T>& model, std::span<const std::int32_t> ids, index_t seqlen,
           OptWorkspace<B, T>& workspace, typename B::template matrix<T>& hidden) {
  const OptConfig& config = model.config;
  const index_t tokens = index_t(ids.size());
  if (seqlen < 1 || seqlen > config.max_position_embeddings)
    throw argument_error("embed: seqlen: expected 1 to " +
                         std::to_string(config.max_position_embeddings) +
                         " (max_position_embeddings), got " + std::to_string(seqlen));
  if (tokens % seqlen != 0)
    throw argument_error("embed: ids: expected whole windows of " + std::to_string(seqlen) +
                         " tokens, got " + std::to_string(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config.vocab_size)
      throw argument_error("embed: ids: expected 0 to " + std::to_string(config.vocab_size - 1) +
                           ", got " + std::to_string(ids[i]) + " at " + std::to_string(i));

  const auto device_ids = B::from_host(MatrixView<const std::int32_t>(ids.data(), 1, tokens));
  hidden.resize(tokens, config.hidden_size);
  if (model.project_in) {
    workspace.words.resize(tokens, config.word_embed_proj_dim);
    B::template embed_tokens<T>(workspace.words.view(), model.embed_tokens.view(),
                                device_ids.view());
    detail::apply<B, T>(*model.project_in, workspace.words.view(), hidden.view(),
                        workspace.rows);
  } else {
    B::template embed_tokens<T>(hidden.view(), model.embed_tokens.view(), device_ids.view());
  }
  const MatrixView<const T> positions = model.embed_positions.view();
  B::template add_positions<T>(
      hidden.view(), positions.block(opt_position_offset, 0, seqlen, config.hidden_size), seqlen);
}

/// Runs one layer on `hidden` (windows * seqlen, hidden_size), in place. `tap(LayerInput, X)` is
/// called with what the linears read, X (windows * seqlen, in), before they do, once for q, k and
/// v together; X is valid during the call only. Throws shape_error if `hidden` does not fit.
template <class B, class T, class Tap = NoTap>
void forward_layer(const OptModel<B, T>& model, const OptLayer<B, T>& layer,
                   std::type_identity_t<MatrixView<T>> hidden, index_t seqlen,
                   OptWorkspace<B, T>& workspace, Tap&& tap = {}, LayerRun run = LayerRun::whole) {
  const OptConfig& config = model.config;
  if (seqlen < 1 || hidden.rows % seqlen != 0 || hidden.cols != config.hidden_size)
    throw shape_error("forward_layer: hidden: expected shape (windows * " +
                      std::to_string(seqlen) + ", " + std::to_string(config.hidden_size) +
                      "), got " + shape_text(hidden.rows, hidden.cols));
  using View = MatrixView<const T>;
  const bool norm_first = config.do_layer_norm_before;
  const index_t tokens = hidden.rows;
  for (auto* buffer : {&workspace.mixed, &workspace.q, &workspace.k, &workspace.v})
    buffer->resize(tokens, config.hidden_size);
  workspace.ffn.resize(tokens, config.ffn_dim);
  const MatrixView<T> mixed = workspace.mixed.view(), ffn = workspace.ffn.view();
  const MatrixView<T> q = workspace.q.view(), k = workspace.k.view(), v = workspace.v.view();

  View input = hidden;
  if (norm_first) {
    detail::apply<B, T>(layer.self_attn_layer_norm, hidden, mixed);
    input = mixed;
  }
  tap(LayerInput::qkv, input);
  if (run == LayerRun::to_qkv) return;
  detail::apply<B, T>(layer.q_proj, input, q, workspace.rows);
  detail::apply<B, T>(layer.k_proj, input, k, workspace.rows);
  detail::apply<B, T>(layer.v_proj, input, v, workspace.rows);
  B::template causal_attention<T>(mixed, q, k, v, config.num_attention_heads, seqlen);
  tap(LayerInput::out_proj, View(mixed));
  if (run == LayerRun::to_out_proj) return;

  const MatrixView<T> sum = q;  // free by now; `hidden` itself is written at the very end only
  detail::apply<B, T>(layer.out_proj, mixed, sum, workspace.rows);
  B::template add<T>(sum, hidden);
  if (!norm_first) detail::apply<B, T>(layer.self_attn_layer_norm, sum, sum);
  input = sum;
  if (norm_first) {
    detail::apply<B, T>(layer.final_layer_norm, sum, mixed);
    input = mixed;
  }
  tap(LayerInput::fc1, input);
  if (run == LayerRun::to_fc1) return;
  detail::apply<B, T>(layer.fc1, input, ffn, workspace.rows);
  B::template relu<T>(ffn);
  tap(LayerInput::fc2, View(ffn));
  if (run == LayerRun::to_fc2) return;

  detail::apply<B, T>(layer.fc2, ffn, hidden, workspace.rows);
  B::template add<T>(hidden, sum);
  if (!norm_first) detail::apply<B, T>(layer.final_layer_norm, hidden, hidden);
}

/// Tokens whose logits `head` computes together.
inline index_t head_chunk(const OptConfig& config) {
  // 64 MiB of floats at most, as long as a chunk is not too small to be a fast product.
  return std::clamp<index_t>((index_t{1} << 24) / config.vocab_size, 256, 1024);
}

/// Final layer norm, project_out and the head on `hidden` (tokens, hidden_size), which is not
/// changed. Calls use(first, logits) chunk by chunk: logits (head_chunk or fewer tokens, vocab) of
/// the tokens from `first` on, valid during the call only.
template <class B, class T, class Use>
void head(const OptModel<B, T>& model, std::type_identity_t<MatrixView<const T>> hidden,
          OptWorkspace<B, T>& workspace, Use&& use) {
  const OptConfig& config = model.config;
  if (hidden.cols != config.hidden_size)
    throw shape_error("head: hidden: expected " + std::to_string(config.hidden_size) +
                      " columns, got shape " + shape_text(hidden.rows, hidden.cols));
  const index_t chunk = head_chunk(config);
  for (index_t first = 0; first < hidden.rows; first += chunk) {
    const index_t tokens = std::min(chunk, hidden.rows - first);
    MatrixView<const T> rows = hidden.block(first, 0, tokens, hidden.cols);
    if (model.final_layer_norm) {
      workspace.mixed.resize(tokens, hidden.cols);
      detail::apply<B, T>(*model.final_layer_norm, rows, workspace.mixed.view());
      rows = workspace.mixed.view();
    }
    if (model.project_out) {
      workspace.words.resize(tokens, config.word_embed_proj_dim);
      detail::apply<B, T>(*model.project_out, rows, workspace.words.view(), workspace.rows);
      rows = workspace.words.view();
    }
    workspace.logits.resize(tokens, config.vocab_size);
    B::template linear<T>(workspace.logits.view(), rows, model.lm_head(),
                           MatrixView<const T>{});
    use(first, MatrixView<const T>(workspace.logits.view()));
  }
}

}  // namespace pare
