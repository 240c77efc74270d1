// What the tools ask of a backend.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/command_line.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/verify_packed.hpp"
#include "pare/report/statistics.hpp"
#include "pare/storage/safetensors.hpp"

namespace tool {

using pare::index_t;

/// An OPT model in the memory of a backend.
class Model {
 public:
  virtual ~Model() = default;
  /// progress(windows done, all windows)
  virtual double perplexity(std::span<const std::int32_t> ids, index_t seqlen,
                            const std::function<void(index_t, index_t)>& progress) const = 0;
  virtual pare::Statistics compress(const pare::CompressionRequest& request,
                                    const pare::CalibrationWindows& windows,
                                    const pare::ModelCompressionOptions& options,
                                    const pare::CompressionProgress& progress) = 0;
  /// progress(share done)
  virtual pare::Sensitivities measure(const pare::CalibrationWindows& windows,
                                      const pare::SensitivityOptions& options,
                                      const std::function<void(double)>& progress) = 0;
  virtual pare::Statistics compress(const pare::ModelPlan& plan,
                                    const pare::CalibrationWindows& windows,
                                    const pare::ModelCompressionOptions& options,
                                    const pare::CompressionProgress& progress) = 0;
  /// Counts packed linears anew, and their losses where there are windows; the model is dense and
  /// is compressed on the way.
  virtual std::vector<pare::RecomputedLinear> recompute(
      const pare::PackedFile& file, const pare::CalibrationWindows& windows,
      const pare::ModelCompressionOptions& options,
      const std::map<std::string, pare::RecordedLinear>& recorded) = 0;
  /// Keeps this model's predictions on a text, token windows of `seqlen`.
  virtual void keep_reference(std::span<const std::int32_t> ids, index_t seqlen) = 0;
  /// Mean KL from the predictions kept, nats per token.
  virtual double divergence() = 0;
  /// A number for all weights.
  virtual std::uint64_t fingerprint() const = 0;
  /// A number for the weights of every linear, in model order.
  virtual std::vector<std::uint64_t> fingerprints() const = 0;
  /// Writes a Hugging Face folder like `source`.
  virtual void save(const fs::path& source, const fs::path& folder) const = 0;
  /// The most device memory that was in use at a time, bytes; none where the host's is used.
  virtual std::optional<std::size_t> peak_device_memory() const = 0;
};

/// Where a model comes from.
struct ModelSource {
  fs::path folder = {};                            ///< a Hugging Face folder, or
  std::optional<pare::OptConfig> random = {};      ///< a shape that gets random weights
  pare::DType dtype = pare::DType::f32;            ///< what it is stored in while it is worked on
};

/// A linear in a file that is to be compressed into another.
struct LayerJob {
  const pare::SafetensorsFile& file;
  const pare::CompressionRequest& request;
  index_t sequences;
  fs::path target;
};

/// What the tools do on the backend B. Defined in on_backend.hpp; every other file of backends/
/// instantiates it for one backend, because that takes long to compile.
template <class B>
struct OnBackend {
  /// Whether a model can be stored as `dtype`; load_model takes no other.
  static bool stores(pare::DType dtype);
  static std::unique_ptr<Model> load_model(const ModelSource& source);
  static pare::Statistics compress_layer(const LayerJob& job);
};

}  // namespace tool
