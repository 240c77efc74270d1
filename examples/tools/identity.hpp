// What pare compress --checkpoint holds a run against, in the words of the command line.
#pragma once

#include <algorithm>
#include <string>

#include "pare/core/version.hpp"
#include "pare/pipeline/run/run_inputs.hpp"
#include "tools/work.hpp"

namespace tool {

/// All that decides the result of a run: options by the names they are written with, and the
/// content of files by what they are for. Where they lie decides nothing.
inline pare::Json run_identity(const Arguments& arguments, const Inputs& inputs,
                               const pare::CompressionRequest& request) {
  pare::Json options{{"version of pare", PARE_VERSION_TEXT}}, files = pare::Json::object();
  const pare::Json config = config_json(arguments, inputs, request);
  for (const auto& [key, value] : config.items()) {
    // Where results go decides nothing but whether grids are rounded and linears packed; family and
    // leading ids follow from the model's files.
    if (key == "save" || key == "half_scale" || key == "sensitivity") continue;
    if (key == "save_as") continue;
    if (key == "family" || key == "leading_ids") continue;
    if (key == "model" || key == "calibration_text" || key == "eval") continue;
    std::string option = "--" + key;
    std::replace(option.begin(), option.end(), '_', '-');
    options[option] = value;
    if (key == "save_packed") options[option] = !value.is_null() || !arguments.save_as.empty();
  }
  const auto add = [&](const std::string& name, const fs::path& file) {
    files[name] = pare::hex_text(pare::file_fingerprint(file));
  };
  for (const auto& [name, hash] : pare::model_fingerprints(arguments.model)) files[name] = hash;
  if (!arguments.calibration_text.empty()) add("CALIB_TEXT", arguments.calibration_text);
  options["--eval"] = pare::Json::array();
  for (const NamedFile& text : parse_evaluations(arguments.evaluations)) {
    options["--eval"].push_back(text.name);
    add("--eval " + text.name, text.file);
  }
  return {{"options", options}, {"files", files}};
}

/// An argument that the library refused, by the option that it came from.
inline usage_error refused_option(const Arguments& arguments, const pare::run_argument_error& e) {
  const auto by = [&](const char* option, const std::optional<std::string>& given) {
    return usage_error(std::string(option) + " " + given.value_or("") + ": " + e.reason);
  };
  if (e.argument == "save") return by("--save", arguments.save);
  if (e.argument == "save_packed") return by("--save-packed", arguments.save_packed);
  if (e.argument == "save_as") return usage_error("--save-as: " + e.reason);
  if (e.argument == "checkpoint") return by("--checkpoint", arguments.checkpoint);
  if (e.argument == "sensitivities") return by("--sensitivity", arguments.flags.sensitivity);
  return usage_error(e.reason +
                     "; finished layers are kept there: set TMPDIR to a folder that can be "
                     "written, or add --checkpoint DIR");
}

}  // namespace tool
