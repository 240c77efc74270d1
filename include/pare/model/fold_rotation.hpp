// Rotates a model in its weights: what is computed stays, outliers are spread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/config.hpp"
#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/config_json.hpp"
#include "pare/model/load.hpp"
#include "pare/model/logit_distance.hpp"
#include "pare/model/rotation.hpp"
#include "pare/model/save.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/convert.hpp"
#include "pare/storage/output_file.hpp"

namespace pare::inline PARE_TARGET {

/// What fold_rotation has done.
struct FoldedRotation {
  /// Of the residual stream, and why not.
  RotationRule rule = {};
  /// Whether a head that was tied to the embeddings is a tensor of its own now.
  bool head_untied = false;
  /// Bytes that the weights have grown by.
  std::uint64_t added_bytes = 0;
};

/// What an untied head costs: bits per weight of all linears, as Statistics and PlanOptions count
/// them. A run that compresses some of the linears counts the share of these.
/// @param folded  what fold_rotation gave
/// @param config  of the model
inline double added_bits_per_weight(const FoldedRotation& folded, const Architecture& config) {
  double weights = 0;  // of a layer's linears
  for (const LinearSpec& linear : config.linears)
    weights += double(rows_of(config, linear.role)) * double(columns_of(config, linear.role));
  return 8 * double(folded.added_bytes) / (weights * double(config.num_hidden_layers));
}

namespace detail {

/// A rotation of some neighbouring channels.
struct ChannelTurn {
  index_t first;             ///< channel
  const Rotation* rotation;  ///< of rotation->size channels
};

/// What becomes of a weight W (out, in): O W diag(factors) I^T, where O and I turn channels.
struct WeightTurn {
  std::string source;                ///< tensor that holds W
  bool transposed = false;           ///< it holds (in, out)
  std::vector<double> factors = {};  ///< (in), or empty: 1
  std::vector<ChannelTurn> inputs = {}, outputs = {};
};

/// What becomes of a bias b (out): O (b + W shift).
struct BiasTurn {
  WeightTurn weight;
  std::vector<double> shift = {};  ///< (in), or empty: 0
};

/// Turns channels of every row of A, which are multiplied by factors first.
inline void turn_rows(Matrix<float>& A, const std::vector<double>& factors,
                      const std::vector<ChannelTurn>& turns) {
  if (factors.empty() && turns.empty()) return;
  constexpr index_t together = 32;
  host_parallel_for((A.rows() + together - 1) / together, [&](index_t task) {
    std::vector<double> row(std::size_t(A.cols())), buffer;
    for (index_t i = task * together; i < std::min(A.rows(), (task + 1) * together); ++i) {
      float* a = A.view().row(i);
      std::copy_n(a, A.cols(), row.begin());
      for (std::size_t j = 0; j < factors.size(); ++j) row[j] *= factors[j];
      for (const ChannelTurn& turn : turns) rotate(*turn.rotation, row.data() + turn.first, buffer);
      for (index_t j = 0; j < A.cols(); ++j) a[j] = float(row[std::size_t(j)]);
    }
  });
}

inline Matrix<float> transposed_copy(const Matrix<float>& A) {
  Matrix<float> result(A.cols(), A.rows());
  constexpr index_t tile = 32;
  host_parallel_for((A.rows() + tile - 1) / tile, [&](index_t task) {
    const index_t end = std::min(A.rows(), (task + 1) * tile);
    for (index_t first = 0; first < A.cols(); first += tile)
      for (index_t j = first; j < std::min(A.cols(), first + tile); ++j)
        for (index_t i = task * tile; i < end; ++i) result(j, i) = A(i, j);
  });
  return result;
}

/// The tensors of a model that a rotation changes, and what becomes of each.
class RotatedTensors {
 public:
  RotatedTensors(const Architecture& config, const Checkpoint& checkpoint, std::uint64_t seed)
      : config_(config),
        checkpoint_(checkpoint),
        prefix_(tensor_prefix(config, checkpoint)),
        seed_(seed) {
    result_.rule = rotation_rule(config);
    if (result_.rule.residual != ResidualRotation::none) {
      rotations_.push_back(make_rotation(config.hidden_size, seed_,
                                         result_.rule.residual == ResidualRotation::keeps_ones));
      residual_ = {{0, &rotations_.back()}};
      turn_frame();
    }
    for (index_t i = 0; i < config.num_hidden_layers; ++i) turn_layer(i);
  }

  const FoldedRotation& result() const { return result_; }
  /// Tensors that the checkpoint has and the rotated model lacks, and the reverse.
  const std::set<std::string>& left_out() const { return left_out_; }
  const std::vector<TensorInfo>& added() const { return added_; }

