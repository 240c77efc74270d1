// What the tools do on one backend, whichever it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/backend.hpp"
#include "opt/model_io.hpp"
#include "pare/model/load.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/run_layers.hpp"

namespace tool {

namespace detail {

/// @tparam S  what the model is stored in
template <class B, class S>
class ModelOn : public Model {
 public:
  explicit ModelOn(const ModelSource& source) {
    if (source.random) {
      model_ = pare::random_model<B, S>(*source.random, 1);
    } else if (source.whole) {
      model_ = pare::load_model<B, S>(source.folder);
    } else {
      files_.emplace(source.folder);
      model_ = files_->frame();
    }
  }

  double perplexity(std::span<const std::int32_t> ids, index_t seqlen, index_t held,
                    const std::function<void(index_t, index_t)>& progress) override {
    if (!files_) return pare::perplexity(model_, ids, seqlen, progress);
    return pare::perplexity(
        model_, layers(), [this](index_t i) -> const auto& { return read_layer(i); }, ids, seqlen,
        held, progress);
  }

  pare::Statistics compress(const pare::CompressionRequest& request,
                            const pare::CalibrationWindows& windows,
                            const pare::ModelCompressionOptions& options,
                            const pare::CompressionProgress& progress,
                            const Keeping& keeping) override {
    return with_stream(windows, options, progress, keeping, [&](auto& stream, const auto& told) {
      return pare::dispatch(request, [&]<class Config>(std::type_identity<Config>) {
        return pare::compress_model<Config>(model_, stream, windows, options, told);
      });
    });
  }

  pare::Sensitivities measure(const pare::CalibrationWindows& windows,
                              const pare::SensitivityOptions& options,
                              const std::function<void(double)>& progress) override {
    const pare::detail::AtExit drop([&] {
      if (files_) model_.layers = {};
    });
    for (index_t i = 0; files_ && i < layers(); ++i) model_.layers.push_back(files_->layer(i));
    return pare::measure_sensitivities(model_, windows, options, progress);
  }

  pare::Statistics compress(const pare::ModelPlan& plan, const pare::CalibrationWindows& windows,
                            const pare::ModelCompressionOptions& options,
                            const pare::CompressionProgress& progress,
                            const Keeping& keeping) override {
    return with_stream(windows, options, progress, keeping, [&](auto& stream, const auto& told) {
      return pare::compress_model(model_, stream, windows, options, plan, told);
    });
  }

  std::vector<pare::RecomputedLinear> recompute(
      const pare::PackedFile& file, const pare::CalibrationWindows& windows,
      const pare::ModelCompressionOptions& options,
      const std::map<std::string, pare::RecordedLinear>& recorded) override {
    return pare::recompute_packed(model_, file, windows, options, recorded);
  }

  std::shared_ptr<void> keep_reference(std::span<const std::int32_t> ids, index_t seqlen) override {
    reference_ = std::make_shared<Reference>(model_, ids, seqlen);
    return reference_;
  }
  void use_reference(std::shared_ptr<void> reference) override {
    reference_ = std::static_pointer_cast<Reference>(std::move(reference));
  }
  double divergence() override { return reference_->divergence(model_); }

  std::uint64_t fingerprint() override {
    if (!files_) return pare::model_fingerprint(model_);
    pare::Fingerprint fingerprint;
    for (index_t i = 0; i < layers(); ++i)
      pare::add_weights<pare::LanguageModel<B, S>>(fingerprint, read_layer(i));
    return fingerprint.value();
  }

  std::vector<std::uint64_t> fingerprints() const override {
    std::vector<std::uint64_t> result;
    for (const auto& layer : model_.layers)
      for (const auto* linear : layer.linears()) {
        const pare::Matrix<S> W = B::to_host(pare::detail::as_const(linear->weight.view()));
        pare::Fingerprint fingerprint;
        fingerprint.add(W.data(), std::size_t(W.size()));
        result.push_back(fingerprint.value());
      }
    return result;
  }

