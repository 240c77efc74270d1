// pare-opt: compresses and evaluates OPT checkpoints.
#include <chrono>
#include <cinttypes>
#include <cstdio>

#include "opt/arguments.hpp"
#include "opt/packing.hpp"
#include "opt/verifying.hpp"

namespace {

using pare::index_t;
using tool::Arguments;
using tool::Model;
using tool::Outputs;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Progress with the time left, on standard error: one line rewritten on a terminal, otherwise a
/// line now and then, so that logs stay short.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what) : what_(std::move(what)), terminal_(::isatty(2) == 1) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }

  void advance(double share) {
    const double elapsed = seconds_since(start_);
    if (elapsed - shown_ < (terminal_ ? 0.2 : 10.0)) return;
    shown_ = elapsed;
    const double left = share > 0 ? elapsed * (1 - share) / share : 0;
    std::fprintf(stderr, "%s%s: %3.0f %%, %.0f s left%s", terminal_ ? "\r\033[K" : "",
                 what_.c_str(), 100 * share, left, terminal_ ? "" : "\n");
    std::fflush(stderr);
    dirty_ = terminal_;
  }
  void clear() {
    if (dirty_) std::fputs("\r\033[K", stderr);
    dirty_ = false;
  }

 private:
  std::string what_;
  bool terminal_, dirty_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double shown_ = 0;
};

using Perplexities = std::vector<std::pair<std::string, double>>;

/// A model folder's configuration and texts, read and checked before any long work.
struct Inputs {
  pare::OptConfig config;
  index_t seqlen = 0;
  pare::CalibrationWindows windows;
  std::vector<std::pair<std::string, std::vector<std::int32_t>>> texts;
};

/// @param request  what is compressed; null when nothing is
Inputs read_inputs(const Arguments& arguments, const std::vector<tool::EvaluationText>& evaluations,
                   const pare::CompressionRequest* request) {
  Inputs inputs;
  const tool::fs::path folder = arguments.model;
  if (request != nullptr && !arguments.shape)
    tool::require_dense_model(arguments.model);
  inputs.config =
      arguments.shape ? pare::opt_shape(*arguments.shape) : pare::load_opt_config(folder);
  tool::check_against_config(arguments, inputs.config, request);
  inputs.seqlen = arguments.seqlen.value_or(inputs.config.max_position_embeddings);
  const index_t asked = arguments.nsamples.value_or(128);
  if (arguments.shape && !arguments.gmp)
    inputs.windows = {pare::random_tokens(inputs.config, asked * inputs.seqlen, 2), inputs.seqlen};
  if (evaluations.empty() && arguments.calibration_text.empty()) return inputs;
  const pare::Tokenizer tokenizer = tool::load_tokenizer(folder, inputs.config);
  if (!arguments.calibration_text.empty() && !arguments.gmp) {
    std::vector<std::int32_t> ids =
        tool::read_tokens(arguments.calibration_text, tokenizer, inputs.config);
    tool::require_window(arguments.calibration_text, ids, inputs.seqlen);
    const index_t count = std::min(asked, index_t(ids.size()) / inputs.seqlen);
    ids.resize(std::size_t(count * inputs.seqlen));
    inputs.windows = {std::move(ids), inputs.seqlen};
  }
  for (const tool::EvaluationText& text : evaluations) {
    std::vector<std::int32_t> ids = tool::read_tokens(text.file, tokenizer, inputs.config);
    tool::require_window(text.file, ids, inputs.seqlen);
    inputs.texts.emplace_back(text.name, std::move(ids));
  }
  if (const index_t count = inputs.windows.count(); count > 0 && count < asked)
    std::printf("calibration: %td windows of %td tokens, the text holds no more (asked for %td)\n",
                count, inputs.seqlen, asked);
  return inputs;
}

Perplexities evaluate(const Model& model, const Inputs& inputs, const std::string& what) {
  Perplexities result;
  for (const auto& [name, ids] : inputs.texts) {
    ProgressLine line("perplexity of the " + what + " model on " + name);
    result.emplace_back(name, model.perplexity(ids, inputs.seqlen, [&](index_t done, index_t all) {
      line.advance(double(done) / double(all));
    }));
  }
  return result;
}

