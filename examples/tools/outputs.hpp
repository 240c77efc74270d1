// Where the commands of pare write, checked before any work.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/pipeline/run_folder.hpp"
#include "tools/arguments.hpp"
#include "tools/exporting.hpp"
#include "tools/packing.hpp"
#include "tools/plot.hpp"

namespace tool {

namespace detail {

/// Whether a model folder is read from a file of this name, should there be one.
inline bool is_model_file(const fs::path& name) {
  return name.extension() == ".safetensors" || name.extension() == ".bin" ||
         name == pare::Checkpoint::index_name || name == pare::Checkpoint::pytorch_index_name ||
         std::count(std::begin(pare::model_files), std::end(pare::model_files), name) > 0;
}

/// What a run reads: the model's files, all of them where they are copied, the texts, sensitivities
/// that were measured before.
inline InputFiles inputs_of(const Arguments& arguments, const std::vector<NamedFile>& evaluations) {
  InputFiles inputs;
  const bool copies = arguments.save || arguments.save_packed || !arguments.save_as.empty();
  std::error_code error;
  if (!arguments.model.empty())
    for (auto entry = fs::directory_iterator(arguments.model, error);
         !error && entry != fs::directory_iterator(); entry.increment(error))
      if (copies || is_model_file(entry->path().filename()) ||
          entry->path().filename() == pare::packed_report_name)
        inputs.add(entry->path());
  for (const NamedFile& text : evaluations) inputs.add(text.file);
  if (!arguments.calibration_text.empty()) inputs.add(arguments.calibration_text);
  if (arguments.flags.sensitivity && id_of(*arguments.flags.sensitivity))
    inputs.add(*arguments.flags.sensitivity);
  return inputs;
}

/// What the run in the folder `checkpoint` noted of the folder that `option` names; null when there
/// is none. Nothing is checked: opening the run does that.
inline pare::Json noted_by(const std::optional<fs::path>& checkpoint, const std::string& option) {
  std::error_code error;
  if (!checkpoint || !fs::exists(*checkpoint / pare::RunFolder::record_name, error)) return nullptr;
  const pare::Json record =
      pare::Json::parse(pare::detail::read_whole_file(*checkpoint / pare::RunFolder::record_name),
                        nullptr, false);
  const auto at = pare::Json::json_pointer("/run/notes/" + option);
  return record.is_object() && record.contains(at) ? record[at] : pare::Json(nullptr);
}

/// Checks --checkpoint.
inline fs::path checkpoint_folder(const Arguments& arguments) {
  const std::string& given = *arguments.checkpoint;
  const fs::path path = output_path("--checkpoint", given);
  const std::string what = "--checkpoint " + given;
  std::error_code error;
  if (same_place(path, arguments.model))
    throw usage_error(what + ": this is the model itself; name a new folder");
  if (!fs::is_directory(path, error)) {
    if (fs::exists(fs::symlink_status(path, error)))
      throw usage_error(what + ": exists and is not a folder; name a new one");
    require_writable("--checkpoint", given, path.parent_path());
    return path;
  }
  require_writable("--checkpoint", given, path);
  if (!pare::RunFolder::fits(path))
    throw usage_error(what + ": there is no " + pare::RunFolder::record_name +
                      " in it and it is not empty; name a new folder");
  return path;
}

/// Whether `path` lies in `folder`, both as output_path gives them.
inline bool lies_in(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

}  // namespace detail

/// Where results go, checked before any work.
class Outputs {
 public:
  std::optional<fs::path> save, save_packed, report, plot, checkpoint;
  std::vector<pare::SavedAs> save_as;

  Outputs(const Arguments& arguments, const std::vector<NamedFile>& evaluations)
      : save_as(saved_as(arguments)), inputs_(detail::inputs_of(arguments, evaluations)) {
    inputs_.refuse_standard_output();
    require_apart(arguments);
    if (arguments.checkpoint) checkpoint = detail::checkpoint_folder(arguments);
    // The folders' names first: the files may lie in them.
    if (arguments.save) save = output_path("--save", *arguments.save);
    if (arguments.save_packed) save_packed = output_path("--save-packed", *arguments.save_packed);
    if (arguments.report) report = report_file(arguments);
    if (arguments.flags.sensitivity) check_sensitivity(arguments);
    for (const auto& [option, given] :
         {std::pair{"--save", &arguments.save}, {"--save-packed", &arguments.save_packed}})
      if (*given)
        savable_folder(option, **given, arguments.model, detail::noted_by(checkpoint, option),
                       files_);
    for (const pare::SavedAs& as : save_as) {
      const std::string note = "--save-as " + std::string(as.format->name);
      savable_folder("--save-as", as.folder, arguments.model, detail::noted_by(checkpoint, note),
                     files_);
    }
    if (arguments.plot) {
      plot = plot_folder(*arguments.plot);
      for (const char* name : plot_files)
        inputs_.refuse("--plot", *arguments.plot + "/" + name, *plot / name);
    }
  }

