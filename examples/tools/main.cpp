// pare: compresses and evaluates checkpoints of language models.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "tools/compare.hpp"
#include "tools/exporting.hpp"
#include "tools/identity.hpp"
#include "tools/packing.hpp"
#include "tools/rotating.hpp"
#include "tools/table.hpp"
#include "tools/verifying.hpp"

using namespace tool;

namespace {

/// What a run tells while it is at work.
class Printed {
 public:
  Printed(const Arguments& arguments, const Inputs& inputs, const pare::FolderCompression& job)
      : arguments_(arguments), inputs_(inputs), job_(job) {}

  pare::FolderProgress progress() {
    return {.reached = [this](pare::FolderStep step,
                              const pare::FolderResult& result) { reached(step, result); },
            .advanced = [this](const std::string& what, double share) { advanced(what, share); },
            .linear_done =
                [this](const pare::LinearStatistics& linear) {
                  if (line_) line_->clear();
                  std::printf("%s\n", pare::linear_line(linear).c_str());
                  std::fflush(stdout);
                }};
  }

 private:
  void advanced(const std::string& what, double share) {
    if (share >= 1) return line_.reset();
    if (!line_) line_.emplace(what);
    line_->advance(share);
  }

  void reached(pare::FolderStep step, const pare::FolderResult& result) {
    switch (step) {
      case pare::FolderStep::opened:
        if (result.resumed > 0)
          std::printf("going on in %s: %td of %td layers are finished\n",
                      arguments_.checkpoint->c_str(), result.resumed,
                      inputs_.config.num_hidden_layers);
        if (!job_.options.solver.bits)
          std::printf("quantization is off (no --wbits): this run only prunes\n");
        break;
      case pare::FolderStep::measured:
        print_perplexities(result.dense, "dense");
        if (arguments_.gmp)
          std::printf("magnitude pruning: no calibration\n");
        else
          std::printf("calibration: %td windows of %td tokens\n", inputs_.windows.count(),
                      inputs_.seqlen);
        break;
      case pare::FolderStep::sensitivities:
        print_source(result.sensitivities);
        break;
      case pare::FolderStep::planned:
        std::printf("%s", plan_text(*result.plan, *job_.plan).c_str());
        break;
      case pare::FolderStep::swapped:
        std::printf("%s", swaps_text(*result.swapped).c_str());
        break;
      case pare::FolderStep::compressing:
        std::printf("\n%s\n", pare::linear_header().c_str());
        break;
      case pare::FolderStep::compressed:
        print_totals(result);
        break;
      case pare::FolderStep::evaluated:
        print_perplexities(result.compressed, result.dense);
        break;
      case pare::FolderStep::saved:
        print_left_out(arguments_.model, result.left_out);
        std::printf("saved to %s\n", arguments_.save->c_str());
        break;
      case pare::FolderStep::packed:
        print_left_out(arguments_.model, result.left_out);
        std::printf("packed to %s\n", arguments_.save_packed->c_str());
        break;
      case pare::FolderStep::exported:
        print_left_out(arguments_.model, result.exports.back().left_out);
        print_export(result.exports.back(), job_.save_as[result.exports.size() - 1].folder);
        break;
    }
    std::fflush(stdout);
  }

  static void print_totals(const pare::FolderResult& result) {
    const std::string scores = pare::score_table(result.statistics);
    std::printf("\n%s%s%s", scores.c_str(), scores.empty() ? "" : "\n",
                pare::totals_text(result.statistics).c_str());
    std::printf("seconds in all     %.3f\n", result.seconds);
    std::printf("memory             %.2f GiB at most\n", peak_memory() / double(1 << 30));
    if (result.peak_device_bytes)
      std::printf("device memory      %.2f GiB at most\n",
                  double(*result.peak_device_bytes) / double(1 << 30));
    std::printf("\n");
  }

  const Arguments& arguments_;
  const Inputs& inputs_;
  const pare::FolderCompression& job_;
  std::optional<ProgressLine> line_;
};

void run_compress(const Arguments& arguments) {
  pare::CompressionRequest request = checked(arguments.flags);
  std::optional<pare::FolderPlan> plan = tool::planned(arguments.flags, request);
  const Rotating rotating = checked_rotation(arguments.flags);
  check_rotation(arguments, rotating, plan.has_value());
  const std::vector<pare::SavedAs> formats = saved_as(arguments);
  if (!formats.empty() && !request.quantizes())
    throw usage_error("--save-as " + arguments.save_as.front() +
                      " without --wbits: the format holds quantized linears; add --wbits, or write "
                      "--save");
  // A packed file holds scales as float16: the solver rounds on exactly these grids. Sensitivities
  // are measured without, so that a measurement serves every way of saving.
  request.solver.grid.half_scale =
      (arguments.save_packed || !formats.empty()) && request.quantizes();
  const NamedBackend backend = chosen_backend(arguments.backend);
  ModelSource source = source_of(arguments, backend);
  if (arguments.gmp) check_magnitude(arguments);
  check_windows_and_selection(arguments);
  const auto evaluations = parse_evaluations(arguments.evaluations);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, backend, &request, source);
  if (plan && arguments.flags.fused_widths)
    for (index_t i = 0; i < inputs.config.num_hidden_layers; ++i)
      for (std::vector<std::string>& set : pare::fused_linears(inputs.config, i))
        plan->options.together.push_back(std::move(set));
  if (!formats.empty())
    request.solver.grid.scale_digits =
        pare::fitted_scale_digits(formats, arguments.model, options_of(arguments, request),
                                  request.policy, plan);
  pare::Json config = config_json(arguments, inputs, request);
  std::optional<RotatedFolder> rotated;  // what is compressed in place of the model
  if (rotating.kind == Rotating::folded) {
    rotated.emplace(outputs);
    config["rotation"] = fold_into(backend, arguments.model, rotated->path(), rotating.seed);
    source.folder = rotated->path();
  }
  const std::unique_ptr<Model> model = load_model(backend, source, arguments, inputs);