  /// The new data of a tensor; nothing where it stays.
  std::optional<std::vector<std::byte>> operator()(const TensorInfo& info) const {
    if (const auto found = norms_.find(info.name); found != norms_.end())
      return encoded(info, found->second);
    if (const auto found = biases_.find(info.name); found != biases_.end())
      return encoded(info, turned_bias(info.name, found->second));
    const auto found = weights_.find(info.name);
    if (found == weights_.end()) return std::nullopt;
    const Matrix<float> W = turned_weight(found->second);
    return encoded(info, {W.data(), std::size_t(W.size())});
  }

 private:
  using Turns = std::vector<ChannelTurn>;

  /// A norm's weight and bias as they act: the weight with its offset, the bias 0 where there is
  /// none.
  struct NormValues {
    std::vector<double> weight, bias;
  };

  std::vector<double> vector_of(const std::string& name) const {
    const Matrix<float> values = checkpoint_.read_float(name);
    return {values.data(), values.data() + values.size()};
  }

  std::vector<double> turned(std::vector<double> values, const Turns& turns) const {
    std::vector<double> buffer;
    for (const ChannelTurn& turn : turns)
      rotate(*turn.rotation, values.data() + turn.first, buffer);
    return values;
  }

  /// Moves the weight of a norm into what reads it, and its bias there or, where not all readers
  /// have biases, before its weight.
  /// @param name    of the norm; empty or without weights: nothing moves
  /// @param biases  whether all that read it have biases
  /// @return        what the readers take over; no bias where the norm keeps it
  NormValues fold_norm(const std::string& name, bool biases) {
    NormValues values;
    if (name.empty() || !config_.norm_affine) return values;
    const bool layer_norm = config_.norm == NormKind::layer;
    values.weight = vector_of(name + ".weight");
    for (double& weight : values.weight) weight += config_.norm_offset;
    norms_[name + ".weight"].assign(values.weight.size(), float(1 - config_.norm_offset));
    if (!layer_norm) return values;
    std::vector<double> bias = vector_of(name + ".bias"), kept(bias.size(), 0.0);
    if (biases) {
      values.bias = std::move(bias);
    } else {
      for (std::size_t j = 0; j < bias.size(); ++j) {
        if (bias[j] == 0) continue;
        if (values.weight[j] == 0)
          throw argument_error(name + ": weight 0 and bias " + std::to_string(bias[j]) + " at " +
                               std::to_string(j) +
                               ": a rotation cannot keep such a bias, and what reads the norm has "
                               "none to move it to");
        kept[j] = bias[j] / values.weight[j];
      }
      kept = turned(std::move(kept), residual_);
    }
    norms_[name + ".bias"].assign(kept.begin(), kept.end());
    return values;
  }

  /// Embeddings, positions, projections, the final norm and the head.
  void turn_frame() {
    const TensorNames& names = config_.names;
    const std::string held = embedding_name(config_, checkpoint_, prefix_);
    const std::string embedding = prefix_ + names.embedding + ".weight";
    const std::string head = names.head + ".weight";
    const std::string norm = names.final_norm.empty() ? "" : prefix_ + names.final_norm;
    const NormValues final_norm = fold_norm(norm, false);
    if (config_.positions == PositionKind::learned) {
      const std::string positions = prefix_ + names.positions + ".weight";
      weights_[positions] = {.source = positions, .inputs = residual_};
    }
    if (config_.projects_embeddings()) {
      const std::string in = prefix_ + names.project_in + ".weight";
      const std::string out = prefix_ + names.project_out + ".weight";
      weights_[in] = {.source = in, .outputs = residual_};
      weights_[out] = {.source = out, .factors = final_norm.weight, .inputs = residual_};
      return;
    }
    const WeightTurn logits{.source = config_.tie_word_embeddings ? held : head,
                            .factors = final_norm.weight,
                            .inputs = residual_};
    const WeightTurn words{.source = held, .inputs = residual_};
    if (config_.tie_word_embeddings && final_norm.weight.empty()) {
      weights_[held] = words;
      if (held == embedding && checkpoint_.find(head)) left_out_.insert(head);
      return;
    }
    weights_[embedding] = words;
    weights_[head] = logits;
    if (!config_.tie_word_embeddings) return;
    TensorInfo info = *checkpoint_.at(held).info;
    info.end -= info.begin;
    info.begin = 0;
    result_.head_untied = true;
    result_.added_bytes = info.end;
    if (checkpoint_.find(head)) left_out_.insert(head);
    if (held != embedding) {
      info.name = embedding;
      added_.push_back(info);
    }
    info.name = head;
    added_.push_back(info);
  }

