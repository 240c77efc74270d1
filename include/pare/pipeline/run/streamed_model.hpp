// A model that is compressed and evaluated: whole in memory, or in a folder from which a decoder
// layer at a time is read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/model/load.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/level_swaps.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/planned_compression.hpp"
#include "pare/pipeline/run/json_file.hpp"
#include "pare/pipeline/run_folder.hpp"
#include "pare/pipeline/run_layers.hpp"
#include "pare/pipeline/sensitivity.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace pare::inline PARE_TARGET {

namespace detail {

/// Gives freed memory back to the system. The C library of GNU keeps it for later, but the statistics
/// of a layer lie between its matrices, and what is left of a gap is too short for the next matrix:
/// without this a run grows by a Hessian with every layer.
inline void release_freed_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace detail

/// Where a compression keeps what it has finished.
struct Keeping {
  RunFolder* folder = nullptr;  ///< null: nowhere, which a model in memory needs not
  bool packed = false;          ///< the linears packed too
  bool states = false;          ///< what it takes to go on after a stop
};

/// Number of weights of a model of this shape: linears, embeddings, head; norms and biases, which
/// are a thousandth of them, are left out.
inline double weights_of(const Architecture& a) {
  const double words = double(a.vocab_size) * double(a.embedding_size);
  double all = a.tie_word_embeddings ? words : 2 * words;
  if (a.positions == PositionKind::learned)
    all += double(a.max_position_embeddings) * double(a.hidden_size);
  for (const LinearSpec& linear : a.linears)
    all += double(a.num_hidden_layers) * double(rows_of(a, linear.role)) *
           double(columns_of(a, linear.role));
  return all;
}

/// Tokens whose states may be held while a text goes through a model a layer at a time: as large as
/// those of the calibration or as a layer's weights, which are in memory too.
/// @param a           the model's shape
/// @param calibrated  tokens of the calibration
inline index_t held_tokens(const Architecture& a, index_t calibrated) {
  index_t weights = 0;
  for (const LinearSpec& linear : a.linears)
    weights += rows_of(a, linear.role) * columns_of(a, linear.role);
  return std::max(calibrated, weights / a.hidden_size);
}

/// A model of one architecture, whole in memory or read from its folder a decoder layer at a time.
/// What a compression finished of the latter is in the folder of its Keeping, from which layers are
/// then read in place of the dense ones.
/// @tparam B  the backend
/// @tparam S  what the model is stored in while it is worked on
template <class B, class S>
class StreamedModel {
 public:
  /// The model in memory.
  using Whole = LanguageModel<B, S>;

  /// Opens a model folder and reads everything but the decoder layers. Throws as ModelFiles.
  explicit StreamedModel(const std::filesystem::path& folder)
      : files_(std::in_place, folder), model_(files_->frame()) {}
  /// Takes a model in memory.
  explicit StreamedModel(Whole model) : model_(std::move(model)) {}
  StreamedModel(const StreamedModel&) = delete;
  StreamedModel& operator=(const StreamedModel&) = delete;

  /// Whether all of it is in memory.
  bool in_memory() const { return !files_; }
  /// Its shape.
  const Architecture& architecture() const { return model_.config; }
  /// The model, without its decoder layers unless it is in memory.
  Whole& model() { return model_; }
  /// Number of decoder layers.
  index_t layers() const { return model_.config.num_hidden_layers; }

  /// As pare::perplexity.
  /// @param ids       of the text
  /// @param options   windows and ids in front
  /// @param held      tokens whose states may be held when layers are read one at a time
  /// @param progress  progress(windows done, all windows)
  double perplexity(std::span<const std::int32_t> ids, const PerplexityOptions& options,
                    index_t held, const std::function<void(index_t, index_t)>& progress) {
    if (!files_) return pare::perplexity(model_, ids, options, progress);
    return pare::perplexity(
        model_, layers(), [this](index_t i) -> const auto& { return read_layer(i); }, ids, options,
        held, progress);
  }

  /// Compresses every selected linear as a request says; goes on after the layers that are finished
  /// in the folder.
  Statistics compress(const CompressionRequest& request, const CalibrationWindows& windows,
                      const ModelCompressionOptions& options, const CompressionProgress& progress,
                      const Keeping& keeping = {}) {
    return with_stream(windows, options, progress, keeping, [&](auto& stream, const auto& told) {
      return dispatch(request, [&]<class Config>(std::type_identity<Config>) {
        return compress_model<Config>(model_, stream, windows, options, told);
      });
    });
  }

  /// The same by a plan.
  Statistics compress(const ModelPlan& plan, const CalibrationWindows& windows,
                      const ModelCompressionOptions& options, const CompressionProgress& progress,
                      const Keeping& keeping = {}) {
    return with_stream(windows, options, progress, keeping, [&](auto& stream, const auto& told) {
      return compress_model(model_, stream, windows, options, plan, told);
    });
  }

