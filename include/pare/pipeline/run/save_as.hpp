// Formats of other programs that a compression saves in: asked before it begins, so that grids are
// fitted to what they hold.
#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/config_json.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/run/export_folder.hpp"
#include "pare/pipeline/run/run_inputs.hpp"

namespace pare::inline PARE_TARGET {

/// A folder that a compressed model is saved to in the format of another program.
struct SavedAs {
  const ExportFormat* format;    ///< one of export_formats, or one's own
  std::filesystem::path folder;  ///< new or empty
  ExportOptions options = {};    ///< how
};

/// Widths that codes may have, in rising order; several: channels of a linear differ.
/// @param request  how linears are compressed
/// @param planned  whether a plan chooses widths
inline std::vector<int> possible_widths(const CompressionRequest& request, bool planned) {
  if (request.policy == PolicyKind::none && !planned) return {*request.solver.bits};
  return request.solver.tiers.value_or(default_tiers());
}

/// Significant bits that scales may have, so that all of the formats hold them. Where codes have one
/// width and the checkpoint is float16, scale times (code - zero) is then a float16 as well: a
/// program that computes in float32 has the very weights that were measured. (In bfloat16 that would
/// leave a scale too few digits.)
/// @param saved   the formats
/// @param dtype   what the checkpoint stores weights in
/// @param solver  how linears are compressed
/// @param widths  of codes
inline int common_scale_digits(const std::vector<SavedAs>& saved, DType dtype,
                               const SolverOptions& solver, const std::vector<int>& widths) {
  int digits = half_scale_digits;
  for (const SavedAs& as : saved) digits = std::min(digits, as.format->scale_digits(dtype));
  if (dtype == DType::f16 && widths.size() == 1) {
    // The largest |code - zero| is 2^(bits - 1) for symmetric grids, which has one digit.
    const int of_code = solver.grid.symmetric ? widths.front() - 1 : widths.front();
    digits = std::min(digits, half_scale_digits - of_code);
  }
  return digits;
}

/// What a model will be to a format after it is compressed. What is open until then has its bounds.
/// @param folder      of the dense model
/// @param options     how it is compressed, and which linears
/// @param widths      what codes may have, in rising order; several: channels of a linear differ
/// @param group_size  inputs of a grid; 0: all of a row
/// @throws as load_architecture and Checkpoint
inline ExportModel planned_export(const std::filesystem::path& folder,
                                  const ModelCompressionOptions& options,
                                  const std::vector<int>& widths, index_t group_size) {
  ExportModel model{.folder = folder,
                    .config = detail::export_config(folder),
                    .linears = {},
                    .act_order = options.solver.act_order};
  const Architecture a = load_architecture(folder);
  const GridOptions& grid = options.solver.grid;
  const int widest = widths.back();
  const ExportLinear any{.tensor = {},
                         .dtype = checkpoint_dtype(folder),
                         .widths = widths,
                         .widths_by_input =
                             widths.size() > 1 && options.solver.axis == ChannelAxis::input,
                         .group_size = group_size,
                         .symmetric = grid.symmetric,
                         .lowest = grid.symmetric ? -(1 << (widest - 1)) : 1 - (1 << widest),
                         .highest = grid.symmetric ? (1 << (widest - 1)) - 1 : (1 << widest) - 1};
  for (index_t i = 0; i < a.num_hidden_layers; ++i) {
    const std::vector<std::string> names = linear_names(a, i);
    for (std::size_t l = 0; l < names.size(); ++l) {
      if (!options.selection.selects(i, names[l])) continue;
      const LinearSpec& spec = a.linears[l];
      ExportLinear linear = any;
      linear.tensor = names[l] + ".weight";
      linear.rows = rows_of(a, spec.role);
      linear.columns = columns_of(a, spec.role);
      linear.transposed = spec.transposed;
      model.linears.push_back(std::move(linear));
    }
  }
  return model;
}

/// Significant bits of the scales of a compression that is saved in other formats; refuses what these
/// cannot hold. To be called before any long work.
/// @param saved    the formats
/// @param folder   of the dense model
/// @param options  how it is compressed
/// @param policy   who chooses widths while linears are solved
/// @param plan     what chooses them before, if anything
/// @return         GridOptions::scale_digits: those of the options, or fewer
/// @throws run_argument_error when nothing is quantized, argument_error with every reason why a
///         format cannot hold the result; as planned_export
inline int fitted_scale_digits(const std::vector<SavedAs>& saved,
                               const std::filesystem::path& folder,
                               const ModelCompressionOptions& options, PolicyKind policy,
                               const std::optional<FolderPlan>& plan) {
  if (!options.solver.bits)
    throw run_argument_error("save_as", saved.front().folder.string(),
                             "nothing is quantized; set a width, or save the dense model");
  const std::vector<int> widths = possible_widths({policy, options.solver}, plan.has_value());
  const int digits = common_scale_digits(saved, checkpoint_dtype(folder), options.solver, widths);
  std::vector<index_t> group_sizes{options.solver.group_size};
  if (plan) group_sizes = plan->sensitivity.group_sizes;
  for (const SavedAs& as : saved) {
    std::vector<std::string> refusals;
    for (const index_t group_size : group_sizes) {
      ExportModel model = planned_export(folder, options, widths, group_size);
      for (ExportLinear& linear : model.linears) {
        linear.scale_digits = digits;
        linear.rotated = options.rotation.has_value();
        linear.widened = as.options.widen;
      }
      for (const std::string& refusal : export_refusals(*as.format, model))
        if (std::find(refusals.begin(), refusals.end(), refusal) == refusals.end())
          refusals.push_back(refusal);
    }
    require_no_refusals(*as.format, refusals);
  }
  return std::min(options.solver.grid.scale_digits, digits);
}

}  // namespace pare