  std::optional<std::size_t> peak_device_memory() const override {
    if constexpr (requires { B::peak_bytes(); })
      return B::peak_bytes();
    else
      return std::nullopt;
  }

 private:
  using Stream = pare::LayerStream<pare::LanguageModel<B, S>>;
  using Reference = pare::ReferencePredictions<pare::LanguageModel<B, S>>;

  index_t layers() const { return model_.config.num_hidden_layers; }

  /// A layer of the folder, compressed when that is finished; valid until the next call.
  pare::DecoderLayer<B, S>& read_layer(index_t i) {
    layer_ = {};  // one at a time
    std::optional<pare::SafetensorsFile> finished;
    if (finished_ != nullptr && i < finished_->finished()) finished.emplace(finished_->layer(i));
    layer_ = files_->layer(i, finished ? &*finished : nullptr);
    return layer_;
  }

  /// Calls run(stream, progress) with layers of the folder, or of the model in memory.
  template <class Run>
  pare::Statistics with_stream(const pare::CalibrationWindows& windows,
                               const pare::ModelCompressionOptions& options,
                               const pare::CompressionProgress& progress, const Keeping& keeping,
                               const Run& run) {
    pare::CompressionProgress told = progress;
    pare::PackedLinears packed;  // of the layer at work
    if (keeping.packed)
      told.linear_packed = [&](const std::string& tensor, pare::PackedLinear&& linear) {
        packed.insert_or_assign(tensor, std::move(linear));
      };
    Stream stream = pare::layers_in_memory(model_);
    if (files_) {
      stream.count = layers();
      stream.inputs = pare::down_input + 1;
      stream.names = [this](index_t i) { return pare::linear_names(model_.config, i); };
      stream.fetch = [this](index_t i) -> auto& { return read_layer(i); };
    }
    if (keeping.folder == nullptr) return run(stream, told);

    pare::RunFolder& folder = *keeping.folder;
    stream.first = folder.finished();
    stream.before = folder.statistics();
    if (stream.first > 0 && stream.first < stream.count && windows.count() > 0) {
      const auto file = folder.states();
      if (!file) throw pare::format_error(folder.path().string() + ": has no states to go on from");
      stream.states = pare::read_states<B, S>(*file, windows.count() * windows.seqlen,
                                              model_.config.hidden_size, options.asymmetric > 0);
    }
    stream.finished = [&](index_t i, const pare::DecoderLayer<B, S>& layer,
                          std::span<const pare::LinearStatistics> statistics,
                          const pare::CalibrationStates<B, S>& states) {
      pare::RunFolder::Tensors behind;
      if (keeping.states && i + 1 < layers()) behind = pare::state_tensors<B, S>(states);
      kept([&] {
        folder.add_layer(pare::layer_tensors<B, S>(layer, statistics, packed), statistics, behind);
      });
      packed.clear();
    };
    const pare::Statistics statistics = run(stream, told);
    layer_ = {};
    finished_ = &folder;
    return statistics;
  }

