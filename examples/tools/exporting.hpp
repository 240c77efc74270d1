// pare export: a packed model in the format of another program.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "pare/pipeline/run/export_folder.hpp"
#include "tools/packing.hpp"

namespace tool {

/// What export reads from the command line.
struct ExportArguments {
  std::string packed, output;
  std::optional<std::string> format;
  bool widen = false;
};

/// The names of the formats.
inline std::vector<std::string> export_format_names() {
  std::vector<std::string> names;
  for (const pare::ExportFormat* format : pare::export_formats) names.emplace_back(format->name);
  return names;
}

/// Exports. Prints what whoever loads the result should know.
inline void export_packed(const ExportArguments& arguments) {
  if (!arguments.format)
    throw usage_error("export without --format: there is no format to write; add --format " +
                      one_of(export_format_names()));
  const pare::ExportFormat* format = pare::find_export_format(*arguments.format);
  if (format == nullptr)
    throw unknown_value("--format", *arguments.format, "format", export_format_names());
  require_packed_model("export", arguments.packed);
  const fs::path target = savable_folder("OUT", arguments.output, arguments.packed);
  const pare::ExportResult result =
      pare::export_folder(arguments.packed, target, *format, {.widen = arguments.widen});
  print_left_out(arguments.packed, result.left_out);
  for (const std::string& note : result.notes) std::printf("note: %s\n", note.c_str());
  std::printf("exported to %s: %.3f bits per weight of the quantized linears\n",
              arguments.output.c_str(), result.bits_per_weight);
}

}  // namespace tool
