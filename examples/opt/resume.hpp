// Where pare-opt compress keeps what it has finished: the folder of --checkpoint, from which a
// stopped run goes on, or a temporary one.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "opt/outputs.hpp"
#include "opt/work.hpp"
#include "pare/core/version.hpp"
#include "pare/pipeline/run_folder.hpp"

namespace tool {

namespace detail {

/// All that decides the result of a run: options by the names they are written with, and the
/// content of files by what they are for. Where they lie decides nothing.
inline pare::Json run_identity(const Arguments& arguments, const Inputs& inputs,
                               const pare::CompressionRequest& request) {
  pare::Json options{{"version of pare", PARE_VERSION_TEXT}}, files = pare::Json::object();
  const pare::Json config = config_json(arguments, inputs, request);
  for (const auto& [key, value] : config.items()) {
    // Where results go decides nothing but whether grids are rounded and linears packed.
    if (key == "save" || key == "half_scale" || key == "sensitivity") continue;
    if (key == "model" || key == "calibration_text" || key == "eval") continue;
    std::string option = "--" + key;
    std::replace(option.begin(), option.end(), '_', '-');
    options[option] = key == "save_packed" ? pare::Json(!value.is_null()) : value;
  }
  const auto add = [&](const std::string& name, const fs::path& file) {
    files[name] = pare::hex_text(pare::file_fingerprint(file));
  };
  const fs::path model = arguments.model;
  std::error_code error;
  for (const char* name : model_files)
    if (fs::exists(model / name, error)) add("MODEL/" + std::string(name), model / name);
  const pare::Checkpoint checkpoint(model);
  for (const pare::TensorFile& file : checkpoint.files())
    add("MODEL/" + file.path().filename().string(), file.path());
  if (!arguments.calibration_text.empty()) add("CALIB_TEXT", arguments.calibration_text);
  options["--eval"] = pare::Json::array();
  for (const NamedFile& text : parse_evaluations(arguments.evaluations)) {
    options["--eval"].push_back(text.name);
    add("--eval " + text.name, text.file);
  }
  return {{"options", options}, {"files", files}};
}

/// How the path of a folder of finished layers begins: beside the results, which are as large.
inline fs::path temporary_run(const Outputs& outputs) {
  if (outputs.save) return temporary_prefix(*outputs.save, "layers");
  if (outputs.save_packed) return temporary_prefix(*outputs.save_packed, "layers");
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  if (error)
    throw usage_error("TMPDIR: finished layers are kept in it: " + error.message() +
                      "; set it to a folder that can be written, or add --checkpoint DIR");
  return folder / "pare-opt.layers-";
}

}  // namespace detail

/// The folder of finished layers of one run; a temporary one is removed at the end.
class KeptRun {
 public:
  KeptRun(const Arguments& arguments, const Inputs& inputs, const pare::CompressionRequest& request,
          const Outputs& outputs) {
    packed_ = outputs.save_packed.has_value();
    const bool needed = outputs.save || outputs.save_packed || !inputs.texts.empty();
    if (arguments.shape || (!outputs.checkpoint && !needed)) return;
    const pare::Json identity = detail::run_identity(arguments, inputs, request);
    if (outputs.checkpoint) {
      const std::string what = "--checkpoint " + *arguments.checkpoint + ": ";
      try {
        kept([&] { folder_ = std::make_unique<pare::RunFolder>(*outputs.checkpoint, identity); });
      } catch (const pare::argument_error& e) {
        throw usage_error(what + e.what());
      }
      durable_ = true;
      if (folder_->finished() > 0)
        std::printf("going on in %s: %td of %td layers are finished\n",
                    arguments.checkpoint->c_str(), folder_->finished(),
                    inputs.config.num_hidden_layers);
    } else {
      try {
        temporary_.emplace(detail::temporary_run(outputs));
      } catch (const pare::io_error& e) {
        throw usage_error(std::string(e.what()) +
                          "; finished layers are kept there: set TMPDIR to a folder that can be "
                          "written, or add --checkpoint DIR");
      }
      kept([&] { folder_ = std::make_unique<pare::RunFolder>(temporary_->path(), identity); });
    }
  }
  KeptRun(const KeptRun&) = delete;
  KeptRun& operator=(const KeptRun&) = delete;

  Keeping keeping() const {
    return {.folder = folder_.get(), .packed = packed_, .states = durable_};
  }
  const pare::RunFolder& folder() const { return *folder_; }

  /// What was kept under a name, or what `compute` finds, which is then kept.
  Perplexities perplexities(const std::string& name, const Inputs& inputs,
                            const std::function<Perplexities()>& compute) const {
    if (!durable_) return compute();
    const pare::Json note = folder_->note(name);
    Perplexities result;
    if (note.is_array() && note.size() == inputs.texts.size()) {
      for (std::size_t i = 0; i < note.size(); ++i)
        result.emplace_back(inputs.texts[i].first, note[i].get<double>());
      return result;
    }
    result = compute();
    pare::Json values = pare::Json::array();
    for (const auto& [text, value] : result) values.push_back(value);
    kept([&] { folder_->keep_note(name, values); });
    return result;
  }

  /// The same for sensitivities.
  /// @param file  of --sensitivity: what was kept must be what it holds
  pare::Sensitivities sensitivities(const std::optional<std::string>& file,
                                    const std::function<pare::Sensitivities()>& measure) const {
    constexpr const char* name = "sensitivities.json";
    if (!durable_) return measure();
    const auto here = folder_->text(name);
    if (!here) {
      pare::Sensitivities measured = measure();
      kept([&] { folder_->keep_text(name, pare::to_json(measured).dump()); });
      return measured;
    }
    pare::Sensitivities read = pare::read_sensitivities(*here);
    std::error_code error;
    if (file && !fs::exists(*file, error)) {
      write_report(*file, pare::to_json(read));
    } else if (file && pare::to_json(pare::read_sensitivities(*file)).dump() !=
                           pare::to_json(read).dump()) {
      throw usage_error("--sensitivity " + *file + ": holds others than those in " +
                        here->string() + ", which the run is planned with; name another file");
    }
    std::printf("sensitivities: read from %s\n", here->c_str());
    return read;
  }

  /// Whether an earlier part of this run has written the folder of an option.
  /// @param others  results that may lie in it
  bool has_saved(const std::string& option, const fs::path& path,
                 const std::vector<fs::path>& others) const {
    return durable_ && is_complete(folder_->note(option), path, others);
  }
  /// How the folder of an option is written, so that has_saved knows it again.
  Saving saving(const std::string& option) const {
    if (!durable_) return {};
    return {.noted = folder_->note(option),
            .note = [this, option](const pare::Json& note) { folder_->keep_note(option, note); }};
  }

 private:
  std::optional<pare::TemporaryFolder> temporary_;
  std::unique_ptr<pare::RunFolder> folder_;  // null: nothing is kept
  bool durable_ = false, packed_ = false;
};

}  // namespace tool