  std::optional<pare::ModelFiles<B, S>> files_;  // none: all layers are in model_
  pare::LanguageModel<B, S> model_;
  pare::DecoderLayer<B, S> layer_;             // of files_, at work
  const pare::RunFolder* finished_ = nullptr;  // holds the compressed layers
  std::shared_ptr<Reference> reference_;
};

template <class B>
pare::Calibration<B, float> read_calibration(const LinearJob& job) {
  if (job.file.find("H") != nullptr) {
    const auto H = B::from_host(job.file.read_float("H").view());  // (in, in)
    return pare::Calibration<B, float>::from_hessian(H.view());
  }
  const auto X = B::from_host(job.file.read_float("X").view());  // (tokens, in)
  pare::Calibration<B, float> calibration(X.cols());
  calibration.add(X.view(), job.sequences);
  return calibration;
}

/// The bytes of a vector or a host matrix.
template <class V>
std::vector<std::byte> bytes_of(const V& values) {
  const auto raw = std::as_bytes(std::span(values.data(), std::size_t(values.size())));
  return {raw.begin(), raw.end()};
}

template <class B>
void write_linear(const fs::path& path, const pare::CompressedLinear<B, float>& linear) {
  const std::int64_t out = linear.weights.rows(), in = linear.weights.cols();
  std::vector<pare::TensorData> tensors;
  const auto add = [&](const char* name, const char* dtype, std::vector<std::int64_t> shape,
                       const auto& matrix) {
    tensors.push_back({name, dtype, std::move(shape),
                       bytes_of(B::to_host(pare::detail::as_const(matrix.view())))});
  };
  add("Q", "F32", {out, in}, linear.weights);
  add("mask", "U8", {out, in}, linear.mask);
  if (linear.quantized()) {
    // One grid per row reads as a vector; one per row and tier as (grids, out).
    const std::int64_t grids = linear.grids.scale.rows();
    const std::vector<std::int64_t> shape = grids == 1 ? std::vector{out} : std::vector{grids, out};
    tensors.push_back({"bits", "U8", {std::int64_t(linear.bits.size())}, bytes_of(linear.bits)});
    add("scale", "F32", shape, linear.grids.scale);
    add("zero", "F32", shape, linear.grids.zero);
    tensors.push_back({"grid", "I32", {in}, bytes_of(linear.grids.of_column)});
  }
  const std::vector<float> loss{float(linear.loss)};
  tensors.push_back({"loss", "F32", {1}, bytes_of(loss)});
  kept([&] { pare::write_safetensors(path, tensors); });
}

/// Prefixes messages about the file's content with the file's name; what does not fit is then the
/// file's fault.
template <class F>
auto of_file(const fs::path& file, const F& f) {
  try {
    return pare::in_context(file.string(), f);
  } catch (const pare::argument_error& e) {
    throw pare::format_error(e.what());
  }
}

}  // namespace detail

template <class B>
bool OnBackend<B>::stores(pare::DType dtype) {
  switch (dtype) {
    case pare::DType::f32:
      return true;
    case pare::DType::f16:
      return pare::ModelBackend<B, pare::float16>;
    case pare::DType::bf16:
      return pare::ModelBackend<B, pare::bfloat16>;
    default:
      return false;
  }
}

template <class B>
std::unique_ptr<Model> OnBackend<B>::load_model(const ModelSource& source) {
  if constexpr (pare::ModelBackend<B, pare::float16>)
    if (source.dtype == pare::DType::f16)
      return std::make_unique<detail::ModelOn<B, pare::float16>>(source);
  if constexpr (pare::ModelBackend<B, pare::bfloat16>)
    if (source.dtype == pare::DType::bf16)
      return std::make_unique<detail::ModelOn<B, pare::bfloat16>>(source);
  if (source.dtype != pare::DType::f32)
    throw pare::argument_error("dtype: the backend " + std::string(B::name) +
                               " stores models as float32 only");
  return std::make_unique<detail::ModelOn<B, float>>(source);
}

template <class B>
pare::Statistics OnBackend<B>::compress_linear(const LinearJob& job) {
  pare::Statistics statistics;
  pare::dispatch(job.request, [&]<class Config>(std::type_identity<Config>) {
    const auto linear = detail::of_file(job.file.path(), [&] {
      const auto W = B::from_host(job.file.read_float("W").view());  // (out, in)
      const auto calibration = detail::read_calibration<B>(job);
      pare::SparseGPTSolver<Config, B, float> solver(job.request.solver);
      typename B::template matrix<std::uint8_t> zero;  // (out, in), or empty
      if (job.keep_zeros) zero = pare::zero_mask<B>(pare::detail::as_const(W.view()));
      return solver.solve({.weights = pare::detail::as_const(W.view()),
                           .calibration = calibration,
                           .mask = pare::detail::as_const(zero.view())});
    });
    const int dense_bits = 8 * pare::element_bytes(job.file.at("W").dtype);
    statistics.linears.push_back(pare::linear_statistics("W", linear, dense_bits));
    pare::require_counted(statistics, job.request.quantizes());
    detail::write_linear<B>(job.target, linear);
  });
  return statistics;
}

}  // namespace tool