  void turn_layer(index_t index) {
    const TensorNames& names = config_.names;
    const std::string within = prefix_ + names.layers + std::to_string(index) + ".";
    const bool residual = !residual_.empty();
    NormValues norms[2];  // in front of the attention and of the feed-forward part
    if (residual)
      for (const bool feed_forward : {false, true}) {
        const index_t input = feed_forward ? feed_forward_input : attention_input;
        const bool biases = std::ranges::all_of(config_.linears, [&](const LinearSpec& linear) {
          return linear.bias || input_of(linear.role) != input;
        });
        norms[feed_forward] =
            fold_norm(within + (feed_forward ? names.feed_forward_norm : names.attention_norm),
                      biases);
      }
    const std::vector<const Rotation*> heads = head_rotations(index);
    for (const LinearSpec& linear : config_.linears) {
      const index_t input = input_of(linear.role);
      WeightTurn weight{.source = within + linear.name + ".weight",
                        .transposed = linear.transposed};
      std::vector<double> shift;
      if (residual && (input == attention_input || input == feed_forward_input)) {
        const NormValues& norm = norms[input == feed_forward_input];
        weight.factors = norm.weight;
        weight.inputs = residual_;
        shift = norm.bias;
      }
      if (residual && (linear.role == LinearRole::out || linear.role == LinearRole::down))
        weight.outputs = residual_;
      const index_t shared = config_.num_attention_heads / config_.num_key_value_heads;
      if (linear.role == LinearRole::out)
        for (index_t h = 0; h < config_.num_attention_heads; ++h)
          weight.inputs.push_back({h * config_.head_dim, heads[std::size_t(h / shared)]});
      if (linear.role == LinearRole::v || linear.role == LinearRole::qkv)
        for (index_t h = 0; h < config_.num_key_value_heads; ++h)
          weight.outputs.push_back({values_of(linear.role, h), heads[std::size_t(h)]});
      if (weight.inputs.empty() && weight.outputs.empty()) continue;
      if (linear.bias && (!shift.empty() || !weight.outputs.empty()))
        biases_[within + linear.name + ".bias"] = {weight, std::move(shift)};
      weights_[weight.source] = std::move(weight);
    }
  }

  /// One rotation for every key-value head of a layer.
  std::vector<const Rotation*> head_rotations(index_t layer) {
    std::vector<const Rotation*> heads;
    for (index_t h = 0; h < config_.num_key_value_heads; ++h) {
      const std::uint64_t at = std::uint64_t(layer * config_.num_key_value_heads + h + 1);
      rotations_.push_back(
          make_rotation(config_.head_dim, kernels::FillNormal<float>::mix(seed_) + at));
      heads.push_back(&rotations_.back());
    }
    return heads;
  }

  /// The first output of a linear that is a value of key-value head h.
  index_t values_of(LinearRole role, index_t h) const {
    const index_t width = config_.head_dim;
    if (role == LinearRole::v) return h * width;
    if (config_.fused_order == FusedOrder::by_head) return (3 * h + 2) * width;
    return config_.query_size() + config_.key_value_size() + h * width;
  }

  /// W (out, in) of a weight, as it is.
  Matrix<float> plain_weight(const WeightTurn& turn) const {
    Matrix<float> W = checkpoint_.read_float(turn.source);
    return turn.transposed ? transposed_copy(W) : W;
  }

  /// As the checkpoint stores it.
  Matrix<float> turned_weight(const WeightTurn& turn) const {
    Matrix<float> W = plain_weight(turn);
    turn_rows(W, turn.factors, turn.inputs);
    if (turn.outputs.empty()) return turn.transposed ? transposed_copy(W) : W;
    W = transposed_copy(W);
    turn_rows(W, {}, turn.outputs);
    return turn.transposed ? W : transposed_copy(W);
  }

  std::vector<float> turned_bias(const std::string& name, const BiasTurn& turn) const {
    std::vector<double> bias = vector_of(name);
    if (!turn.shift.empty()) {
      const Matrix<float> W = plain_weight(turn.weight);
      for (index_t i = 0; i < W.rows(); ++i)
        for (index_t j = 0; j < W.cols(); ++j)
          bias[std::size_t(i)] += double(W(i, j)) * turn.shift[std::size_t(j)];
    }
    bias = turned(std::move(bias), turn.weight.outputs);
    return {bias.begin(), bias.end()};
  }

  /// Values in the type of a tensor. Throws non_finite_error where that does not reach so far.
  std::vector<std::byte> encoded(const TensorInfo& info, std::span<const float> values) const {
    const DType type = *float_dtype(info.dtype);
    const index_t cols = index_t(info.shape.back());
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!(std::abs(values[i]) < 6e4f) && !std::isfinite(round_to(type, values[i])))
        throw non_finite_error(info.name + ": expected rotated numbers within " + info.dtype +
                                   ", got " + std::to_string(values[i]) + " at " +
                                   shape_text(index_t(i) / cols, index_t(i) % cols),
                               index_t(i) / cols, index_t(i) % cols);
    return encode_floats(values, type);
  }

