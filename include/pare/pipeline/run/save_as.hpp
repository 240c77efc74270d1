// Formats of other programs that a compression saves in: asked before it begins, so that grids are
// fitted to what they hold.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
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

/// Widths that codes of a linear may have together, each set in rising order; several in a set:
/// channels of a linear differ.
/// @param request  how linears are compressed
/// @param plan     what chooses widths before, if anything
inline std::vector<std::vector<int>> possible_widths(const CompressionRequest& request,
                                                     const std::optional<FolderPlan>& plan) {
  if (request.policy == PolicyKind::none && !plan) return {{*request.solver.bits}};
  const std::vector<int> tiers = request.solver.tiers.value_or(default_tiers());
  if (!plan || plan->options.together.empty()) return {tiers};
  std::vector<std::vector<int>> alone;
  alone.reserve(tiers.size());
  for (const int width : tiers) alone.push_back({width});
  return alone;
}

/// Significant bits that scales may have, so that all of the formats hold them. Where codes have one
/// width and the checkpoint is float16, scale times (code - zero) is then a float16 as well: a
/// program that computes in float32 has the very weights that were measured. (In bfloat16 that would
/// leave a scale too few digits.)
/// @param saved   the formats
/// @param models  every way in which the model may come out
/// @param widths  those that its codes may have, of possible_widths
inline int common_scale_digits(const std::vector<SavedAs>& saved,
                               const std::vector<ExportModel>& models,
                               const std::vector<std::vector<int>>& widths) {
  const bool one_width = widths.size() == 1 && widths.front().size() == 1;
  int digits = half_scale_digits;
  for (const ExportModel& model : models)
    for (const ExportLinear& linear : model.linears) {
      for (const SavedAs& as : saved) digits = std::min(digits, as.format->scale_digits(linear));
      if (linear.dtype == DType::f16 && one_width) {
        // The largest |code - zero| is 2^(bits - 1) for symmetric grids, which has one digit.
        const int of_code = linear.symmetric ? linear.width() - 1 : linear.width();
        digits = std::min(digits, half_scale_digits - of_code);
      }
    }
  return digits;
}

/// What a model will be to a format after it is compressed. What is open until then has its bounds.
/// @param folder         of the dense model
/// @param options        how it is compressed, and which linears
/// @param widths         what codes may have, in rising order; several: channels of a linear differ
/// @param group_size_of  inputs of a grid of a linear of so many inputs; 0: all of a row
/// @throws as load_architecture and Checkpoint
inline ExportModel planned_export(const std::filesystem::path& folder,
                                  const ModelCompressionOptions& options,
                                  const std::vector<int>& widths,
                                  const std::function<index_t(index_t)>& group_size_of) {
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
                         .group_size = 0,
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
      linear.group_size = group_size_of(linear.columns);
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
  const std::vector<std::vector<int>> widths = possible_widths({policy, options.solver}, plan);
  const std::size_t sizes = plan ? plan->sensitivity.group_sizes.size() : 1;
  std::vector<ExportModel> models;
  for (const std::vector<int>& of_linear : widths)
    for (std::size_t s = 0; s < sizes; ++s)
      models.push_back(planned_export(folder, options, of_linear, [&](index_t columns) {
        return plan ? measured_group_sizes(plan->sensitivity, columns)[s]
                    : resolved_group_size(options.solver.group_size, columns);
      }));
  const int digits = common_scale_digits(saved, models, widths);
  for (const SavedAs& as : saved) {
    std::vector<std::string> refusals;
    for (ExportModel& model : models) {
      model.small_embeddings = as.options.small_embeddings;
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
