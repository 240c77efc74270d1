// What the commands of pare share: inputs, progress, perplexities, one compression.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/progress.hpp"
#include "pare/pipeline/run/compress_folder.hpp"
#include "pare/pipeline/text_windows.hpp"
#include "tools/arguments.hpp"
#include "tools/packing.hpp"

namespace tool {

/// The most memory of the host that the program has had in use, bytes; mapped files count while
/// they are looked at.
inline double peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * double(usage.ru_maxrss);
}

using pare::Perplexities;

/// A model folder's configuration and texts, read and checked before any long work.
struct Inputs {
  pare::Architecture config;
  index_t seqlen = 0;
  pare::DType dtype = pare::DType::f32;  ///< what the model is stored in while it is worked on
  pare::CalibrationWindows windows;
  std::vector<pare::NamedText> texts;
  pare::PerplexityOptions evaluation;     ///< windows of these
  std::vector<std::int32_t> leading_ids;  ///< in front of a text
};

/// Bytes that can be had without swapping, as the kernel counts; none where it does not say.
inline std::optional<double> available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (long kilobytes = 0; std::sscanf(line.c_str(), "MemAvailable: %ld kB", &kilobytes) == 1)
      return 1024.0 * double(kilobytes);
  return std::nullopt;
}

inline double weight_bytes(const Inputs& inputs) {
  return pare::weights_of(inputs.config) * double(pare::dtype_bytes(inputs.dtype));
}

/// "--shape NAME: its weights take 3.1 GiB as float32".
inline std::string weights_text(const Arguments& arguments, const Inputs& inputs) {
  return written("--shape", *arguments.shape) + ": its weights take " +
         pare::detail::format_text("%.1f", weight_bytes(inputs) / double(1 << 30)) + " GiB as " +
         pare::dtype_word(inputs.dtype);
}

/// Refuses random weights that do not fit into the host's memory; a device says itself.
inline void require_memory(const Arguments& arguments, const Inputs& inputs) {
  if (arguments.backend == "cuda") return;
  const std::optional<double> available = available_memory();
  if (available && weight_bytes(inputs) > *available)
    throw usage_error(weights_text(arguments, inputs) + ", " +
                      pare::detail::format_text("%.1f", *available / double(1 << 30)) +
                      " GiB of memory are free; write a smaller shape");
}

/// Loads the model. Random weights that do not fit say how large they are.
inline std::unique_ptr<Model> load_model(const NamedBackend& backend, const ModelSource& source,
                                         const Arguments& arguments, const Inputs& inputs) {
  try {
    return backend.load_model(source);
  } catch (const std::bad_alloc&) {
    if (!arguments.shape) throw;
    throw usage_error(weights_text(arguments, inputs) +
                      ", for which there is not enough memory; write a smaller shape");
  }
}

/// @param request  what is compressed; null when nothing is
/// @param source   gets the type that the model is stored in
inline Inputs read_inputs(const Arguments& arguments, const std::vector<NamedFile>& evaluations,
                          const NamedBackend& backend, const pare::CompressionRequest* request,
                          ModelSource& source) {
  Inputs inputs;
  const fs::path folder = arguments.model;
  if (request != nullptr && !arguments.shape) require_dense_model(arguments.model);
  inputs.config =
      arguments.shape ? pare::named_shape(*arguments.shape) : pare::load_architecture(folder);
  check_against_config(arguments, inputs.config, request);
  inputs.seqlen = arguments.seqlen.value_or(pare::default_seqlen(inputs.config));
  inputs.evaluation = {.seqlen = inputs.seqlen,
                       .stride = arguments.window_stride,
                       .max_windows = arguments.max_windows};
  if (!arguments.dtype && !arguments.shape && backend.stores(pare::DType::bf16) &&
      pare::checkpoint_dtype(folder) == pare::DType::bf16)
    source.dtype = pare::DType::bf16;
  inputs.dtype = source.dtype;
  if (arguments.shape) require_memory(arguments, inputs);
  const index_t asked = arguments.nsamples.value_or(128);
  if (arguments.shape && !arguments.gmp)
    inputs.windows = {pare::random_tokens(inputs.config, asked * inputs.seqlen, 2), inputs.seqlen};
  if (evaluations.empty() && arguments.calibration_text.empty()) return inputs;
  const pare::Tokenizer tokenizer = read_tokenizer(folder, inputs.config);
  inputs.leading_ids = pare::leading_ids(tokenizer, inputs.config);
  inputs.evaluation.leading = pare::window_leading_ids(tokenizer, inputs.config);
  if (!arguments.calibration_text.empty() && !arguments.gmp) {
    std::vector<std::int32_t> ids =
        pare::window_ids(read_ids(tokenizer, inputs.config, arguments.calibration_text),
                         inputs.leading_ids, inputs.config, inputs.seqlen);
    require_window(arguments.calibration_text, ids, inputs.seqlen);
    inputs.windows = pare::first_windows(std::move(ids), asked, inputs.seqlen);
  }
  for (const NamedFile& text : evaluations) {
    std::vector<std::int32_t> ids = read_ids(tokenizer, inputs.config, text.file);
    require_window(text.file, ids, inputs.seqlen);
    inputs.texts.push_back({text.name, std::move(ids)});
  }
  print_weight_notes(folder, inputs.config);
  if (const index_t count = inputs.windows.count(); count > 0 && count < asked)
    std::printf("calibration: %td windows of %td tokens, the text holds no more (asked for %td)\n",
                count, inputs.seqlen, asked);
  return inputs;
}