  Architecture config_;
  const Checkpoint& checkpoint_;
  std::string prefix_;
  std::uint64_t seed_;
  FoldedRotation result_;
  std::deque<Rotation> rotations_;  // which pointers stay valid in
  Turns residual_;                  // of the residual stream; empty: none
  std::map<std::string, WeightTurn> weights_;
  std::map<std::string, BiasTurn> biases_;
  std::map<std::string, std::vector<float>> norms_;
  std::set<std::string> left_out_;
  std::vector<TensorInfo> added_;
};

/// config.json with a head that is not tied.
inline std::string untied_config(const std::filesystem::path& file) {
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(read_model_text(file));
  const bool inside = config.contains("text_config") && !config.contains("hidden_size");
  (inside ? config["text_config"] : config)["tie_word_embeddings"] = false;
  if (inside) config["tie_word_embeddings"] = false;
  return config.dump(2) + "\n";
}

}  // namespace detail

/// Writes a model whose residual stream and values of heads are rotated, as a folder that any
/// program loads. What it computes is that of `source`, to rounding of the weights to the type in
/// which they are stored; require_equal_logits holds one against the other.
///
/// The weights of norms move into the linears that read them first. Where rotation_rule allows no
/// rotation of the residual stream only the values of the heads turn, through the linear that makes
/// them and the one that reads them. A head that is tied to the embeddings becomes a tensor of its
/// own, unless the embeddings are projected or the final norm has no weight. Holds one tensor at a
/// time.
/// @param source  a dense model; B and S do not matter
/// @param folder  new or empty; the folder around it exists
/// @param seed    another seed, other matrices
/// @throws argument_error for a packed model, a `folder` that is not empty, and naming a norm that
///         has a bias where its weight is 0 and nothing after it has one; non_finite_error naming a
///         tensor whose type does not reach so far; as Checkpoint and write_as_safetensors
template <class B, class S>
FoldedRotation fold_rotation(const ModelFiles<B, S>& source, const std::filesystem::path& folder,
                             std::uint64_t seed) {
  if (source.packed())
    throw argument_error("source: expected a dense model, got a packed one; unpack it first");
  const detail::RotatedTensors tensors(source.config(), source.checkpoint(), seed);
  detail::make_model_folder(folder);
  write_as_safetensors(source.checkpoint(), folder, tensors.left_out(), std::cref(tensors),
                       tensors.added());
  const std::filesystem::path from = source.checkpoint().folder();
  detail::copy_beside_weights(from, folder);
  // Last: without it nothing takes the folder for a model.
  const std::string text = tensors.result().head_untied
                               ? detail::untied_config(from / "config.json")
                               : detail::read_model_text(from / "config.json");
  detail::OutputFile out(folder / "config.json");
  out.write(std::as_bytes(std::span(text)));
  out.commit();
  return tensors.result();
}

/// What logit_distance may find typical between a model and the same one rotated: what rounding of
/// all weights and activations to the less precise of two types moves logits by, with a margin.
inline double rotation_tolerance(DType stored, DType computed) {
  const auto of = [](DType type) {
    return type == DType::bf16 ? 0.2 : type == DType::f16 ? 0.03 : 1e-3;
  };
  return std::max(of(stored), of(computed));
}

/// Throws invariant_error unless a rotated model computes what the original does.
/// @return  how far apart they are
/// @param original  and
/// @param rotated   by fold_rotation
/// @param ids     whole windows of `seqlen`, at least one
/// @param seqlen  tokens of a window
template <class B, class S>
LogitDistance require_equal_logits(const ModelFiles<B, S>& original,
                                   const ModelFiles<B, S>& rotated,
                                   std::span<const std::int32_t> ids, index_t seqlen) {
  const LogitDistance distance = logit_distance(original, rotated, ids, seqlen);
  DType stored = DType::f32;
  for (const TensorFile& file : original.checkpoint().files())
    for (const TensorInfo& info : file.tensors()) {
      const std::optional<DType> type = float_dtype(info.dtype);
      if (type == DType::bf16 || (type == DType::f16 && stored != DType::bf16)) stored = *type;
    }
  const double allowed = rotation_tolerance(stored, scalar_traits<S>::dtype);
  if (!(distance.typical <= allowed))
    throw invariant_error(8, "rotation: expected logits that differ by at most " +
                                 std::to_string(allowed) +
                                 " of their deviation from those of the original, got " +
                                 std::to_string(distance.typical));
  return distance;
}

}  // namespace pare
