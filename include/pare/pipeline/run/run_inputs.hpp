// What a run reads before it computes: the files that decide its result, and sensitivities that were
// measured before.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/pipeline/level_swaps.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/pipeline/run/json_file.hpp"
#include "pare/pipeline/run/side_files.hpp"
#include "pare/pipeline/run_folder.hpp"
#include "pare/pipeline/sensitivity.hpp"
#include "pare/pipeline/sensitivity_json.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"

namespace pare::inline PARE_TARGET {

/// An argument of a run that cannot be what it is.
class run_argument_error : public argument_error {
 public:
  /// @param name   of the argument: save, save_packed, checkpoint, sensitivities or temporary
  /// @param value  what it is
  /// @param why    what is wrong with it, and what to do
  run_argument_error(std::string name, const std::string& value, std::string why)
      : argument_error(name + ": " + value + ": " + why),
        argument(std::move(name)),
        reason(std::move(why)) {}
  std::string argument;  ///< its name
  std::string reason;    ///< the end of the message
};

/// Fingerprints of the files of a model folder that decide what it computes, as RunFolder's identity
/// has them: ("MODEL/config.json", hex).
/// @throws as Checkpoint; io_error
inline std::vector<std::pair<std::string, std::string>> model_fingerprints(
    const std::filesystem::path& folder) {
  std::vector<std::pair<std::string, std::string>> files;
  const auto add = [&](const std::string& name, const std::filesystem::path& file) {
    files.emplace_back("MODEL/" + name, hex_text(file_fingerprint(file)));
  };
  std::error_code error;
  for (const char* name : model_files)
    if (std::filesystem::exists(folder / name, error)) add(name, folder / name);
  const Checkpoint checkpoint(folder);
  for (const TensorFile& file : checkpoint.files())
    add(file.path().filename().string(), file.path());
  return files;
}

/// The type that most bytes of the weights in a model folder have; of a packed one the type of what
/// was packed.
/// @throws as Checkpoint and PackedFile
inline DType checkpoint_dtype(const std::filesystem::path& folder) {
  std::map<std::string, std::uint64_t> bytes;
  if (PackedFile::is_in(folder)) {
    const PackedFile file(folder);
    for (const PackedEntry& entry : file.linears())
      bytes[dtype_name(entry.dtype)] += std::uint64_t(entry.layout.rows * entry.layout.columns);
  } else {
    const Checkpoint checkpoint(folder);
    for (const TensorFile& file : checkpoint.files())
      for (const TensorInfo& info : file.tensors()) bytes[info.dtype] += info.end - info.begin;
  }
  DType most = DType::f32;
  for (const DType dtype : {DType::f16, DType::bf16})
    if (bytes[dtype_name(dtype)] > bytes[dtype_name(most)]) most = dtype;
  return most;
}

/// How widths and patterns are planned from sensitivities.
struct FolderPlan {
  /// The target and who meets it.
  PlanOptions options = {};
  /// What is measured; default_sensitivity gives what suits the options. Its selection and its
  /// rotation are those of the compression, whatever it says.
  SensitivityOptions sensitivity = {};
  /// Trades between linears that are tried on the plan; see swap_levels.
  SwapOptions swaps = {};
  /// Where the sensitivities are read when the file is there, and written when it is not; none:
  /// they are not kept.
  std::optional<std::filesystem::path> file = {};
};

/// What a plan needs measured: pattern, group size and the width of the divergence are those of the
/// compression.
inline SensitivityOptions default_sensitivity(const SolverOptions& solver,
                                              const PlanOptions& plan) {
  SensitivityOptions options;
  options.solver = without_choices(solver);
  options.patterns = {pattern_of(solver)};
  options.group_sizes = {solver.group_size};
  options.widths = default_tiers();
  options.divergence_widths.clear();
  if (plan.objective == PlanObjective::divergence)
    options.divergence_widths = {solver.bits.value_or(3)};
  return options;
}

/// Where sensitivities came from.
struct SensitivitySource {
  std::optional<std::filesystem::path> read;     ///< from this file
  double seconds = 0;                            ///< that measuring took
  index_t divergence_windows = 0;                ///< windows that the divergence was measured on
  std::optional<std::filesystem::path> written;  ///< to this file
};

/// What is measured for a plan of the linears that a compression selects.
inline SensitivityOptions sensitivity_options(const FolderPlan& plan,
                                              const LinearSelection& selection) {
  SensitivityOptions options = plan.sensitivity;
  options.selection = selection;
  return options;
}

/// What the file of a plan holds, none where it is still to be written. To be called before any long
/// work: a file that does not serve the plan is refused.
/// @param plan         what is measured, and the file
/// @param windows      the calibration text
/// @param selection    which linears
/// @param fingerprint  fingerprint() of the model
/// @throws run_argument_error when the file holds others, format_error, io_error
inline std::optional<Sensitivities> given_sensitivities(
    const FolderPlan& plan, const CalibrationWindows& windows, const LinearSelection& selection,
    const std::function<std::uint64_t()>& fingerprint) {
  std::error_code error;
  if (!plan.file || !std::filesystem::exists(*plan.file, error)) return std::nullopt;
  Sensitivities read = read_sensitivities(*plan.file);
  try {
    require_measured_for(read, fingerprint(), windows, sensitivity_options(plan, selection));
  } catch (const argument_error& e) {
    throw run_argument_error("sensitivities", plan.file->string(),
                             e.what() + std::string("; name another file to measure anew"));
  }
  return read;
}

/// What a plan is made from: what was given, otherwise measured, and written to the plan's file.
/// @param plan       what is measured, and the file
/// @param selection  which linears
/// @param given      of given_sensitivities
/// @param measure    measure(options), where nothing is given
/// @param source     is told where they came from
/// @throws save_error when the file cannot be written; what `measure` throws
inline Sensitivities find_sensitivities(
    const FolderPlan& plan, const LinearSelection& selection,
    const std::optional<Sensitivities>& given,
    const std::function<Sensitivities(const SensitivityOptions&)>& measure,
    SensitivitySource& source) {
  if (given) {
    source.read = *plan.file;
    return *given;
  }
  const auto start = std::chrono::steady_clock::now();
  Sensitivities measured = measure(sensitivity_options(plan, selection));
  source.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  source.divergence_windows = measured.divergence_windows;
  if (plan.file) {
    write_json(*plan.file, to_json(measured));
    source.written = *plan.file;
  }
  return measured;
}

}  // namespace pare
