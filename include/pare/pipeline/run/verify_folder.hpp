// A packed folder held against the model it was made from and against its own report.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/text.hpp"
#include "pare/pipeline/options_json.hpp"
#include "pare/pipeline/run/packed_folder.hpp"
#include "pare/pipeline/sensitivity.hpp"
#include "pare/pipeline/verify_packed.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

/// What a packed folder's report says of the compression.
struct PackedReport {
  /// How it was compressed.
  ModelCompressionOptions options;
  /// Tokens of a calibration window, and how many windows there were.
  index_t seqlen = 0, windows = 0;
  std::string calibration;       ///< fingerprint of the calibration windows
  std::string dtype;             ///< what the model was stored in while it was worked on
  std::uint64_t file_bytes = 0;  ///< of the packed file
  /// Where a model was rotated in its weights first, the seed: it is the original then, see
  /// fold_rotation.
  std::optional<std::uint64_t> folded_seed = {};
  std::map<std::string, std::string> checksums;       ///< by tensor
  std::vector<std::pair<std::string, Json>> linears;  ///< by name, in order
  std::map<std::string, RecordedLinear> recorded;     ///< by linear
};

/// Reads it.
/// @param file  the report in a folder that save_packed wrote
/// @throws format_error when it does not say what is needed, io_error
inline PackedReport read_packed_report(const std::filesystem::path& file) {
  const std::string text = detail::read_whole_file(file);
  detail::parse_json_object(file.string(), text);  // the checks of a hostile file
  PackedReport report;
  const auto number = [&](const Json& object, const char* key) {
    return whole_number(object.at(key), file.string() + ": " + key);
  };
  const auto seed = [&](const Json& object, const char* key) {
    return std::uint64_t(whole_number(object.at(key), file.string() + ": " + key,
                                      std::numeric_limits<std::int64_t>::max()));
  };
  try {
    const Json json = Json::parse(text);
    const Json &config = json.at("config"), &packed = json.at("packed");
    ModelCompressionOptions& options = report.options;
    options.solver = request_of_json(config, file.string() + ": config").solver;
    options.selection.first_layer = number(config, "minlayer");
    options.selection.last_layer = number(config, "maxlayer");
    options.selection.name_part = config.at("prune_only").get<std::string>();
    options.selection.invert = config.at("invert").get<bool>();
    options.magnitude = config.at("gmp").get<bool>();
    options.true_sequential = config.at("true_sequential").get<bool>();
    options.asymmetric = config.at("asymmetric").get<double>();
    if (config.contains("rotation_seed"))
      options.rotation = kernels::HadamardRotation{seed(config, "rotation_seed")};
    if (config.contains("rotation")) report.folded_seed = seed(config.at("rotation"), "seed");
    report.seqlen = number(config, "seqlen");
    report.windows = number(config, "nsamples");
    report.dtype = config.at("dtype").get<std::string>();
    report.calibration = packed.at("calibration").get<std::string>();
    report.file_bytes =
        std::uint64_t(whole_number(packed.at("file_bytes"), file.string() + ": file_bytes",
                                   std::numeric_limits<std::int64_t>::max()));
    packed.at("checksums").get_to(report.checksums);
    for (const Json& linear : json.at("layers")) {
      const std::string name = linear.at("name").get<std::string>();
      report.recorded[name] = {linear.at("damping").get<double>(), linear.at("loss").get<double>()};
      report.linears.emplace_back(name, linear);
    }
  } catch (const Json::exception& e) {
    throw format_error(file.string() + ": not a report of compress --save-packed: " + e.what());
  }
  return report;
}

/// The calibration windows of a report from the ids of the text.
/// @param report  of the packed folder
/// @param ids     what token_ids gave for the whole text
/// @throws argument_error when the text holds fewer windows
inline CalibrationWindows reported_windows(const PackedReport& report,
                                           std::vector<std::int32_t> ids) {
  if (index_t(ids.size()) / report.seqlen < report.windows)
    throw argument_error("the model was calibrated on " + std::to_string(report.windows) +
                         " windows of " + std::to_string(report.seqlen) + " tokens, the text has " +
                         std::to_string(ids.size()) + " tokens");
  ids.resize(std::size_t(report.windows * report.seqlen));
  return {std::move(ids), report.seqlen};
}

/// Something in a packed folder that is not as it was recorded or in the original.
struct Difference {
  std::string where;  ///< a tensor, a linear, a file
  /// What is not the same.
  std::string what;
};

