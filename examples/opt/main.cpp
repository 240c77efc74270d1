// pare-opt: compresses and evaluates OPT checkpoints.
#include <chrono>
#include <cstdio>

#include "opt/compare.hpp"
#include "opt/packing.hpp"
#include "opt/resume.hpp"
#include "opt/table.hpp"
#include "opt/verifying.hpp"

using namespace tool;

namespace {

void run_compress(const Arguments& arguments) {
  pare::CompressionRequest request = checked(arguments.flags);
  const std::optional<PlanRequest> planned = tool::planned(arguments.flags, request);
  // A packed file holds scales as float16: the solver rounds on exactly these grids. Sensitivities
  // are measured without, so that a measurement serves both ways of saving.
  request.solver.grid.half_scale = arguments.save_packed && request.quantizes();
  const NamedBackend backend = chosen_backend(arguments.backend);
  const ModelSource source = source_of(arguments, backend);
  if (arguments.gmp) check_magnitude(arguments);
  check_windows_and_selection(arguments);
  const auto evaluations = parse_evaluations(arguments.evaluations);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, &request);
  const std::unique_ptr<Model> model = backend.load_model(source);
  std::optional<pare::Sensitivities> given;
  if (planned) given = given_sensitivities(*model, inputs, arguments, *planned);
  const KeptRun run(arguments, inputs, request, outputs);
  if (!request.quantizes()) std::printf("quantization is off (no --wbits): this run only prunes\n");

  const Perplexities dense =
      run.perplexities("dense", inputs, [&] { return evaluate(*model, inputs, "dense"); });
  print_perplexities(dense, "dense");
  if (arguments.gmp)
    std::printf("magnitude pruning: no calibration\n");
  else
    std::printf("calibration: %td windows of %td tokens\n", inputs.windows.count(), inputs.seqlen);
  std::optional<pare::ModelPlan> plan;
  if (planned) {
    const pare::Sensitivities measured = run.sensitivities(arguments.flags.sensitivity, [&] {
      return sensitivities(*model, inputs, arguments, *planned, given);
    });
    try {
      plan = pare::plan_bits(measured, planned->options);
    } catch (const pare::unattainable_error& e) {
      throw usage_error((arguments.flags.target_stored_bits ? "--target-bits-per-weight "
                                                            : "--target-avg-bits ") +
                        pare::number_text(planned->options.bits_per_weight) + ": " + e.what());
    }
    std::printf("%s", plan_text(*plan, *planned).c_str());
  }
  std::printf("\n%s\n", pare::linear_header().c_str());
  std::fflush(stdout);
  const auto start = std::chrono::steady_clock::now();
  const pare::Statistics statistics =
      compress(*model, inputs, arguments, request, plan ? &*plan : nullptr, true, "compressing",
               run.keeping());
  const double seconds = seconds_since(start);

  const std::string scores = pare::score_table(statistics);
  std::printf("\n%s%s%s", scores.c_str(), scores.empty() ? "" : "\n",
              pare::totals_text(statistics).c_str());
  std::printf("seconds in all     %.3f\n", seconds);
  std::printf("memory             %.2f GiB at most\n", peak_memory() / double(1 << 30));
  const std::optional<std::size_t> device_bytes = model->peak_device_memory();
  if (device_bytes)
    std::printf("device memory      %.2f GiB at most\n", double(*device_bytes) / double(1 << 30));
  std::printf("\n");
  const Perplexities compressed = run.perplexities("compressed", inputs, [&] {
    return evaluate(*model, inputs, "compressed");
  });
  print_perplexities(compressed, dense);