void print_perplexities(const Perplexities& perplexities, const char* what) {
  for (const auto& [name, value] : perplexities)
    std::printf("perplexity of the %s model on %s: %.3f\n", what, name.c_str(), value);
  std::fflush(stdout);
}

pare::Json to_json(const Perplexities& perplexities) {
  pare::Json json = pare::Json::object();
  for (const auto& [name, value] : perplexities) json[name] = value;
  return json;
}

/// What a plan is made from: read from --sensitivity when the file is there, otherwise measured.
pare::Sensitivities sensitivities(Model& model, const Inputs& inputs, const Arguments& arguments,
                                  const tool::PlanRequest& plan) {
  pare::SensitivityOptions options = plan.sensitivity;
  options.selection = tool::selection_of(arguments);
  const std::optional<std::string>& file = arguments.flags.sensitivity;
  std::error_code error;
  if (file && tool::fs::exists(*file, error)) {
    const pare::Sensitivities kept = [&] {
      try {
        const std::string text = pare::detail::read_whole_file(*file);
        const pare::Sensitivities read = pare::sensitivities_of_json(text);
        pare::require_measured_for(read, model.fingerprint(), inputs.windows, options);
        return read;
      } catch (const pare::format_error& e) {
        throw pare::format_error(*file + ": " + e.what());
      } catch (const pare::argument_error& e) {
        throw tool::usage_error("--sensitivity " + *file + ": " + e.what() +
                                "; name another file to measure anew");
      }
    }();
    std::printf("sensitivities: read from %s\n", file->c_str());
    return kept;
  }
  const auto start = std::chrono::steady_clock::now();
  pare::Sensitivities measured = [&] {
    ProgressLine line("measuring sensitivities");
    return model.measure(inputs.windows, options, [&](double share) { line.advance(share); });
  }();
  std::printf("sensitivities: measured in %.3f s", seconds_since(start));
  if (measured.divergence_windows > 0)
    std::printf(", the kl on %td windows", measured.divergence_windows);
  std::printf("\n");
  if (file) {
    tool::write_report(*file, pare::to_json(measured));
    std::printf("sensitivities: written to %s\n", file->c_str());
  }
  return measured;
}

/// @param plan    none: every linear chooses by itself what the request says
/// @param packed  receives every linear packed, when it is not null
pare::Statistics compress(Model& model, const Inputs& inputs, const Arguments& arguments,
                          const pare::CompressionRequest& request, const pare::ModelPlan* plan,
                          bool lines, const std::string& what,
                          pare::PackedLinears* packed = nullptr) {
  ProgressLine progress(what);
  pare::CompressionProgress callbacks;
  if (packed != nullptr)
    callbacks.linear_packed = [packed](const std::string& tensor, pare::PackedLinear&& linear) {
      packed->insert_or_assign(tensor, std::move(linear));
    };
  callbacks.advanced = [&](double share) { progress.advance(share); };
  if (lines)
    callbacks.linear_done = [&](const pare::LayerStatistics& layer) {
      progress.clear();
      std::printf("%s\n", pare::layer_line(layer).c_str());
      std::fflush(stdout);
    };
  pare::ModelCompressionOptions options{.solver = request.solver,
                                        .selection = tool::selection_of(arguments),
                                        .magnitude = arguments.gmp,
                                        .true_sequential = arguments.true_sequential,
                                        .asymmetric = arguments.asymmetric.value_or(0)};
  if (plan == nullptr) return model.compress(request, inputs.windows, options, callbacks);
  options.solver = {.grid = request.solver.grid,
                    .damping = request.solver.damping,
                    .block_size = request.solver.block_size,
                    .act_order = request.solver.act_order};
  return model.compress(*plan, inputs.windows, options, callbacks);
}