/// What is told while a folder is verified; each may be empty.
struct VerifyProgress {
  /// Every difference where it is found.
  std::function<void(const Difference&)> differs = {};
  /// Tensors that are as they were in the original, and packed ones.
  std::function<void(std::size_t as_before, std::size_t packed)> compared = {};
  std::function<void()> recomputed = {};  ///< linears follow
  /// Each linear, and the loss that was recorded.
  std::function<void(const RecomputedLinear&, double recorded_loss)> linear = {};
};

/// What was found of a packed folder.
struct FolderVerification {
  std::vector<Difference> differences;    ///< empty: verified
  std::vector<RecomputedLinear> linears;  ///< in the order of compression
  bool with_losses = false;               ///< losses were computed anew
};

namespace detail {

/// Collects what differs and tells of it.
struct Differences {
  const VerifyProgress& progress;
  std::vector<Difference> found = {};

  void add(const std::string& where, const std::string& what) {
    found.push_back({where, what});
    if (progress.differs) progress.differs(found.back());
  }
};

/// The packed file against what was recorded of it.
inline void compare_with_report(const PackedFile& file, const std::filesystem::path& folder,
                                const PackedReport& report, Differences& differences) {
  const std::uint64_t bytes = std::filesystem::file_size(folder / PackedFile::name);
  if (bytes != report.file_bytes)
    differences.add(PackedFile::name, "bytes: recorded " + std::to_string(report.file_bytes) +
                                          ", found " + std::to_string(bytes));
  for (const PackedEntry& entry : file.linears()) {
    const auto recorded = report.checksums.find(entry.tensor);
    const bool known = recorded != report.checksums.end();
    const std::string found = hex_text(entry.checksum);
    if (!known || recorded->second != found)
      differences.add(entry.tensor, "checksum: recorded " + (known ? recorded->second : "none") +
                                        ", found " + found);
  }
  if (report.checksums.size() != file.linears().size() ||
      report.linears.size() != file.linears().size())
    differences.add("linears", "recorded " + std::to_string(report.linears.size()) + ", found " +
                                   std::to_string(file.linears().size()));
}

/// Everything of the model that is not packed, and what the packed linears were made from.
inline void compare_with_original(const std::filesystem::path& original, const PackedFile& packed,
                                  const std::filesystem::path& folder, Differences& differences) {
  const Checkpoint checkpoint(original);
  const std::set<std::string> tied = tied_head(load_architecture(original), checkpoint);
  std::size_t known = 0, linears = 0;
  for (const auto& file : checkpoint.files())
    for (const TensorInfo& info : file.tensors()) {
      if (!checkpoint.reads(file, info.name)) continue;
      const std::span<const std::byte> bytes = file.bytes(info);
      if (const PackedEntry* entry = packed.find(info.name)) {
        ++linears;
        if (info.shape != entry->stored_shape() || info.dtype != dtype_name(entry->dtype))
          differences.add(info.name, "the original has another shape or dtype");
        else if (fingerprint(bytes) != entry->original)
          differences.add(info.name, "was made from other weights than the original's");
        continue;
      }
      const TensorInfo* kept = packed.file().find(info.name);
      if (kept == nullptr && tied.contains(info.name)) continue;  // the embeddings, once more
      if (kept == nullptr) {
        differences.add(info.name, "is missing in the packed model");
        continue;
      }
      ++known;
      if (kept->dtype != info.dtype || kept->shape != info.shape ||
          !std::ranges::equal(packed.file().bytes(*kept), bytes))
        differences.add(info.name, "is not the original's, though it is not packed");
    }
  for (const TensorInfo& info : packed.file().tensors())
    if (!packed.is_part(info.name) &&
        std::ranges::none_of(checkpoint.files(), [&](const TensorFile& file) {
          return file.find(info.name) != nullptr;
        }))
      differences.add(info.name, "is not in the original");
  for (const PackedEntry& entry : packed.linears())
    if (!checkpoint.find(entry.tensor)) differences.add(entry.tensor, "is not in the original");
  for (const char* name : model_files) {
    const bool before = std::filesystem::exists(original / name),
               after = std::filesystem::exists(folder / name);
    if (before != after ||
        (before && read_whole_file(original / name) != read_whole_file(folder / name)))
      differences.add(name, "is not the original's");
  }
  if (differences.progress.compared) differences.progress.compared(known, linears);
}

/// What was counted of a linear against what was recorded.
inline void compare_linear(const RecomputedLinear& found, const Json& recorded, bool with_loss,
                           Differences& differences) {
  const LinearStatistics& statistics = found.statistics;
  const Json now = to_json(statistics);
  std::vector<std::string> exact{"rows",
                                 "columns",
                                 "axis",
                                 "channels",
                                 "average_bits",
                                 "bits_histogram",
                                 "stored_bits_per_weight"};
  if (found.mask_stored) exact.push_back("sparsity");
  // Values that were only pruned may have become zero in the checkpoint's type.
  if (statistics.channels > 0) exact.push_back("zeros");
  for (const std::string& key : exact)
    if (!recorded.contains(key) || recorded[key] != now[key])
      differences.add(statistics.name,
                      key + ": recorded " +
                          (recorded.contains(key) ? recorded[key].dump() : "none") + ", found " +
                          now[key].dump());
  // Reports have it only where there are groups.
  const Json group_size = recorded.contains("group_size") ? recorded["group_size"] : Json(0);
  if (group_size != statistics.group_size)
    differences.add(statistics.name, "group_size: recorded " + group_size.dump() + ", found " +
                                         std::to_string(statistics.group_size));
  if (!found.mask_stored && recorded.contains("sparsity") && recorded["sparsity"].is_number() &&
      statistics.zeros < recorded["sparsity"].get<double>())
    differences.add(statistics.name, "zeros: recorded at least " + recorded["sparsity"].dump() +
                                         ", found " + now["zeros"].dump());
  if (with_loss && !found.loss_agrees)
    differences.add(statistics.name, "loss: recorded " + recorded["loss"].dump() + ", found " +
                                         number_text(statistics.loss));
}

}  // namespace detail

