// A packed folder in the format of another program.
#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/config_json.hpp"
#include "pare/pipeline/run/packed_folder.hpp"
#include "pare/pipeline/run/result_folder.hpp"
#include "pare/pipeline/run/side_files.hpp"
#include "pare/storage/export/compressed_tensors.hpp"
#include "pare/storage/export/format.hpp"
#include "pare/storage/export/gguf.hpp"
#include "pare/storage/export/gptq.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

/// The formats that are known. Another one is a header of storage/export and its name here.
inline constexpr std::array export_formats{&compressed_tensors_format, &gptq_format, &gguf_format};

/// The format called `name`, or null.
inline const ExportFormat* find_export_format(std::string_view name) {
  for (const ExportFormat* format : export_formats)
    if (format->name == name) return format;
  return nullptr;
}

/// How a packed folder is exported.
struct ExportOptions {
  /// Rows of fewer bits than others of their linear are stored at the widest.
  bool widen = false;
  /// So are linears that programs load as one, q, k and v, and gate and up: at the widest of them.
  bool fused_widths = false;
  /// Embeddings and head are rounded to blocks of 8 bits (GGUF's Q8_0).
  bool small_embeddings = false;
};

namespace detail {

/// Says of linears that programs load as one how wide the widest of them is.
inline void fuse_widths(ExportModel& model) {
  const Architecture a = load_architecture(model.folder);
  for (index_t i = 0; i < a.num_hidden_layers; ++i)
    for (const std::vector<std::string>& set : fused_linears(a, i)) {
      std::vector<ExportLinear*> members;
      int widest = 0;
      for (ExportLinear& linear : model.linears)
        for (const std::string& name : set)
          if (linear.module() == name || linear.module().ends_with("." + name)) {
            members.push_back(&linear);
            widest = std::max(widest, linear.width());
          }
      for (ExportLinear* linear : members) linear->fused_width = widest;
    }
}

}  // namespace detail

/// What an export tells.
struct ExportResult {
  std::vector<std::string> notes;  ///< what whoever loads the model should know
  std::vector<std::string>
      left_out;                ///< names of what lies in the packed folder and does not go along
  double bits_per_weight = 0;  ///< of the linears that are quantized, all that they take
};

/// Writes a packed model in the format of another program: the codes and scales are those of the
/// packed file, nothing is rounded again. Holds one linear at a time.
/// @param packed   a folder that save_packed wrote
/// @param folder   new or empty
/// @param format   one of export_formats, or one's own
/// @param options  how
/// @param saving   for a run that may be stopped meanwhile
/// @throws argument_error when the folder is neither, or with every reason why the format cannot
///         hold the model; as PackedFile; save_error
inline ExportResult export_folder(const std::filesystem::path& packed,
                                  const std::filesystem::path& folder, const ExportFormat& format,
                                  const ExportOptions& options = {}, const Saving& saving = {}) {
  if (const auto refusal = folder_refusal(folder, saving.noted))
    throw argument_error("folder: " + folder.string() + ": " + *refusal);
  const PackedFile file(packed);
  ExportModel model = export_model(file, packed);
  for (ExportLinear& linear : model.linears) linear.widened = options.widen;
  model.small_embeddings = options.small_embeddings;
  if (options.fused_widths) {
    if (!format.fuses)
      throw argument_error("fused_widths: no program that loads " + std::string(format.name) +
                           " makes one linear of several; leave it out");
    detail::fuse_widths(model);
  }
  const std::filesystem::path report = packed / packed_report_name;
  if (std::error_code ignored; std::filesystem::exists(report, ignored)) {
    const nlohmann::json whole =
        detail::parse_json_object(report.string(), detail::read_whole_file(report));
    const auto config = whole.find("config");
    model.act_order = config != whole.end() && config->is_object() &&
                      config->value("act_order", nlohmann::json(false)) == true;
  }
  require_no_refusals(format, export_refusals(format, model));
  ExportResult result{.notes = format.notes(model), .left_out = {}};
  double bits = 0, weights = 0;
  for (const ExportLinear& linear : model.linears) {
    const double count = double(linear.rows) * double(linear.columns);
    bits += count * format.bits_per_weight(linear);
    weights += count;
  }
  result.bits_per_weight = weights > 0 ? bits / weights : 0;
  fill_folder(
      folder,
      [&](const std::filesystem::path& partial) {
        format.write({file, model}, partial);
        if (format.side_files)
          result.left_out = copy_side_files(packed, partial, {PackedFile::name, "config.json"});
      },
      saving);
  return result;
}

}  // namespace pare