  if (outputs.save) {
    if (!run.has_saved("--save", *outputs.save, outputs.files()))
      save_model(run.folder(), arguments.model, *outputs.save, run.saving("--save"));
    std::printf("saved to %s\n", arguments.save->c_str());
  }
  if (outputs.report || outputs.save_packed) {
    pare::Json report{
        {"perplexity", {{"dense", to_json(dense)}, {"compressed", to_json(compressed)}}}};
    report.update(pare::to_json(statistics));
    report["totals"]["solver_seconds"] = report["totals"]["seconds"];
    report["totals"]["seconds"] = seconds;
    report["totals"]["peak_device_bytes"] =
        device_bytes ? pare::Json(*device_bytes) : pare::Json(nullptr);
    report["plan"] = plan ? to_json(*plan) : pare::Json(nullptr);
    report["config"] = config_json(arguments, inputs, request);
    if (outputs.save_packed) {
      const fs::path& folder = *outputs.save_packed;
      if (run.has_saved("--save-packed", folder, outputs.files()))
        report["packed"] = packed_member(folder);
      else
        save_packed(run.folder(), arguments.model, folder, pare::text_fingerprint(inputs.windows),
                    report, run.saving("--save-packed"));
      std::printf("packed to %s\n", arguments.save_packed->c_str());
    }
    if (outputs.report) write_report(*outputs.report, report);
  }
}

void run_evaluate(const Arguments& arguments) {
  const auto evaluations = required_evaluations(arguments, "evaluate");
  const NamedBackend backend = chosen_backend(arguments.backend);
  const ModelSource source = source_of(arguments, backend);
  check_windows_and_selection(arguments);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, nullptr);
  const std::unique_ptr<Model> model = backend.load_model(source);
  const Perplexities result = evaluate(*model, inputs, "given");
  for (const auto& [name, value] : result)
    std::printf("perplexity on %s: %.3f\n", name.c_str(), value);
  if (outputs.report)
    write_report(*outputs.report, {{"perplexity", to_json(result)},
                                   {"config",
                                    {{"model", arguments.model},
                                     {"seqlen", inputs.seqlen},
                                     {"backend", backend.name},
                                     {"dtype", arguments.dtype.value_or("float32")}}}});
}

}  // namespace

int main(int argc, char** argv) {
  // Called by its other name, pare, it goes by that.
  const bool short_name = argc > 0 && fs::path(argv[0]).filename() == "pare";
  const std::string program = short_name ? "pare" : "pare-opt";
  CLI::App app{"Compresses and evaluates language models", program};
  app.require_subcommand(1);
  Arguments arguments;

  CLI::App& compress = *app.add_subcommand("compress", "prune and quantize a model");
  add_model(compress, arguments, Need::asked);
  add_compression(compress, arguments, ", or auto with --target-bits-per-weight", Need::asked);
  add_shape(compress, arguments);
  add_bit_options(compress, arguments.flags);
  add_plan_options(compress, arguments.flags);
  add_preset(compress, arguments);
  begin_group(compress, "Solver");
  add_flag(compress, "--gmp", arguments.gmp,
           "magnitude pruning and round-to-nearest instead, for comparison");
  begin_group(compress, "Results");
  add_value(compress, "--save", arguments.save, "write the compressed model to this new folder",
            "DIR");
  add_value(compress, "--save-packed", arguments.save_packed,
            "write it bit-packed to this new folder; grids then have float16 scales", "DIR");
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
  add_comparison(compare, arguments);
  compare.footer("The whole model is in memory.");

  std::string packed, output;
  CLI::App& unpack = *app.add_subcommand("unpack", "write a packed model as a dense one");
  add_argument(unpack, "DIR", packed, "folder that compress --save-packed wrote");
  add_argument(unpack, "OUT", output, "new folder, in the form of Hugging Face");
  CLI::App& inspect = *app.add_subcommand("inspect", "print what a packed model is made of");
  add_argument(inspect, "DIR", packed, "folder that compress --save-packed wrote");

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

  return tool::run(program, [&] {
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
      run_compare(arguments);
    }
    if (unpack.parsed()) unpack_model(packed, output);
    if (table.parsed()) print_table(reports);
    if (inspect.parsed()) inspect_packed(packed);
    if (verify.parsed()) verify_packed(verification);
  });
}
