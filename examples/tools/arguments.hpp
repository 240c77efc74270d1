// What the commands of pare read from the command line, and its checks.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "backends/choice.hpp"
#include "pare/core/text.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/compress.hpp"
#include "tools/model_io.hpp"
#include "tools/planning.hpp"

namespace tool {

/// What the three commands read from the command line.
struct Arguments {
  std::string model, calibration_text;
  std::vector<std::string> evaluations, save_as;
  std::optional<index_t> seqlen, max_windows, window_stride, nsamples, first_layer, last_layer;
  std::optional<std::string> prune_only, save, save_packed, report, backend, dtype, precision,
      shape, preset, budgets, plot, checkpoint;
  std::optional<double> asymmetric;
  std::optional<std::string> embeddings;
  bool invert = false, gmp = false, true_sequential = false, widen = false;
  CompressionFlags flags;
};

/// @param need  Need::asked where there is another way to name a model
inline void add_model(CLI::App& command, Arguments& arguments, Need need = Need::always) {
  add_argument(command, "MODEL", arguments.model, "Hugging Face folder of a model", need);
  begin_group(command, "Texts");
  add_values(command, "--eval", arguments.evaluations,
             "a text to measure perplexity on, and the name to report it by; give it for each text",
             "NAME=FILE");
  add_value(command, "--seqlen", arguments.seqlen,
            "tokens per window (default: 2048, or the model's positions where these are fewer)");
  add_value(command, "--max-windows", arguments.max_windows,
            "windows of each text to measure perplexity on (default: all)");
  add_value(command, "--window-stride", arguments.window_stride,
            "tokens from one of these windows to the next (default: --seqlen, no overlap); where "
            "windows overlap, what an earlier one predicted does not count");
  begin_group(command, "Results");
  add_value(command, "--report", arguments.report, "write a JSON report to this file", "FILE");
  begin_group(command, "Computing");
  add_backend_option(command, arguments.backend);
  add_value(command, "--dtype", arguments.dtype,
            "what the model is stored in while it is worked on: float32, float16 or bfloat16 "
            "(default: bfloat16 for such a checkpoint on cuda, otherwise float32)",
            "TEXT", "a run has one type of storage");
  add_precision_option(command, arguments.precision);
}

/// @param pruning  what --help says of --sparsity besides
inline void add_compression(CLI::App& command, Arguments& arguments, const std::string& pruning,
                            Need need = Need::always) {
  add_argument(command, "CALIB_TEXT", arguments.calibration_text,
               "text to calibrate on, or JSON lines with a field text", need);
  begin_group(command, "Texts");
  add_value(command, "--nsamples", arguments.nsamples, "calibration windows (default: 128)");
  add_solver_options(command, arguments.flags, pruning);
  add_flag(command, "--true-sequential", arguments.true_sequential,
           "calibrate linears after the compressed ones before them in their own layer, too");
  add_value(command, "--asymmetric", arguments.asymmetric,
            "share of the correction of weights towards the dense model on its own inputs, 0..1 "
            "(default: 0)");
  begin_group(command, "Linears");
  add_value(command, "--minlayer", arguments.first_layer, "first decoder layer to compress");
  add_value(command, "--maxlayer", arguments.last_layer, "decoder layer to stop before");
  add_value(command, "--prune-only", arguments.prune_only,
            "compress only linears whose name holds this");
  add_flag(command, "--invert", arguments.invert, "compress the linears not selected instead");
}

inline void add_shape(CLI::App& command, Arguments& arguments) {
  begin_group(command, "Computing");
  add_value(command, "--shape", arguments.shape,
            "instead of MODEL and CALIB_TEXT: random weights of this shape and random tokens, to "
            "measure a machine; " +
                one_of(pare::shape_names()),
            "TEXT", "a run has one model");
}

inline void add_preset(CLI::App& command, Arguments& arguments) {
  begin_group(command, "Presets");
  add_value(
      command, "--preset", arguments.preset,
      "best: --act-order --clip-search --true-sequential --asymmetric 0.5, with a target --scope "
      "model, where weights are pruned --mask-search admm, otherwise and with --sparsity auto "
      "--rotate full (with --save-as folded, or none under a target of stored bits; none in "
      "compare); fast: --act-order; both, where weights are rounded: --group-size auto, but with "
      "best and --sparsity auto 0; what is given besides goes first");
}

inline void add_comparison(CLI::App& command, Arguments& arguments) {
  begin_group(command, "Widths");
  add_axis_option(command, arguments.flags);
  add_value(command, "--budgets", arguments.budgets,
            "mean code bits per weight to compare at, with commas (default: 4.0,3.5)", "LIST",
            "a run has one list of budgets");
  begin_group(command, "Results");
  add_value(command, "--plot", arguments.plot,
            "draw the frontier and the widths into this folder, with gnuplot", "DIR");
  begin_group(command, "Plan of widths");
  add_sensitivity_options(command, arguments.flags);
  add_preset(command, arguments);
}

namespace detail {

/// What `best` says of masks and rotations: a mask is found by search, in the basis of the model,
/// where more weights are near zero; without one, and where a plan chooses which linears have one, the
/// inputs are rotated. Formats of other programs have no seeds: what they hold is rotated in the
/// weights, unless a target would pay for the head.
inline void apply_best_basis(Arguments& arguments, bool compares) {
  CompressionFlags& flags = arguments.flags;
  const bool prunes = flags.sparsity.value_or(compares ? 0.5 : 0) > 0 || flags.sparsity_auto ||
                      flags.prunen.has_value();
  if (prunes && !flags.mask_search && !flags.refine) flags.mask_search = "admm";
  const bool rotates = !prunes || flags.sparsity_auto;
  if (rotates && !compares && !flags.rotate && !flags.keep_zeros && !arguments.shape) {
    if (arguments.save_as.empty())
      flags.rotate = "full";
    else if (!flags.target_stored_bits)
      flags.rotate = "folded";
  }
}

}  // namespace detail

/// Fills in what a preset says and the command line does not.
/// @param compares  for compare, which rounds weights whatever its options say, prunes half of them
///                  unless told otherwise, and rotates nothing
inline void apply_preset(Arguments& arguments, bool compares = false) {
  if (!arguments.preset) return;
  if (*arguments.preset != "best" && *arguments.preset != "fast")
    throw unknown_value("--preset", *arguments.preset, "preset", {"best", "fast"});
  CompressionFlags& flags = arguments.flags;
  const bool quantizes = compares || flags.wbits.value_or(16) != 16;
  const bool best = *arguments.preset == "best";
  flags.act_order = true;
  // The masks and the KL of a pattern are measured with groups of one size: patterns chosen together
  // with groups lose.
  if (best && flags.sparsity_auto && !flags.group_size_auto && !flags.group_size)
    flags.group_size = 0;
  if (quantizes && !flags.group_size) flags.group_size_auto = true;
  if (!best) return;
  arguments.true_sequential = true;
  if (quantizes) flags.clip_search = true;
  if (!arguments.asymmetric) arguments.asymmetric = 0.5;
  detail::apply_best_basis(arguments, compares);
  const bool has_target = flags.target_average_bits || flags.target_stored_bits;
  if (has_target && !flags.scope && !flags.importance && !flags.bit_method) flags.scope = "model";
}

/// Checks --shape, which stands for a model and a text.
inline void check_shape(const Arguments& arguments) {
  const std::string shape = written("--shape", *arguments.shape);
  const std::vector<std::string> known = pare::shape_names();
  if (std::find(known.begin(), known.end(), *arguments.shape) == known.end())
    throw unknown_value("--shape", *arguments.shape, "shape", known);
  if (!arguments.model.empty())
    throw usage_error(shape + " with " + arguments.model +
                      ": weights and tokens are random then; leave one of them out");
  if (!arguments.evaluations.empty())
    throw usage_error(shape + " with --eval " + arguments.evaluations.front() +
                      ": random weights have no vocabulary to read a text with; leave one of them "
                      "out");
  if (arguments.checkpoint)
    throw usage_error(shape + " with --checkpoint " + *arguments.checkpoint +
                      ": random weights are made anew in memory; leave one of them out");
  for (const auto& [option, folder] :
       {std::pair{"--save", &arguments.save}, {"--save-packed", &arguments.save_packed}})
    if (*folder)
      throw usage_error(shape + " with " + option + " " + **folder +
                        ": there is no folder to take the model's other files from; leave one of "
                        "them out");
  if (!arguments.save_as.empty())
    throw usage_error(shape + " with --save-as " + arguments.save_as.front() +
                      ": there is no folder to take the model's other files from; leave one of "
                      "them out");
}

/// Where the model comes from, checked before anything is read. Chooses the precision of the run.
/// @throws usage_error for a type that is not known or that the backend does not store
inline ModelSource source_of(const Arguments& arguments, const NamedBackend& backend) {
  std::error_code error;
  const std::string& text = arguments.calibration_text;
  if (!text.empty() && fs::is_regular_file(arguments.model, error) && fs::is_directory(text, error))
    throw usage_error("MODEL " + arguments.model + " CALIB_TEXT " + text +
                      ": MODEL is a file and CALIB_TEXT a folder; write them in the other order");
  ModelSource source{.folder = arguments.model};
  if (arguments.shape) source.random = pare::named_shape(*arguments.shape);
  if (arguments.dtype) source.dtype = dtype_of(*arguments.dtype, backend);
  choose_precision(arguments.precision, backend);
  return source;
}

inline pare::LinearSelection selection_of(const Arguments& arguments) {
  pare::LinearSelection selection;
  selection.first_layer = arguments.first_layer.value_or(selection.first_layer);
  selection.last_layer = arguments.last_layer.value_or(selection.last_layer);
  selection.name_part = arguments.prune_only.value_or("");
  selection.invert = arguments.invert;
  return selection;
}

/// The options that select linears, as they were written.
inline std::string selection_text(const Arguments& arguments) {
  std::string text;
  const auto append = [&](const std::string& option) {
    text += (text.empty() ? "" : " ") + option;
  };
  if (arguments.first_layer) append("--minlayer " + std::to_string(*arguments.first_layer));
  if (arguments.last_layer) append("--maxlayer " + std::to_string(*arguments.last_layer));
  if (arguments.prune_only) append("--prune-only " + *arguments.prune_only);
  if (arguments.invert) append("--invert");
  return text;
}

/// Checks what needs the command line alone about windows and selected linears.
inline void check_windows_and_selection(const Arguments& arguments) {
  if (arguments.asymmetric && !(*arguments.asymmetric >= 0 && *arguments.asymmetric <= 1))
    throw usage_error("--asymmetric " + pare::number_text(*arguments.asymmetric) +
                      ": it is a share of the whole correction; write one within 0..1, for "
                      "instance --asymmetric 0.5");
  if (arguments.seqlen && *arguments.seqlen < 2)
    throw usage_error("--seqlen " + std::to_string(*arguments.seqlen) +
                      ": in a window each token but the first is predicted; write 2 or more");
  if (arguments.max_windows && *arguments.max_windows < 1)
    throw usage_error("--max-windows " + std::to_string(*arguments.max_windows) +
                      ": there is nothing to measure on; write 1 or more");
  if (arguments.window_stride && *arguments.window_stride < 1)
    throw usage_error("--window-stride " + std::to_string(*arguments.window_stride) +
                      ": windows begin one after the other; write 1 or more");
  if (arguments.evaluations.empty() && (arguments.max_windows || arguments.window_stride))
    throw usage_error(std::string(arguments.max_windows ? "--max-windows" : "--window-stride") +
                      " without --eval: there is no text to measure perplexity on; add --eval "
                      "NAME=FILE or leave it out");
  if (arguments.nsamples && *arguments.nsamples < 1)
    throw usage_error("--nsamples " + std::to_string(*arguments.nsamples) +
                      ": there is nothing to calibrate on; write 1 or more");
  if (arguments.first_layer && *arguments.first_layer < 0)
    throw usage_error("--minlayer " + std::to_string(*arguments.first_layer) +
                      ": layers are counted from 0; write 0 or more");
  if (arguments.last_layer && *arguments.last_layer <= arguments.first_layer.value_or(0))
    throw usage_error(selection_text(arguments) +
                      ": the range is empty, layers minlayer <= i < maxlayer are compressed; write "
                      "a larger --maxlayer");
  if (arguments.prune_only && arguments.prune_only->empty())
    throw usage_error(
        "--prune-only \"\": every name holds an empty text; write a part of a name, "
        "for instance fc1, or leave it out");
  if (arguments.invert && !arguments.first_layer && !arguments.last_layer && !arguments.prune_only)
    throw usage_error(
        "--invert alone: without it everything is selected, so nothing would be; add "
        "--minlayer, --maxlayer or --prune-only");
}

/// Magnitude pruning ignores what calibrates; such options are refused.
inline void check_magnitude(const Arguments& arguments) {
  struct Unused {
    bool given;
    const char *option, *why;
  };
  const CompressionFlags& flags = arguments.flags;
  for (const Unused& unused :
       {Unused{detail::equal_shares(flags), "--bit-method",
               "reads no activations to score channels by"},
        Unused{flags.target_average_bits.has_value(), "--target-avg-bits",
               "reads no activations to score channels by"},
        Unused{flags.target_stored_bits.has_value(), "--target-bits-per-weight",
               "reads no activations to plan by"},
        Unused{flags.act_order, "--act-order", "has no Hessian to order by"},
        Unused{flags.percdamp.has_value(), "--percdamp", "has no Hessian to damp"},
        Unused{flags.blocksize.has_value(), "--blocksize", "takes the whole linear as one block"},
        Unused{arguments.true_sequential, "--true-sequential", "calibrates nothing"},
        Unused{arguments.asymmetric.has_value(), "--asymmetric", "corrects nothing"},
        Unused{arguments.nsamples.has_value(), "--nsamples", "reads no calibration text"},
        Unused{arguments.seqlen && arguments.evaluations.empty(), "--seqlen",
               "reads no calibration text, and no --eval is given"}})
    if (unused.given)
      throw usage_error(std::string("--gmp with ") + unused.option + ": magnitude pruning " +
                        unused.why + "; leave one of them out");
}

/// Checks what needs the model's configuration alone.
/// @param request  what is compressed; null when nothing is
inline void check_against_config(const Arguments& arguments, const pare::Architecture& config,
                                 const pare::CompressionRequest* request) {
  if (arguments.seqlen && !config.extrapolates() &&
      *arguments.seqlen > config.max_position_embeddings)
    throw usage_error("--seqlen " + std::to_string(*arguments.seqlen) + ": the model has " +
                      std::to_string(config.max_position_embeddings) +
                      " positions; write at most that");
  if (request == nullptr) return;
  const index_t layers = config.num_hidden_layers;
  const std::string has = ": the model has " + std::to_string(layers) + " layers";
  if (arguments.first_layer && *arguments.first_layer >= layers)
    throw usage_error("--minlayer " + std::to_string(*arguments.first_layer) + has +
                      ", counted from 0; write at most " + std::to_string(layers - 1));
  if (arguments.last_layer && *arguments.last_layer > layers)
    throw usage_error("--maxlayer " + std::to_string(*arguments.last_layer) + has +
                      "; write at most " + std::to_string(layers) + " or leave it out");
  const pare::LinearSelection selection = selection_of(arguments);
  bool named = false, selected = false;
  for (index_t i = 0; i < layers; ++i)
    for (std::size_t l = 0; l < config.linears.size(); ++l) {
      const std::string name = pare::linear_names(config, i)[l];
      named |= name.find(selection.name_part) != std::string::npos;
      if (!selection.selects(i, name)) continue;
      selected = true;
      require_whole_runs(*request, name, pare::columns_of(config, config.linears[l].role));
    }
  const std::string example = pare::linear_names(config, 0).front();
  if (!named) {
    std::vector<std::string> parts;
    for (const pare::LinearSpec& linear : config.linears) parts.push_back(linear.name);
    throw usage_error("--prune-only " + selection.name_part +
                      ": no linear's name holds it; names are like " + example +
                      did_you_mean(selection.name_part, parts));
  }
  if (!selected)
    throw usage_error(selection_text(arguments) + ": together they select no linear; names are " +
                      "like " + example);
}

/// The texts of a command whose purpose is to measure perplexity.
inline std::vector<NamedFile> required_evaluations(const Arguments& arguments,
                                                   const char* command) {
  if (arguments.evaluations.empty())
    throw usage_error(std::string(command) +
                      " without --eval: there is no text to measure perplexity on; add --eval "
                      "NAME=FILE");
  return parse_evaluations(arguments.evaluations);
}

}  // namespace tool