  /// As measure_sensitivities. The whole model is in memory meanwhile. progress(share done)
  Sensitivities measure(const CalibrationWindows& windows, const SensitivityOptions& options,
                        const std::function<void(double)>& progress) {
    return with_all_layers(
        [&] { return measure_sensitivities(model_, windows, options, progress); });
  }

  /// As swap_levels. The whole model is in memory twice meanwhile. progress(share done)
  SwappedPlan swap(const CalibrationWindows& windows, const SensitivityOptions& sensitivity,
                   const Sensitivities& sensitivities, const ModelPlan& plan,
                   const PlanOptions& options, const SwapOptions& swaps,
                   const std::function<void(double)>& progress) {
    return with_all_layers([&] {
      return swap_levels(model_, windows, sensitivity, sensitivities, plan, options, swaps,
                         progress);
    });
  }

  /// As model_fingerprint.
  std::uint64_t fingerprint() {
    if (!files_) return model_fingerprint(model_);
    Fingerprint fingerprint;
    for (index_t i = 0; i < layers(); ++i) add_weights<Whole>(fingerprint, read_layer(i));
    return fingerprint.value();
  }

  /// Reads dense layers again: the folder of a Keeping goes.
  void forget_finished() { finished_ = nullptr; }

 private:
  using Layer = typename Whole::layer_type;
  using Stream = LayerStream<Whole>;

  /// f(), with all layers in memory meanwhile.
  template <class F>
  auto with_all_layers(const F& f) {
    const detail::AtExit drop([&] {
      if (files_) model_.layers = {};
    });
    for (index_t i = 0; files_ && i < layers(); ++i) model_.layers.push_back(files_->layer(i));
    return f();
  }

  /// A layer of the folder, compressed when that is finished; valid until the next call.
  Layer& read_layer(index_t i) {
    layer_ = {};  // one at a time
    detail::release_freed_memory();
    std::optional<SafetensorsFile> finished;
    if (finished_ != nullptr && i < finished_->finished()) finished.emplace(finished_->layer(i));
    layer_ = files_->layer(i, finished ? &*finished : nullptr);
    return layer_;
  }

  /// The layers of the folder, or of the model in memory.
  Stream stream() {
    if (!files_) return layers_in_memory(model_);
    Stream stream;
    stream.count = layers();
    for (const LinearSpec& linear : model_.config.linears)
      stream.inputs = std::max(stream.inputs, input_of(linear.role) + 1);
    stream.names = [this](index_t i) { return linear_names(model_.config, i); };
    stream.fetch = [this](index_t i) -> auto& { return read_layer(i); };
    return stream;
  }

  /// Calls run(stream, progress); what it finishes goes into the folder.
  template <class Run>
  Statistics with_stream(const CalibrationWindows& windows, const ModelCompressionOptions& options,
                         const CompressionProgress& progress, const Keeping& keeping,
                         const Run& run) {
    CompressionProgress told = progress;
    PackedLinears packed;  // of the layer at work
    if (keeping.packed)
      told.linear_packed = [&](const std::string& tensor, PackedLinear&& linear) {
        packed.insert_or_assign(tensor, std::move(linear));
      };
    Stream layers_of = stream();
    if (keeping.folder == nullptr) return run(layers_of, told);

    RunFolder& folder = *keeping.folder;
    go_on(layers_of, folder, windows, options);
    layers_of.finished = [&](index_t i, const Layer& layer,
                             std::span<const LinearStatistics> statistics,
                             const CalibrationStates<B, S>& states) {
      RunFolder::Tensors behind;
      if (keeping.states && i + 1 < layers()) behind = state_tensors<B, S>(states);
      detail::kept([&] {
        folder.add_layer(layer_tensors<B, S>(layer, statistics, packed), statistics, behind);
      });
      packed.clear();
    };
    Statistics statistics = run(layers_of, told);
    layer_ = {};
    finished_ = &folder;
    return statistics;
  }

  /// Makes a stream begin after the layers that are finished in the folder.
  void go_on(Stream& stream, const RunFolder& folder, const CalibrationWindows& windows,
             const ModelCompressionOptions& options) const {
    stream.first = folder.finished();
    stream.before = folder.statistics();
    if (stream.first == 0 || stream.first >= stream.count || windows.count() == 0) return;
    const auto file = folder.states();
    if (!file) throw format_error(folder.path().string() + ": has no states to go on from");
    stream.states = read_states<B, S>(*file, windows.count() * windows.seqlen,
                                      model_.config.hidden_size, options.asymmetric > 0);
  }

  std::optional<ModelFiles<B, S>> files_;  // none: all layers are in model_
  Whole model_;
  Layer layer_;                          // of files_, at work
  const RunFolder* finished_ = nullptr;  // holds the compressed layers
};

}  // namespace pare
