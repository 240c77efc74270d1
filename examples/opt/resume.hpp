// Where pare-opt compress keeps what it has finished: the folder of --checkpoint, from which a
// stopped run goes on, or a temporary one.
#pragma once

#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "opt/work.hpp"
#include "pare/pipeline/run_folder.hpp"

namespace tool {

namespace detail {

/// All that decides the result of a run: options by the names they are written with, and files.
inline pare::Json run_identity(const Arguments& arguments, const Inputs& inputs,
                               const pare::CompressionRequest& request) {
  pare::Json options = pare::Json::object(), files = pare::Json::object();
  const pare::Json config = config_json(arguments, inputs, request);
  for (const auto& [key, value] : config.items()) {
    // Where results go decides nothing but whether grids are rounded and linears packed.
    if (key == "save" || key == "half_scale") continue;
    std::string option = "--" + key;
    std::replace(option.begin(), option.end(), '_', '-');
    if (key == "model") option = "MODEL";
    if (key == "calibration_text") option = "CALIB_TEXT";
    options[option] = key == "save_packed" ? pare::Json(!value.is_null()) : value;
  }
  const auto add = [&](const fs::path& file) {
    files[file.string()] = pare::hex_text(pare::file_fingerprint(file));
  };
  const fs::path model = arguments.model;
  for (const char* name : model_files)
    if (fs::exists(model / name)) add(model / name);
  const pare::Checkpoint checkpoint(model);
  for (const pare::TensorFile& file : checkpoint.files()) add(file.path());
  if (!arguments.calibration_text.empty()) add(arguments.calibration_text);
  for (const EvaluationText& text : parse_evaluations(arguments.evaluations)) add(text.file);
  return {{"options", options}, {"files", files}};
}

/// A new name for a folder of finished layers: beside the results, which are as large.
inline fs::path temporary_run(const Outputs& outputs) {
  const std::string number = std::to_string(::getpid());
  fs::path path = fs::temp_directory_path() / "pare-opt";
  if (outputs.save_packed) path = *outputs.save_packed;
  if (outputs.save) path = *outputs.save;
  path += ".layers-" + number;
  return path;
}

}  // namespace detail

/// The folder of finished layers of one run; a temporary one is removed at the end.
class KeptRun {
 public:
  KeptRun(const Arguments& arguments, const Inputs& inputs, const pare::CompressionRequest& request,
          const Outputs& outputs) {
    packed_ = outputs.save_packed.has_value();
    if (outputs.checkpoint) {
      const std::string what = "--checkpoint " + *arguments.checkpoint + ": ";
      const pare::Json identity = detail::run_identity(arguments, inputs, request);
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
    } else if (!arguments.shape && (outputs.save || outputs.save_packed || !inputs.texts.empty())) {
      temporary_ = detail::temporary_run(outputs);
      kept([&] {
        folder_ = std::make_unique<pare::RunFolder>(temporary_,
                                                    pare::Json{{"options", pare::Json::object()},
                                                               {"files", pare::Json::object()}});
      });
    }
  }
  KeptRun(const KeptRun&) = delete;
  KeptRun& operator=(const KeptRun&) = delete;
  ~KeptRun() {
    folder_.reset();
    std::error_code ignored;
    if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
  }

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
  pare::Sensitivities sensitivities(const std::function<pare::Sensitivities()>& measure) const {
    constexpr const char* name = "sensitivities.json";
    if (!durable_) return measure();
    if (const auto file = folder_->text(name)) {
      std::printf("sensitivities: read from %s\n", file->c_str());
      return pare::sensitivities_of_json(pare::detail::read_whole_file(*file));
    }
    pare::Sensitivities measured = measure();
    kept([&] { folder_->keep_text(name, pare::to_json(measured).dump()); });
    return measured;
  }

  /// Whether an earlier part of this run has written the folder of an option.
  bool has_saved(const std::string& option, const fs::path& path) const {
    return durable_ && !folder_->note(option).is_null() &&
           folder_->note(option) == identity_of(path);
  }
  /// How the folder of an option is written, so that has_saved knows it again.
  Saving saving(const std::string& option) const {
    if (!durable_) return {};
    const std::string path = folder_->path().string();
    return {.suffix = pare::hex_text(pare::fingerprint(path)),
            .ready = [this, option](const fs::path& partial) {
              folder_->keep_note(option, identity_of(partial));
            }};
  }

 private:
  std::unique_ptr<pare::RunFolder> folder_;  // null: nothing is kept
  fs::path temporary_;
  bool durable_ = false, packed_ = false;
};

}  // namespace tool
