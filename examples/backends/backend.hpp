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
#include "pare/model/fold_rotation.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/run/compress_folder.hpp"
#include "pare/pipeline/verify_packed.hpp"
#include "pare/report/statistics.hpp"
#include "pare/storage/safetensors.hpp"

namespace tool {

using pare::index_t;

/// A model on a backend: whole in its memory, or in a folder from which a decoder layer at a time is
/// read.
class Model {
 public:
  virtual ~Model() = default;
  /// As pare::compress_folder. What is compressed is what the model was loaded from.
  virtual pare::FolderResult compress_folder(const fs::path& folder,
                                             const pare::FolderCompression& job,
                                             const pare::FolderProgress& progress) = 0;
  /// @param calibrated  tokens whose states may be held when layers are read one at a time
  /// @param progress    progress(windows done, all windows)
  virtual double perplexity(std::span<const std::int32_t> ids,
                            const pare::PerplexityOptions& options, index_t calibrated,
                            const std::function<void(index_t, index_t)>& progress) = 0;
  /// Of a model in memory.
  /// @param plan  null: every linear chooses by itself what the request says
  virtual pare::Statistics compress(const pare::CompressionRequest& request,
                                    const pare::ModelPlan* plan,
                                    const pare::CalibrationWindows& windows,
                                    const pare::ModelCompressionOptions& options,
                                    const pare::CompressionProgress& progress) = 0;
  /// The whole model is in memory meanwhile. progress(share done)
  virtual pare::Sensitivities measure(const pare::CalibrationWindows& windows,
                                      const pare::SensitivityOptions& options,
                                      const std::function<void(double)>& progress) = 0;
  /// Counts packed linears anew, and their losses where there are windows; the model is dense, in
  /// memory, and is compressed on the way.
  virtual std::vector<pare::RecomputedLinear> recompute(
      const pare::PackedFile& file, const pare::CalibrationWindows& windows,
      const pare::ModelCompressionOptions& options,
      const std::map<std::string, pare::RecordedLinear>& recorded) = 0;
  /// Keeps the predictions of a model in memory on a text, token windows of `seqlen`. Returns them
  /// for use_reference.
  virtual std::shared_ptr<void> keep_reference(std::span<const std::int32_t> ids,
                                               index_t seqlen) = 0;
  /// Takes predictions that another model kept, on the same backend and stored as the same type.
  virtual void use_reference(std::shared_ptr<void> reference) = 0;
  /// Mean KL from the predictions kept, nats per token.
  virtual double divergence() = 0;
  /// A number for all weights.
  virtual std::uint64_t fingerprint() = 0;
  /// A number for the weights of every linear of a model in memory, in model order.
  virtual std::vector<std::uint64_t> fingerprints() = 0;
};

/// Where a model comes from.
struct ModelSource {
  fs::path folder = {};                           ///< a Hugging Face folder, or
  std::optional<pare::Architecture> random = {};  ///< a shape that gets random weights
  pare::DType dtype = pare::DType::f32;           ///< what it is stored in while it is worked on
  bool whole = false;                             ///< all of it in memory; random models are
};

/// A linear in a file that is to be compressed into another.
struct LinearJob {
  const pare::SafetensorsFile& file;
  const pare::CompressionRequest& request;
  index_t sequences;
  fs::path target;
  bool keep_zeros;  ///< weights that are zero stay zero
  /// Of the inputs; Q is turned back.
  std::optional<pare::kernels::HadamardRotation> rotation = {};
};

/// What came of rotating a model in its weights.
struct Rotated {
  pare::FoldedRotation folded;   ///< what was rotated
  pare::LogitDistance distance;  ///< of its logits from those of the original
};

/// What the tools do on the backend B. Defined in on_backend.hpp; every other file of backends/
/// instantiates it for one backend, because that takes long to compile.
template <class B>
struct OnBackend {
  /// Whether a model can be stored as `dtype`; load_model takes no other.
  static bool stores(pare::DType dtype);
  /// Chooses how large products of float32 are computed, in parts on the tensor cores or in float32.
  /// @return false where the backend has no choice
  static bool split_products(bool split);
  static std::unique_ptr<Model> load_model(const ModelSource& source);
  static pare::Statistics compress_linear(const LinearJob& job);
  /// As pare::fold_rotation; holds the logits of 64 random tokens against the original's.
  static Rotated fold_rotation(const fs::path& source, const fs::path& folder, std::uint64_t seed);
};

}  // namespace tool
