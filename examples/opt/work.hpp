// What the commands of pare-opt share: inputs, progress, perplexities, one compression.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/progress.hpp"
#include "opt/arguments.hpp"
#include "opt/packing.hpp"
#include "pare/pipeline/options_json.hpp"
#include "pare/pipeline/text_windows.hpp"

namespace tool {

/// The most memory of the host that the program has had in use, bytes; mapped files count while
/// they are looked at.
inline double peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * double(usage.ru_maxrss);
}

using Perplexities = std::vector<std::pair<std::string, double>>;

/// A model folder's configuration and texts, read and checked before any long work.
struct Inputs {
  pare::Architecture config;
  index_t seqlen = 0;
  pare::CalibrationWindows windows;
  std::vector<std::pair<std::string, std::vector<std::int32_t>>> texts;
};

/// @param request  what is compressed; null when nothing is
inline Inputs read_inputs(const Arguments& arguments, const std::vector<NamedFile>& evaluations,
                          const pare::CompressionRequest* request) {
  Inputs inputs;
  const fs::path folder = arguments.model;
  if (request != nullptr && !arguments.shape) require_dense_model(arguments.model);
  inputs.config =
      arguments.shape ? pare::named_shape(*arguments.shape) : pare::load_architecture(folder);
  check_against_config(arguments, inputs.config, request);
  inputs.seqlen = arguments.seqlen.value_or(pare::default_seqlen(inputs.config));
  const index_t asked = arguments.nsamples.value_or(128);
  if (arguments.shape && !arguments.gmp)
    inputs.windows = {pare::random_tokens(inputs.config, asked * inputs.seqlen, 2), inputs.seqlen};
  if (evaluations.empty() && arguments.calibration_text.empty()) return inputs;
  const pare::Tokenizer tokenizer = read_tokenizer(folder, inputs.config);
  if (!arguments.calibration_text.empty() && !arguments.gmp) {
    std::vector<std::int32_t> ids =
        read_tokens(arguments.calibration_text, tokenizer, inputs.config, inputs.seqlen);
    require_window(arguments.calibration_text, ids, inputs.seqlen);
    inputs.windows = pare::first_windows(std::move(ids), asked, inputs.seqlen);
  }
  for (const NamedFile& text : evaluations) {
    std::vector<std::int32_t> ids = read_tokens(text.file, tokenizer, inputs.config, inputs.seqlen);
    require_window(text.file, ids, inputs.seqlen);
    inputs.texts.emplace_back(text.name, std::move(ids));
  }
  print_weight_notes(folder, inputs.config);
  if (const index_t count = inputs.windows.count(); count > 0 && count < asked)
    std::printf("calibration: %td windows of %td tokens, the text holds no more (asked for %td)\n",
                count, inputs.seqlen, asked);
  return inputs;
}

inline Perplexities evaluate(Model& model, const Inputs& inputs, const std::string& what) {
  // States as large as those of the calibration or as a layer's weights, which are in memory too.
  const index_t calibrated =
      inputs.windows.count() > 0 ? index_t(inputs.windows.ids.size()) : 128 * inputs.seqlen;
  const index_t held = std::max(calibrated, 12 * inputs.config.hidden_size);
  Perplexities result;
  for (const auto& [name, ids] : inputs.texts) {
    ProgressLine line("perplexity of the " + what + " model on " + name);
    const auto advance = [&](index_t done, index_t all) {
      line.advance(double(done) / double(all));
    };
    result.emplace_back(name, model.perplexity(ids, inputs.seqlen, held, advance));
  }
  return result;
}

inline void print_perplexities(const Perplexities& perplexities, const char* what) {
  for (const auto& [name, value] : perplexities)
    std::printf("perplexity of the %s model on %s: %.3f\n", what, name.c_str(), value);
  std::fflush(stdout);
}

/// The same of the compressed model, beside what the dense model had: an infinite one measures
/// nothing.
inline void print_perplexities(const Perplexities& perplexities, const Perplexities& dense) {
  for (std::size_t i = 0; i < perplexities.size(); ++i) {
    std::printf("perplexity of the compressed model on %s: %.3f", perplexities[i].first.c_str(),
                perplexities[i].second);
    if (std::isfinite(dense[i].second))
      std::printf(", %.4f times the dense model's", perplexities[i].second / dense[i].second);
    std::printf("\n");
  }
  std::fflush(stdout);
}

inline pare::Json to_json(const Perplexities& perplexities) {
  pare::Json json = pare::Json::object();
  for (const auto& [name, value] : perplexities) json[name] = value;
  return json;
}

inline pare::SensitivityOptions sensitivity_options(const Arguments& arguments,
                                                    const PlanRequest& plan) {
  pare::SensitivityOptions options = plan.sensitivity;
  options.selection = selection_of(arguments);
  return options;
}

