// pare export and compress --save-as: a model in the format of another program.
#pragma once

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "pare/pipeline/run/export_folder.hpp"
#include "pare/pipeline/run/save_as.hpp"
#include "tools/arguments.hpp"
#include "tools/packing.hpp"

namespace tool {

/// What export reads from the command line.
struct ExportArguments {
  std::string packed, output;
  std::optional<std::string> format;
  std::optional<std::string> embeddings;
  bool widen = false, fused_widths = false;
};

/// Whether --embeddings asks for blocks of 8 bits.
/// @throws usage_error for another type than f16 and q8_0
inline bool small_embeddings(const std::optional<std::string>& given) {
  if (given && *given != "f16" && *given != "q8_0")
    throw unknown_value("--embeddings", *given, "type", {"f16", "q8_0"});
  return given == "q8_0";
}

/// What --help says of it.
inline constexpr const char* embeddings_help =
    "what gguf stores embeddings and head in: f16 (default), or q8_0, rounded to 8 bits";

/// The names of the formats.
inline std::vector<std::string> export_format_names() {
  std::vector<std::string> names;
  for (const pare::ExportFormat* format : pare::export_formats) names.emplace_back(format->name);
  return names;
}

/// The format called `name`, of `option`.
inline const pare::ExportFormat& export_format(const std::string& option, const std::string& name) {
  const pare::ExportFormat* format = pare::find_export_format(name);
  if (format == nullptr) throw unknown_value(option, name, "format", export_format_names());
  return *format;
}

/// The formats and folders of --save-as.
inline std::vector<pare::SavedAs> saved_as(const Arguments& arguments) {
  std::vector<pare::SavedAs> all;
  for (const std::string& given : arguments.save_as) {
    const std::optional<NamedFile> named = parse_named_file(given);
    if (!named)
      throw usage_error(written("--save-as", given) +
                        ": expected a format and a folder; write FORMAT=DIR, FORMAT " +
                        one_of(export_format_names()));
    const pare::ExportFormat& format = export_format("--save-as", named->name);
    for (const pare::SavedAs& other : all)
      if (other.format == &format)
        throw usage_error("--save-as " + given +
                          ": an earlier one has this format; leave one of them out");
    all.push_back(
        {&format,
         output_path("--save-as", named->file.string()),
         {.widen = arguments.widen,
          .small_embeddings = format.rounds_embeddings && small_embeddings(arguments.embeddings)}});
  }
  if (all.empty() && arguments.widen)
    throw usage_error(
        "--widen without --save-as: what pare writes itself has rows of several "
        "widths; leave it out");
  if (arguments.embeddings && std::none_of(all.begin(), all.end(), [](const pare::SavedAs& as) {
        return as.format->rounds_embeddings;
      }))
    throw usage_error(
        "--embeddings " + *arguments.embeddings +
        " without --save-as gguf=DIR: other formats keep embeddings as the checkpoint "
        "has them; leave it out");
  return all;
}

/// Prints what whoever loads an export should know.
inline void print_export(const pare::ExportResult& result, const fs::path& folder) {
  for (const std::string& note : result.notes) std::printf("note: %s\n", note.c_str());
  std::printf("exported to %s", folder.c_str());
  if (result.bits_per_weight > 0)  // else an earlier process of the run wrote it
    std::printf(": %.3f bits per weight of the quantized linears", result.bits_per_weight);
  std::printf("\n");
}

/// Exports. Prints what whoever loads the result should know.
inline void export_packed(const ExportArguments& arguments) {
  if (!arguments.format)
    throw usage_error("export without --format: there is no format to write; add --format " +
                      one_of(export_format_names()));
  const pare::ExportFormat& format = export_format("--format", *arguments.format);
  if (arguments.embeddings && !format.rounds_embeddings)
    throw usage_error("--embeddings " + *arguments.embeddings + " with --format " +
                      std::string(format.name) +
                      ": it keeps embeddings as the checkpoint has them; leave it out");
  if (arguments.fused_widths && !format.fuses)
    throw usage_error("--fused-widths with --format " + std::string(format.name) +
                      ": no program that loads it makes one linear of several; leave it out");
  const bool small = small_embeddings(arguments.embeddings);
  require_packed_model("export", arguments.packed);
  const fs::path target = savable_folder("OUT", arguments.output, arguments.packed);
  const pare::ExportResult result = pare::export_folder(arguments.packed, target, format,
                                                        {.widen = arguments.widen,
                                                         .fused_widths = arguments.fused_widths,
                                                         .small_embeddings = small});
  print_left_out(arguments.packed, result.left_out);
  print_export(result, arguments.output);
}

}  // namespace tool