  /// Results that are files, and may lie in folders of others.
  const std::vector<fs::path>& files() const { return files_; }

 private:
  /// A result by the option that names it.
  struct Named {
    const char* option;
    std::string given, path;
    bool folder;
  };

  /// Throws usage_error where two results are one, or one would lie in another's folder.
  void require_apart(const Arguments& arguments) const {
    std::vector<Named> all;
    const auto add = [&](const char* option, const std::optional<std::string>& given, bool folder) {
      if (given && !given->empty()) all.push_back({option, *given, *given, folder});
    };
    add("--save", arguments.save, true);
    add("--save-packed", arguments.save_packed, true);
    for (std::size_t i = 0; i < save_as.size(); ++i)
      all.push_back({"--save-as", arguments.save_as[i], save_as[i].folder, true});
    add("--report", arguments.report, false);
    add("--sensitivity", arguments.flags.sensitivity, false);
    add("--checkpoint", arguments.checkpoint, true);
    for (auto a = all.begin(); a != all.end(); ++a)
      for (auto b = a + 1; b != all.end(); ++b) require_apart(*a, *b);
  }

  static void require_apart(const Named& a, const Named& b) {
    const fs::path one = resolved(a.path), other = resolved(b.path);
    const bool kept = std::string(b.option) == "--checkpoint";
    const auto refuse = [&](const std::string& why) {
      throw usage_error(std::string(a.option) + " " + a.given + " " + b.option + " " + b.given +
                        ": " + why);
    };
    if (same_place(one, other) && !is_stream(one))
      refuse(kept ? "one is a result and the other what a stopped run goes on from; name them "
                    "differently"
             : a.folder && b.folder ? "the model is in another form in each; name two folders"
             : a.folder             ? "one is a folder and the other a file; name them differently"
                                    : "each is written by itself; name them differently");
    // Files may lie in a folder of results, but nothing in one that a stopped run goes on from.
    if ((b.folder && detail::lies_in(one, other)) ||
        (a.folder && b.folder && detail::lies_in(other, one)))
      refuse("one lies in the other; name another");
  }

  /// Whether several results may go to a path, one after the other.
  static bool is_stream(const fs::path& path) {
    std::error_code error;
    return fs::exists(path, error) && !fs::is_regular_file(path, error) &&
           !fs::is_directory(path, error);
  }

  /// Checks --report. It may lie in a folder that the run makes itself.
  fs::path report_file(const Arguments& arguments) {
    const std::string& given = *arguments.report;
    const std::string what = "--report " + given;
    const fs::path name = fs::path(given).filename();
    const fs::path above = fs::path(given).parent_path();
    const fs::path parent = resolved(above.empty() ? fs::path(".") : above);
    for (const auto& [option, folder] :
         {std::pair{"--save", &save}, {"--save-packed", &save_packed}}) {
      if (!*folder || parent != **folder) continue;
      const bool packs = std::string(option) == "--save-packed";
      std::error_code error;
      if (detail::is_model_file(name) || fs::exists(fs::path(arguments.model) / name, error) ||
          (packs && name == pare::packed_report_name))
        throw usage_error(what + " " + option +
                          ": it writes a file of this name itself; name the "
                          "report differently");
      if (!fs::is_directory(**folder, error)) {
        files_.push_back(**folder / name);
        return files_.back();
      }
    }
    if (!arguments.model.empty() && same_place(parent, arguments.model) &&
        detail::is_model_file(name))
      throw usage_error(what + ": this is an input of the run; name another file");
    const fs::path path = writable_file("--report", given, inputs_);
    files_.push_back(path);
    return path;
  }

  /// Checks --sensitivity where it is to be written.
  void check_sensitivity(const Arguments& arguments) {
    const std::string& given = *arguments.flags.sensitivity;
    std::error_code error;
    if (!fs::exists(given, error)) writable_file("--sensitivity", given, inputs_);
    files_.push_back(resolved(given));
  }

  InputFiles inputs_;
  std::vector<fs::path> files_;
};

}  // namespace tool