  pare::FolderCompression job{.options = options_of(arguments, request),
                              .policy = request.policy,
                              .plan = plan,
                              .windows = inputs.windows,
                              .texts = inputs.texts,
                              .evaluation = inputs.evaluation,
                              .save = outputs.save,
                              .save_packed = outputs.save_packed,
                              .save_as = outputs.save_as,
                              .checkpoint = outputs.checkpoint,
                              .beside = outputs.files(),
                              .config = config};
  if (rotated) {
    job.beside.push_back(rotated->path());
    job.added_bits_per_weight = config["rotation"]["added_bits_per_weight"].get<double>();
  }
  if (job.checkpoint) job.identity = run_identity(arguments, inputs, request);
  Printed printed(arguments, inputs, job);
  try {
    const pare::FolderResult result =
        model->compress_folder(rotated ? rotated->path() : fs::path(arguments.model), job,
                               printed.progress());
    if (outputs.report) pare::write_json(*outputs.report, result.report);
  } catch (const pare::run_argument_error& e) {
    throw refused_option(arguments, e);
  } catch (const pare::unattainable_error& e) {
    if (!plan) throw;
    throw usage_error(
        (arguments.flags.target_stored_bits ? "--target-bits-per-weight " : "--target-avg-bits ") +
        pare::number_text(plan->options.bits_per_weight) + ": " + e.what());
  }
}

void run_evaluate(const Arguments& arguments) {
  const auto evaluations = required_evaluations(arguments, "evaluate");
  const NamedBackend backend = chosen_backend(arguments.backend);
  ModelSource source = source_of(arguments, backend);
  check_windows_and_selection(arguments);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, backend, nullptr, source);
  const std::unique_ptr<Model> model = backend.load_model(source);
  const Perplexities result = evaluate(*model, inputs, "given");
  for (const auto& [name, value] : result)
    std::printf("perplexity on %s: %.3f\n", name.c_str(), value);
  if (!outputs.report) return;
  const auto given = [](const auto& value) { return value ? pare::Json(*value) : pare::Json(); };
  pare::write_json(*outputs.report, {{"perplexity", pare::to_json(result)},
                                     {"config",
                                      {{"model", arguments.model},
                                       {"seqlen", inputs.seqlen},
                                       {"backend", backend.name},
                                       {"dtype", pare::dtype_word(inputs.dtype)},
                                       {"family", inputs.config.family},
                                       {"max_windows", given(arguments.max_windows)},
                                       {"window_stride", given(arguments.window_stride)},
                                       {"leading_ids", inputs.leading_ids}}}});
}

}  // namespace