/// Every option in force.
pare::Json config_json(const Arguments& arguments, const Inputs& inputs,
                       const pare::CompressionRequest& request) {
  pare::Json json = tool::to_json(request);
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
  const tool::CompressionFlags& flags = arguments.flags;
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
  json["eval"] = arguments.evaluations;
  json["save"] = given(arguments.save);
  json["save_packed"] = given(arguments.save_packed);
  json["half_scale"] = request.solver.grid.half_scale;
  json["backend"] = tool::chosen_backend(arguments.backend).name;
  json["dtype"] = arguments.dtype.value_or("float32");
  return json;
}

void run_compress(const Arguments& arguments) {
  pare::CompressionRequest request = tool::checked(arguments.flags);
  const std::optional<tool::PlanRequest> planned = tool::planned(arguments.flags, request);
  // A packed file holds scales as float16: the solver rounds on exactly these grids.
  request.solver.grid.half_scale = arguments.save_packed && request.quantize;
  const tool::NamedBackend backend = tool::chosen_backend(arguments.backend);
  const tool::ModelSource source = tool::source_of(arguments, backend);
  if (arguments.gmp) tool::check_magnitude(arguments);
  tool::check_windows_and_selection(arguments);
  const auto evaluations = tool::parse_evaluations(arguments.evaluations);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, &request);
  const std::unique_ptr<Model> model = backend.load_model(source);
  if (!request.quantize) std::printf("quantization is off (no --wbits): this run only prunes\n");

  const Perplexities dense = evaluate(*model, inputs, "dense");
  print_perplexities(dense, "dense");
  if (arguments.gmp)
    std::printf("magnitude pruning: no calibration\n");
  else
    std::printf("calibration: %td windows of %td tokens\n", inputs.windows.count(), inputs.seqlen);
  std::optional<pare::ModelPlan> plan;
  if (planned) {
    plan = pare::plan_bits(sensitivities(*model, inputs, arguments, *planned), planned->options);
    std::printf("%s", tool::plan_text(*plan, *planned).c_str());
  }
  std::printf("\n%s\n", pare::layer_header().c_str());
  std::fflush(stdout);
  pare::PackedLinears packed;
  const auto start = std::chrono::steady_clock::now();
  const pare::Statistics statistics = compress(*model, inputs, arguments, request,
                                               plan ? &*plan : nullptr, true, "compressing",
                                               arguments.save_packed ? &packed : nullptr);
  const double seconds = seconds_since(start);

  const std::string scores = pare::score_table(statistics);
  std::printf("\n%s%s%s", scores.c_str(), scores.empty() ? "" : "\n",
              pare::totals_text(statistics).c_str());
  std::printf("seconds in all     %.3f\n", seconds);
  const std::optional<std::size_t> device_bytes = model->peak_device_memory();
  if (device_bytes)
    std::printf("device memory      %.2f GiB at most\n", double(*device_bytes) / double(1 << 30));
  std::printf("\n");
  const Perplexities compressed = evaluate(*model, inputs, "compressed");
  print_perplexities(dense, "dense");
  print_perplexities(compressed, "compressed");

  if (outputs.save) {
    model->save(arguments.model, *outputs.save);
    std::printf("saved to %s\n", arguments.save->c_str());
  }
  if (outputs.report || outputs.save_packed) {
    pare::Json report{{"perplexity",
                       {{"dense", to_json(dense)}, {"compressed", to_json(compressed)}}}};
    report.update(pare::to_json(statistics));
    report["totals"]["solver_seconds"] = report["totals"]["seconds"];
    report["totals"]["seconds"] = seconds;
    report["totals"]["peak_device_bytes"] =
        device_bytes ? pare::Json(*device_bytes) : pare::Json(nullptr);
    report["plan"] = plan ? tool::to_json(*plan) : pare::Json(nullptr);
    report["config"] = config_json(arguments, inputs, request);
    if (outputs.save_packed) {
      tool::save_packed(packed, arguments.model, *outputs.save_packed,
                        pare::text_fingerprint(inputs.windows), report);
      std::printf("packed to %s\n", arguments.save_packed->c_str());
    }
    if (outputs.report) tool::write_report(*outputs.report, report);
  }
}

