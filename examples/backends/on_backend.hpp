// What the tools do on one backend, whichever it is.
#pragma once

#include <algorithm>
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
#include "pare/model/load.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/pipeline/planned_compression.hpp"
#include "pare/pipeline/run/compress_folder.hpp"

namespace tool {

namespace detail {

/// @tparam S  what the model is stored in
template <class B, class S>
class ModelOn : public Model {
  using Streamed = pare::StreamedModel<B, S>;
  using Whole = typename Streamed::Whole;

 public:
  explicit ModelOn(const ModelSource& source)
      : model_(source.random  ? Streamed(pare::random_model<B, S>(*source.random, 1))
               : source.whole ? Streamed(pare::load_model<B, S>(source.folder))
                              : Streamed(source.folder)) {}

  pare::FolderResult compress_folder(const fs::path& folder, const pare::FolderCompression& job,
                                     const pare::FolderProgress& progress) override {
    return pare::compress_folder(model_, folder, job, progress);
  }

  double perplexity(std::span<const std::int32_t> ids, const pare::PerplexityOptions& options,
                    index_t calibrated,
                    const std::function<void(index_t, index_t)>& progress) override {
    return model_.perplexity(ids, options, pare::held_tokens(model_.architecture(), calibrated),
                             progress);
  }

  pare::Statistics compress(const pare::CompressionRequest& request, const pare::ModelPlan* plan,
                            const pare::CalibrationWindows& windows,
                            const pare::ModelCompressionOptions& options,
                            const pare::CompressionProgress& progress) override {
    return plan != nullptr ? model_.compress(*plan, windows, options, progress)
                           : model_.compress(request, windows, options, progress);
  }

  pare::Sensitivities measure(const pare::CalibrationWindows& windows,
                              const pare::SensitivityOptions& options,
                              const std::function<void(double)>& progress) override {
    return model_.measure(windows, options, progress);
  }

  std::vector<pare::RecomputedLinear> recompute(
      const pare::PackedFile& file, const pare::CalibrationWindows& windows,
      const pare::ModelCompressionOptions& options,
      const std::map<std::string, pare::RecordedLinear>& recorded) override {
    return pare::recompute_packed(model_.model(), file, windows, options, recorded);
  }

  std::shared_ptr<void> keep_reference(std::span<const std::int32_t> ids, index_t seqlen) override {
    reference_ = std::make_shared<Reference>(model_.model(), ids, seqlen);
    return reference_;
  }
  void use_reference(std::shared_ptr<void> reference) override {
    reference_ = std::static_pointer_cast<Reference>(std::move(reference));
  }
  double divergence() override { return reference_->divergence(model_.model()); }

  std::uint64_t fingerprint() override { return model_.fingerprint(); }

  std::vector<std::uint64_t> fingerprints() override {
    std::vector<std::uint64_t> result;
    for (const auto& layer : std::as_const(model_.model()).layers)
      for (const auto* linear : layer.linears()) {
        const pare::Matrix<S> W = B::to_host(pare::detail::as_const(linear->weight.view()));
        pare::Fingerprint fingerprint;
        fingerprint.add(W.data(), std::size_t(W.size()));
        result.push_back(fingerprint.value());
      }
    return result;
  }

 private:
  using Reference = pare::ReferencePredictions<Whole>;

  Streamed model_;
  std::shared_ptr<Reference> reference_;
};

template <class B>
pare::Calibration<B, float> read_calibration(const LinearJob& job) {
  if (job.file.find("H") != nullptr) {
    auto H = B::from_host(job.file.read_float("H").view());  // (in, in)
    if (job.rotation) pare::rotate_hessian<B, float>(H.view(), *job.rotation);
    return pare::Calibration<B, float>::from_hessian(H.view());
  }
  auto X = B::from_host(job.file.read_float("X").view());  // (tokens, in)
  if (job.rotation)
    pare::rotate_rows<B, float>(pare::detail::as_const(X.view()), X.view(), *job.rotation);
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
void write_linear(const LinearJob& job, const pare::CompressedLinear<B, float>& linear) {
  const std::int64_t out = linear.weights.rows(), in = linear.weights.cols();
  std::vector<pare::TensorData> tensors;
  const auto add = [&](const char* name, const char* dtype, std::vector<std::int64_t> shape,
                       const auto& matrix) {
    tensors.push_back({name, dtype, std::move(shape),
                       bytes_of(B::to_host(pare::detail::as_const(matrix.view())))});
  };
  if (job.rotation) {  // Q is turned back; mask and grids hold in the basis that the seed says
    const pare::Matrix<float> turned = B::to_host(pare::detail::as_const(linear.weights.view()));
    auto Q = B::from_host(turned.view());
    pare::rotate_rows<B, float>(pare::detail::as_const(Q.view()), Q.view(), *job.rotation,
                                pare::Turn::back);
    add("Q", "F32", {out, in}, Q);
    const std::vector<std::int64_t> seed{std::int64_t(job.rotation->seed)};
    tensors.push_back({"rotation_seed", "I64", {1}, bytes_of(seed)});
  } else {
    add("Q", "F32", {out, in}, linear.weights);
  }
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
  pare::detail::kept([&] { pare::write_safetensors(job.target, tensors); });
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
bool OnBackend<B>::split_products(bool split) {
  if constexpr (requires { B::split_products(split); }) {
    B::split_products(split);
    return true;
  }
  return false;
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
      auto W = B::from_host(job.file.read_float("W").view());  // (out, in)
      if (job.rotation)
        pare::rotate_rows<B, float>(pare::detail::as_const(W.view()), W.view(), *job.rotation);
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
    detail::write_linear<B>(job, linear);
  });
  return statistics;
}

template <class B>
Rotated OnBackend<B>::fold_rotation(const fs::path& source, const fs::path& folder,
                                    std::uint64_t seed) {
  const pare::ModelFiles<B, float> original(source);
  Rotated rotated{pare::fold_rotation(original, folder, seed), {}};
  const pare::Architecture& config = original.config();
  const index_t tokens = std::min<index_t>(64, pare::default_seqlen(config));
  rotated.distance = pare::require_equal_logits(original, pare::ModelFiles<B, float>(folder),
                                                std::span<const std::int32_t>(
                                                    pare::random_tokens(config, tokens, seed)),
                                                tokens);
  return rotated;
}

}  // namespace tool