/// Holds a packed folder against its report and the model it was made from, and computes every loss
/// again where it can: with the calibration text, or without for magnitude pruning.
/// @param original   folder of the dense model
/// @param packed     folder made from it
/// @param report     read_packed_report of the latter
/// @param windows    as reported_windows gives them; empty: losses are not computed
/// @param recompute  recompute(file, windows) is recompute_packed of the original with the report's
///                   options and records, on some backend; called once everything else is compared
/// @param progress   what is told meanwhile
/// @return           what was found; nothing is thrown for a difference
/// @throws argument_error, format_error and io_error when a folder cannot be read
inline FolderVerification verify_folder(
    const std::filesystem::path& original, const std::filesystem::path& packed,
    const PackedReport& report, const CalibrationWindows& windows,
    const std::function<std::vector<RecomputedLinear>(const PackedFile&,
                                                      const CalibrationWindows&)>& recompute,
    const VerifyProgress& progress = {}) {
  const PackedFile file(packed);
  detail::Differences differences{progress};
  if (windows.count() > 0 && hex_text(text_fingerprint(windows)) != report.calibration)
    differences.add("windows", "is not the text that the model was calibrated on");
  detail::compare_with_report(file, packed, report, differences);
  detail::compare_with_original(original, file, packed, differences);
  FolderVerification result;
  result.with_losses = windows.count() > 0 || report.options.magnitude;
  std::map<std::string, const Json*> recorded;
  for (const auto& [name, linear] : report.linears) recorded[name] = &linear;
  result.linears = recompute(file, windows);
  if (progress.recomputed) progress.recomputed();
  for (const RecomputedLinear& linear : result.linears) {
    const std::string& name = linear.statistics.name;
    if (progress.linear) progress.linear(linear, report.recorded.at(name).loss);
    detail::compare_linear(linear, *recorded.at(name), result.with_losses, differences);
  }
  result.differences = std::move(differences.found);
  return result;
}

/// The same on a backend: the original is read whole into its memory.
/// @tparam B, S  backend, and what the model is stored in; the losses of a report agree with those
///               of the type that it names
template <class B, class S>
FolderVerification verify_folder(const std::filesystem::path& original,
                                 const std::filesystem::path& packed,
                                 const CalibrationWindows& windows = {},
                                 const VerifyProgress& progress = {}) {
  const PackedReport report = read_packed_report(packed / packed_report_name);
  return verify_folder(
      original, packed, report, windows,
      [&](const PackedFile& file, const CalibrationWindows& of) {
        auto model = load_model<B, S>(original);
        return recompute_packed(model, file, of, report.options, report.recorded);
      },
      progress);
}

}  // namespace pare