inline Perplexities evaluate(Model& model, const Inputs& inputs, const std::string& what) {
  const index_t calibrated =
      inputs.windows.count() > 0 ? index_t(inputs.windows.ids.size()) : 128 * inputs.seqlen;
  Perplexities result;
  for (const pare::NamedText& text : inputs.texts) {
    ProgressLine line("perplexity of the " + what + " model on " + text.name);
    const auto advance = [&](index_t done, index_t all) {
      line.advance(double(done) / double(all));
    };
    result.emplace_back(text.name,
                        model.perplexity(text.ids, inputs.evaluation, calibrated, advance));
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

/// Says where sensitivities came from.
inline void print_source(const pare::SensitivitySource& source) {
  if (source.read) {
    std::printf("sensitivities: read from %s\n", source.read->c_str());
    return;
  }
  std::printf("sensitivities: measured in %.3f s", source.seconds);
  if (source.divergence_windows > 0)
    std::printf(", the kl on %td windows", source.divergence_windows);
  std::printf("\n");
  if (source.written) std::printf("sensitivities: written to %s\n", source.written->c_str());
}

/// How linears are compressed, but for what a plan chooses.
inline pare::ModelCompressionOptions options_of(const Arguments& arguments,
                                                const pare::CompressionRequest& request) {
  return {.solver = request.solver,
          .selection = selection_of(arguments),
          .magnitude = arguments.gmp,
          .true_sequential = arguments.true_sequential,
          .asymmetric = arguments.asymmetric.value_or(0),
          .keep_zeros = arguments.flags.keep_zeros,
          .rotation = checked_rotation(arguments.flags).inputs()};
}

/// Every option in force, in the order of a report.
inline pare::Json config_json(const Arguments& arguments, const Inputs& inputs,
                              const pare::CompressionRequest& request) {
  const CompressionFlags& flags = arguments.flags;
  const auto given = [](const auto& value) { return value ? pare::Json(*value) : pare::Json(); };
  pare::Json own = pare::Json::object();
  own["model"] = arguments.shape ? pare::Json() : pare::Json(arguments.model);
  own["shape"] = given(arguments.shape);
  own["calibration_text"] = arguments.calibration_text;
  own["target_bits_per_weight"] = given(flags.target_stored_bits);
  own["sparsity_auto"] = flags.sparsity_auto;
  own["scope"] = given(flags.scope);
  own["importance"] = given(flags.importance);
  own["sensitivity"] = given(flags.sensitivity);
  own["kl_windows"] = given(flags.kl_windows);
  own["preset"] = given(arguments.preset);
  own["eval"] = arguments.evaluations;
  own["save"] = given(arguments.save);
  own["save_packed"] = given(arguments.save_packed);
  own["max_windows"] = given(arguments.max_windows);
  own["window_stride"] = given(arguments.window_stride);
  own["leading_ids"] = inputs.leading_ids;
  // Some of these follow some of the library's, which come in their own order.
  const std::pair<const char*, std::vector<const char*>> after[] = {
      {"blocksize", {"model", "shape", "calibration_text"}},
      {"gmp",
       {"target_bits_per_weight", "sparsity_auto", "scope", "importance", "sensitivity",
        "kl_windows", "preset"}},
      {"keep_zeros", {"eval", "save", "save_packed"}},
      {"family", {"max_windows", "window_stride", "leading_ids"}}};
  const pare::Json all = pare::run_config(request.policy, options_of(arguments, request),
                                          inputs.windows.count(), inputs.seqlen, inputs.config,
                                          chosen_backend(arguments.backend).name, inputs.dtype);
  pare::Json json = pare::Json::object();
  for (const auto& [key, value] : all.items()) {
    json[key] = value;
    for (const auto& [before, keys] : after)
      if (key == before)
        for (const char* name : keys) json[name] = own[name];
  }
  if (flags.group_size_auto) json["group_size_auto"] = true;
  if (flags.plan_swaps) json["plan_swaps"] = *flags.plan_swaps;
  if (flags.fused_widths) json["fused_widths"] = true;
  if (!arguments.save_as.empty()) json["save_as"] = arguments.save_as;
  if (flags.rotate) json["rotate"] = *flags.rotate;
  if (flags.rotate_seed) json["rotate_seed"] = *flags.rotate_seed;
  return json;
}

}  // namespace tool
