// What is done to a model folder, what a run of it gives and tells, and what decides its result.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pare/core/version.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/pipeline/level_swaps.hpp"
#include "pare/pipeline/run/report.hpp"
#include "pare/pipeline/run/run_inputs.hpp"
#include "pare/pipeline/run/save_as.hpp"

namespace pare::inline PARE_TARGET {

/// A text that perplexity is measured on.
struct NamedText {
  std::string name;               ///< that reports know it by
  std::vector<std::int32_t> ids;  ///< all of it, as token_ids gives it
};

/// What is done to a model folder.
struct FolderCompression {
  /// How every linear is compressed, and which; see compress_model.
  ModelCompressionOptions options = {};
  /// Who chooses widths while linears are solved; with a plan nobody does.
  PolicyKind policy = PolicyKind::none;
  /// Widths and patterns planned for the whole model before it is compressed.
  std::optional<FolderPlan> plan = {};
  /// Where `source` is a model that fold_rotation wrote: added_bits_per_weight of it, which stored
  /// bits and the target of a plan then count.
  double added_bits_per_weight = 0;
  /// Calibration text, as text_windows gives it; empty with options.magnitude.
  CalibrationWindows windows = {};
  /// Texts that perplexity is measured on, before and after.
  std::vector<NamedText> texts = {};
  /// Windows of these.
  PerplexityOptions evaluation = {};
  /// New folder for the compressed model, dense.
  std::optional<std::filesystem::path> save = {};
  /// New folder for it, bit-packed; grids then have float16 scales.
  std::optional<std::filesystem::path> save_packed = {};
  /// New folders for it in formats of other programs, each format once; grids are then fitted to
  /// what all of them hold.
  std::vector<SavedAs> save_as = {};
  /// Folder that keeps finished layers: the same call goes on from them after it was stopped.
  std::optional<std::filesystem::path> checkpoint = {};
  /// Files of the caller that may lie in folders of results.
  std::vector<std::filesystem::path> beside = {};
  /// What the report has under "config"; null: run_config.
  Json config = nullptr;
  /// What a checkpoint is held against, RunFolder's identity; null: run_identity.
  Json identity = nullptr;
};

/// How far a run is.
enum class FolderStep : std::uint8_t {
  opened,         ///< the checkpoint, if any, is read
  measured,       ///< perplexities of the dense model are known
  sensitivities,  ///< sensitivities are known, where there is a plan
  planned,        ///< the plan is made, where there is one
  swapped,        ///< trades are tried on it, where some are asked for
  compressing,    ///< linears follow
  compressed,     ///< statistics are known
  evaluated,      ///< perplexities of the compressed model are known
  saved,          ///< the dense folder is written, where there is one
  packed,         ///< the packed folder is written, where there is one
  exported,       ///< a folder of save_as is written; once for each
};

/// What a run gives.
struct FolderResult {
  /// One entry per compressed linear, in the order of compression.
  Statistics statistics = {};
  /// Of the texts, before and after.
  Perplexities dense = {}, compressed = {};
  /// With FolderCompression::plan; trades are done once they are tried.
  std::optional<ModelPlan> plan = {};
  /// What trades have made of it, where some are asked for.
  std::optional<SwappedPlan> swapped = {};
  SensitivitySource sensitivities = {};               ///< of the plan
  index_t resumed = 0;                                ///< layers that the checkpoint had
  double seconds = 0;                                 ///< compressing, of this process
  std::optional<std::size_t> peak_device_bytes = {};  ///< none where the host's memory is used
  std::vector<std::string> left_out = {};  ///< of the source beside its weights, not copied
  /// What exports tell, as many as are written, in the order of save_as.
  std::vector<ExportResult> exports = {};
  /// All of it: perplexity, statistics, totals, plan, config, and packed where it is saved so.
  Json report = nullptr;
};

/// What a caller is told while a folder is compressed; each may be empty.
struct FolderProgress {
  /// Every step with what is known by then.
  std::function<void(FolderStep, const FolderResult&)> reached = {};
  /// What the run is at, "compressing", and the share of that which is done, 0..1; share 1 is told
  /// at its end, whatever ended it.
  std::function<void(const std::string& what, double share)> advanced = {};
  std::function<void(const LinearStatistics&)> linear_done = {};  ///< every linear
};

/// All that decides the result of a run, as RunFolder keeps it: options by the names of a report,
/// and the content of files.
/// @param folder  of the model
/// @param job     what is done
/// @param config  as run_config gives it
inline Json run_identity(const std::filesystem::path& folder, const FolderCompression& job,
                         const Json& config) {
  Json options{{"version of pare", PARE_VERSION_TEXT}}, files = Json::object();
  for (const auto& [key, value] : config.items())
    if (key != "half_scale") options[key] = value;
  options["save_packed"] = job.save_packed || !job.save_as.empty();
  if (job.plan)
    options["plan"] = {{"scope", int(job.plan->options.scope)},
                       {"objective", int(job.plan->options.objective)},
                       {"budget", int(job.plan->options.budget)},
                       {"bits_per_weight", job.plan->options.bits_per_weight},
                       {"patterns", Json::array()},
                       {"group_sizes", job.plan->sensitivity.group_sizes},
                       {"widths", job.plan->sensitivity.widths},
                       {"divergence_widths", job.plan->sensitivity.divergence_widths}};
  if (job.plan && job.plan->swaps.swaps > 0)
    options["plan"]["swaps"] = {job.plan->swaps.swaps, job.plan->swaps.windows.value_or(0),
                                job.plan->swaps.seed};
  if (job.plan)
    for (const Pattern& pattern : job.plan->sensitivity.patterns)
      options["plan"]["patterns"].push_back(to_json(pattern));
  if (job.plan && !job.plan->options.together.empty())
    options["plan"]["together"] = job.plan->options.together;
  if (job.plan && job.plan->sensitivity.whole_groups) options["plan"]["whole_groups"] = true;
  options["texts"] = Json::array();
  options["stride"] = job.evaluation.stride ? Json(*job.evaluation.stride) : Json(nullptr);
  options["max_windows"] =
      job.evaluation.max_windows ? Json(*job.evaluation.max_windows) : Json(nullptr);
  options["evaluation_seqlen"] = job.evaluation.seqlen;
  options["evaluation_leading"] = job.evaluation.leading;
  for (const auto& [name, hash] : model_fingerprints(folder)) files[name] = hash;
  files["windows"] = hex_text(text_fingerprint(job.windows));
  for (const NamedText& text : job.texts) {
    options["texts"].push_back(text.name);
    files["text " + text.name] = hex_text(fingerprint(std::as_bytes(std::span(text.ids))));
  }
  return {{"options", options}, {"files", files}};
}

}  // namespace pare