int main(int argc, char** argv) {
  // pare-opt is a name that the program had; called by it, it goes by it.
  if (argc > 0 && fs::path(argv[0]).filename() == "pare-opt") program = "pare-opt";
  CLI::App app{"Compresses and evaluates language models", program};
  app.require_subcommand(1);
  Arguments arguments;

  CLI::App& compress = *app.add_subcommand("compress", "prune and quantize a model");
  add_model(compress, arguments, Need::asked);
  add_compression(compress, arguments, ", or auto with --target-bits-per-weight", Need::asked);
  add_shape(compress, arguments);
  add_group_options(compress, arguments.flags,
                    "; with --target-bits-per-weight the plan chooses among these and whole rows");
  add_bit_options(compress, arguments.flags);
  add_plan_options(compress, arguments.flags);
  add_rotation_options(
      compress, arguments.flags,
      "none, folded (the residual stream and the values of heads, in the weights), "
      "full (the inputs of every linear, whose weights are rotated back), or auto (full, in "
      "linears "
      "that the plan chooses)");
  add_preset(compress, arguments);
  begin_group(compress, "Solver");
  add_flag(compress, "--gmp", arguments.gmp,
           "magnitude pruning and round-to-nearest instead, for comparison");
  begin_group(compress, "Results");
  add_value(compress, "--save", arguments.save, "write the compressed model to this new folder",
            "DIR");
  add_value(compress, "--save-packed", arguments.save_packed,
            "write it bit-packed to this new folder; grids then have float16 scales", "DIR");
  add_values(compress, "--save-as", arguments.save_as,
             "write it in a format of other programs, " + one_of(export_format_names()) +
                 ", to this new folder; grids then have scales that the format holds; give it for "
                 "each format",
             "FORMAT=DIR");
  add_flag(compress, "--widen", arguments.widen,
           "with --save-as: store rows of fewer bits at the widest of their linear");
  add_value(compress, "--embeddings", arguments.embeddings,
            std::string("with --save-as: ") + embeddings_help, "TYPE", "a file has one type");
  add_value(compress, "--checkpoint", arguments.checkpoint,
            "keep finished layers in this folder; the same command goes on from them", "DIR");
  compress.footer(
      "One decoder layer is in memory at a time, but for --shape and while "
      "sensitivities are measured.");

  CLI::App& evaluate = *app.add_subcommand("evaluate", "measure perplexity");
  add_model(evaluate, arguments);

  CLI::App& compare = *app.add_subcommand(
      "compare",
      "uniform widths, quantile, budget per linear and budget for the model, side by side");
  add_model(compare, arguments);
  add_compression(compare, arguments, " (default: 0.5; 0 prunes nothing)");
  add_group_options(compare, arguments.flags);
  add_comparison(compare, arguments);
  compare.footer("The whole model is in memory.");

  std::string packed, output;
  CLI::App& unpack = *app.add_subcommand("unpack", "write a packed model as a dense one");
  add_argument(unpack, "DIR", packed, "folder that compress --save-packed wrote");
  add_argument(unpack, "OUT", output, "new folder, in the form of Hugging Face");
  ExportArguments exporting;
  CLI::App& exporter =
      *app.add_subcommand("export", "write a packed model in the format of another program");
  add_argument(exporter, "DIR", exporting.packed, "folder that compress --save-packed wrote");
  add_argument(exporter, "OUT", exporting.output, "new folder");
  add_value(exporter, "--format", exporting.format, one_of(export_format_names()), "TEXT",
            "a folder has one format");
  add_flag(exporter, "--widen", exporting.widen,
           "store rows of fewer bits at the widest of their linear");
  add_flag(
      exporter, "--fused-widths", exporting.fused_widths,
      "store q, k and v at the widest of them, and gate and up, as programs that serve a model "
      "load these as one");
  add_value(exporter, "--embeddings", exporting.embeddings, embeddings_help, "TYPE",
            "a file has one type");
  CLI::App& inspect = *app.add_subcommand("inspect", "print what a packed model is made of");
  add_argument(inspect, "DIR", packed, "folder that compress --save-packed wrote");

  CLI::App& rotate = *app.add_subcommand(
      "rotate", "write a model rotated in its weights, as compress --rotate folded compresses it");
  add_argument(rotate, "MODEL", arguments.model, "Hugging Face folder of a model");
  add_argument(rotate, "OUT", output, "new folder, in the form of Hugging Face");
  add_value(rotate, "--seed", arguments.flags.rotate_seed, "which matrices (default: 1)");
  add_backend_option(rotate, arguments.backend);

  std::vector<std::string> reports;
  CLI::App& table = *app.add_subcommand("table", "print reports side by side, a row for each");
  add_arguments(table, "REPORT", reports,
                "NAME=FILE: a row's name and what compress or compare wrote with --report");

  VerifyArguments verification;
  CLI::App& verify =
      *app.add_subcommand("verify", "hold a packed model against its original and its own report");
  add_argument(verify, "ORIGINAL", verification.original, "folder of the dense model");
  add_argument(verify, "PACKED", verification.packed, "folder made from it");
  add_argument(verify, "TEXT", verification.text,
               "the text it was calibrated on, to compute every loss again", Need::never);
  add_backend_option(verify, verification.backend);

  return tool::run([&] {
    if (!tool::parse(app, argc, argv)) return;
    if (compress.parsed()) {
      if (arguments.shape)
        check_shape(arguments);
      else
        require_arguments(app, compress);
      apply_preset(arguments);
      run_compress(arguments);
    }
    if (evaluate.parsed()) run_evaluate(arguments);
    if (compare.parsed()) {
      apply_preset(arguments, true);
      try {
        run_compare(arguments);
      } catch (const pare::run_argument_error& e) {
        throw refused_option(arguments, e);
      }
    }
    if (unpack.parsed()) unpack_model(packed, output);
    if (exporter.parsed()) export_packed(exporting);
    if (rotate.parsed())
      rotate_model(arguments.model, output, arguments.backend,
                   checked_seed("--seed", arguments.flags.rotate_seed));
    if (table.parsed()) print_table(reports);
    if (inspect.parsed()) inspect_packed(packed);
    if (verify.parsed()) verify_packed(verification);
  });
}