/// What the file of --sensitivity holds, none where it is still to be written. To be called before
/// any long work: a file that does not serve the plan is refused.
inline std::optional<pare::Sensitivities> given_sensitivities(Model& model, const Inputs& inputs,
                                                              const Arguments& arguments,
                                                              const PlanRequest& plan) {
  const std::optional<std::string>& file = arguments.flags.sensitivity;
  std::error_code error;
  if (!file || !fs::exists(*file, error)) return std::nullopt;
  pare::Sensitivities read = pare::read_sensitivities(*file);
  try {
    pare::require_measured_for(read, model.fingerprint(), inputs.windows,
                               sensitivity_options(arguments, plan));
  } catch (const pare::argument_error& e) {
    throw usage_error("--sensitivity " + *file + ": " + e.what() +
                      "; name another file to measure anew");
  }
  return read;
}

/// What a plan is made from: what was given, otherwise measured, and written to --sensitivity.
/// @param given  of given_sensitivities
inline pare::Sensitivities sensitivities(Model& model, const Inputs& inputs,
                                         const Arguments& arguments, const PlanRequest& plan,
                                         const std::optional<pare::Sensitivities>& given) {
  const std::optional<std::string>& file = arguments.flags.sensitivity;
  if (given) {
    std::printf("sensitivities: read from %s\n", file->c_str());
    return *given;
  }
  const auto start = std::chrono::steady_clock::now();
  pare::Sensitivities measured = [&] {
    ProgressLine line("measuring sensitivities");
    return model.measure(inputs.windows, sensitivity_options(arguments, plan),
                         [&](double share) { line.advance(share); });
  }();
  std::printf("sensitivities: measured in %.3f s", seconds_since(start));
  if (measured.divergence_windows > 0)
    std::printf(", the kl on %td windows", measured.divergence_windows);
  std::printf("\n");
  if (file) {
    write_report(*file, pare::to_json(measured));
    std::printf("sensitivities: written to %s\n", file->c_str());
  }
  return measured;
}

/// @param plan  none: every linear chooses by itself what the request says
inline pare::Statistics compress(Model& model, const Inputs& inputs, const Arguments& arguments,
                                 const pare::CompressionRequest& request,
                                 const pare::ModelPlan* plan, bool lines, const std::string& what,
                                 const Keeping& keeping = {}) {
  ProgressLine progress(what);
  pare::CompressionProgress callbacks;
  callbacks.advanced = [&](double share) { progress.advance(share); };
  if (lines)
    callbacks.linear_done = [&](const pare::LinearStatistics& linear) {
      progress.clear();
      std::printf("%s\n", pare::linear_line(linear).c_str());
      std::fflush(stdout);
    };
  pare::ModelCompressionOptions options{.solver = request.solver,
                                        .selection = selection_of(arguments),
                                        .magnitude = arguments.gmp,
                                        .true_sequential = arguments.true_sequential,
                                        .asymmetric = arguments.asymmetric.value_or(0),
                                        .keep_zeros = arguments.flags.keep_zeros};
  if (plan == nullptr) return model.compress(request, inputs.windows, options, callbacks, keeping);
  options.solver = pare::without_choices(request.solver);
  return model.compress(*plan, inputs.windows, options, callbacks, keeping);
}

/// Every option in force.
inline pare::Json config_json(const Arguments& arguments, const Inputs& inputs,
                              const pare::CompressionRequest& request) {
  pare::Json json = pare::to_json(request);
  json.erase("half_scale");  // reports hold it further down, and always
  json["model"] = arguments.shape ? pare::Json(nullptr) : pare::Json(arguments.model);
  json["shape"] = arguments.shape ? pare::Json(*arguments.shape) : pare::Json(nullptr);
  json["calibration_text"] = arguments.calibration_text;
  json["nsamples"] = inputs.windows.count();
  json["seqlen"] = inputs.seqlen;
  json["minlayer"] = arguments.first_layer.value_or(0);
  json["maxlayer"] = arguments.last_layer.value_or(inputs.config.num_hidden_layers);
  json["prune_only"] = arguments.prune_only.value_or("");
  json["invert"] = arguments.invert;
  json["gmp"] = arguments.gmp;
  const CompressionFlags& flags = arguments.flags;
  const auto given = [](const auto& value) { return value ? pare::Json(*value) : pare::Json(); };
  json["target_bits_per_weight"] = given(flags.target_stored_bits);
  json["sparsity_auto"] = flags.sparsity_auto;
  json["scope"] = given(flags.scope);
  json["importance"] = given(flags.importance);
  json["sensitivity"] = given(flags.sensitivity);
  json["kl_windows"] = given(flags.kl_windows);
  json["preset"] = given(arguments.preset);
  json["true_sequential"] = arguments.true_sequential;
  json["asymmetric"] = arguments.asymmetric.value_or(0);
  json["keep_zeros"] = flags.keep_zeros;
  json["eval"] = arguments.evaluations;
  json["save"] = given(arguments.save);
  json["save_packed"] = given(arguments.save_packed);
  json["half_scale"] = request.solver.grid.half_scale;
  json["backend"] = chosen_backend(arguments.backend).name;
  json["dtype"] = arguments.dtype.value_or("float32");
  return json;
}

}  // namespace tool