void run_evaluate(const Arguments& arguments) {
  const auto evaluations = tool::required_evaluations(arguments, "evaluate");
  const tool::NamedBackend backend = tool::chosen_backend(arguments.backend);
  const tool::ModelSource source = tool::source_of(arguments, backend);
  tool::check_windows_and_selection(arguments);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, nullptr);
  const std::unique_ptr<Model> model = backend.load_model(source);
  const Perplexities result = evaluate(*model, inputs, "given");
  for (const auto& [name, value] : result)
    std::printf("perplexity on %s: %.3f\n", name.c_str(), value);
  if (outputs.report)
    tool::write_report(*outputs.report, {{"perplexity", to_json(result)},
                                           {"config",
                                            {{"model", arguments.model},
                                             {"seqlen", inputs.seqlen},
                                             {"backend", backend.name},
                                             {"dtype", arguments.dtype.value_or("float32")}}}});
}

/// One row of the comparison.
struct Run {
  std::string name;
  std::optional<pare::CompressionRequest> request;  // none: dense
  pare::Statistics statistics = {};
  Perplexities perplexities = {};
  double seconds = 0;
  std::vector<std::uint64_t> fingerprints = {};  // of every linear's weights
};

void require_different(const std::vector<Run>& runs) {
  std::string pairs;
  for (std::size_t a = 0; a < runs.size(); ++a)
    for (std::size_t b = a + 1; b < runs.size(); ++b)
      if (runs[a].fingerprints == runs[b].fingerprints)
        pairs += (pairs.empty() ? "\"" : ", \"") + runs[a].name + "\" and \"" + runs[b].name + "\"";
  if (!pairs.empty())
    throw pare::error("different configurations gave identical weights: " + pairs +
                      "; either bits were chosen and never applied, or all scores are so alike "
                      "that the policy chose uniform bits");
}

void print_comparison(const std::vector<Run>& runs) {
  std::printf("\n%-16s", "configuration");
  for (const auto& [name, value] : runs.front().perplexities)
    std::printf(" %11s", name.substr(0, 11).c_str());
  std::printf(" %10s %9s %9s %12s\n", "mean bits", "sparsity", "seconds", "total loss");
  for (const Run& run : runs) {
    const pare::Totals t = pare::totals(run.statistics);
    std::printf("%-16s", run.name.c_str());
    for (const auto& [name, value] : run.perplexities) std::printf(" %11.3f", value);
    std::printf(" %10s %8.2f%% %9.2f %12.5g\n", pare::detail::bits_text(t.average_bits).c_str(),
                100 * t.sparsity, run.seconds, t.loss);
  }
  std::printf("\n%-28s", "loss");
  for (const Run& run : runs)
    if (run.request) std::printf(" %13s", run.name.c_str());
  std::printf("\n");
  for (std::size_t l = 0; l < runs.back().statistics.layers.size(); ++l) {
    std::printf("%-28s", runs.back().statistics.layers[l].name.c_str());
    for (const Run& run : runs)
      if (run.request) std::printf(" %13.5g", run.statistics.layers[l].loss);
    std::printf("\n");
  }
  std::fflush(stdout);
}

void run_compare(const Arguments& arguments) {
  const auto evaluations = tool::required_evaluations(arguments, "compare");
  const tool::NamedBackend backend = tool::chosen_backend(arguments.backend);
  const tool::ModelSource source = tool::source_of(arguments, backend);
  const auto request_for = [&](int wbits, std::optional<double> target, const char* method) {
    tool::CompressionFlags flags = arguments.flags;
    if (!flags.sparsity && !flags.prunen && !flags.prunem) flags.sparsity = 0.5;
    flags.wbits = wbits;
    flags.target_average_bits = target;
    if (method != nullptr)
      flags.bit_method = method;
    else
      flags.axis.reset();  // uniform bits have no channels to tell apart
    return tool::checked(flags);
  };
  std::vector<Run> runs(5);
  runs[0].name = "dense";
  runs[1] = {.name = "uniform 4", .request = request_for(4, {}, nullptr)};
  runs[2] = {.name = "quantile 4.0", .request = request_for(4, 4.0, "quantile")};
  runs[3] = {.name = "quantile 3.5", .request = request_for(4, 3.5, "quantile")};
  runs[4] = {.name = "budget 4.0", .request = request_for(4, 4.0, "budget")};
  tool::check_windows_and_selection(arguments);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, &*runs[1].request);
  for (Run& run : runs) {
    const std::unique_ptr<Model> model = backend.load_model(source);
    if (run.request) {
      const auto start = std::chrono::steady_clock::now();
      run.statistics = compress(*model, inputs, arguments, *run.request, nullptr, false, run.name);
      run.seconds = seconds_since(start);
    }
    run.perplexities = evaluate(*model, inputs, run.name);
    run.fingerprints = model->fingerprints();
    std::printf("%s: done\n", run.name.c_str());
    std::fflush(stdout);
  }
  print_comparison(runs);
  if (outputs.report) {
    pare::Json report{{"runs", pare::Json::array()}};
    for (const Run& run : runs) {
      pare::Json json{{"name", run.name},
                      {"perplexity", to_json(run.perplexities)},
                      {"seconds", run.seconds}};
      json.update(pare::to_json(run.statistics));
      json["config"] = run.request ? config_json(arguments, inputs, *run.request) : nullptr;
      report["runs"].push_back(std::move(json));
    }
    tool::write_report(*outputs.report, report);
  }
  require_different(runs);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Compresses and evaluates OPT language models.", "pare-opt"};
  app.require_subcommand(1);
  Arguments arguments;

  CLI::App& compress = *app.add_subcommand("compress", "prune and quantize a model");
  tool::add_model(compress, arguments, false);
  tool::add_compression(compress, arguments, false);
  tool::add_shape(compress, arguments);
  tool::add_bit_options(compress, arguments.flags);
  tool::add_plan_options(compress, arguments.flags);
  tool::add_preset(compress, arguments);
  tool::add_flag(compress, "--gmp", arguments.gmp,
                 "magnitude pruning and round-to-nearest instead, for comparison");
  tool::add_value(compress, "--save", arguments.save,
                  "write the compressed model to this new folder", "DIR");
  tool::add_value(compress, "--save-packed", arguments.save_packed,
                  "write it bit-packed to this new folder; grids then have float16 scales", "DIR");

  CLI::App& evaluate = *app.add_subcommand("evaluate", "measure perplexity");
  tool::add_model(evaluate, arguments);

  CLI::App& compare = *app.add_subcommand(
      "compare", "dense, uniform 4 bit, quantile 4.0, quantile 3.5 and budget 4.0 side by side");
  tool::add_model(compare, arguments);
  tool::add_compression(compare, arguments);
  tool::add_axis_option(compare, arguments.flags);

  std::string packed, output;
  CLI::App& unpack = *app.add_subcommand("unpack", "write a packed model as a dense one");
  tool::add_argument(unpack, "DIR", packed, "folder that compress --save-packed wrote");
  tool::add_argument(unpack, "OUT", output, "new folder, in the form of Hugging Face");
  CLI::App& inspect = *app.add_subcommand("inspect", "print what a packed model is made of");
  tool::add_argument(inspect, "DIR", packed, "folder that compress --save-packed wrote");

  tool::VerifyArguments verification;
  CLI::App& verify = *app.add_subcommand(
      "verify", "hold a packed model against its original and its own report");
  tool::add_argument(verify, "ORIGINAL", verification.original, "folder of the dense model");
  tool::add_argument(verify, "PACKED", verification.packed, "folder made from it");
  tool::add_argument(verify, "TEXT", verification.text,
                     "the text it was calibrated on, to compute every loss again", false);
  tool::add_backend_option(verify, verification.backend);

  return tool::run("pare-opt", [&] {
    if (!tool::parse(app, argc, argv)) return;
    if (compress.parsed()) {
      if (arguments.shape)
        tool::check_shape(arguments);
      else
        tool::require_arguments(app, compress);
      tool::apply_preset(arguments);
      run_compress(arguments);
    }
    if (evaluate.parsed()) run_evaluate(arguments);
    if (compare.parsed()) run_compare(arguments);
    if (unpack.parsed()) tool::unpack_model(packed, output);
    if (inspect.parsed()) tool::inspect_packed(packed);
    if (verify.parsed()) tool::verify_packed(verification);
  });
}
