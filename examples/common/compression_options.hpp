// The command-line options that describe a compression, shared by pare and pare-layer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/command_line.hpp"
#include "pare/core/text.hpp"
#include "pare/kernels/hadamard.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/report/text.hpp"

namespace tool {

/// What the command line said; unset where it said nothing.
struct CompressionFlags {
  std::optional<double> sparsity, target_average_bits, target_stored_bits, percdamp;
  std::optional<int> prunen, prunem, wbits;
  std::optional<std::string> bit_method, axis, scope, importance, sensitivity, group_fit,
      mask_search, mask_region;
  std::optional<pare::index_t> blocksize, kl_windows, group_size, plan_swaps;
  std::optional<std::string> rotate;
  std::optional<std::int64_t> rotate_seed;
  bool sparsity_auto = false, group_size_auto = false, act_order = false, clip_search = false,
       symmetric = false, keep_zeros = false, refine = false, fused_widths = false;
};

inline void add_axis_option(CLI::App& app, CompressionFlags& flags) {
  add_value(app, "--axis", flags.axis, "what a channel is: output (default) or input", "TEXT",
            "a run has one channel axis");
}

/// Options that every compression has.
/// @param pruning  what --help says of --sparsity besides; may be empty
inline void add_solver_options(CLI::App& app, CompressionFlags& flags,
                               const std::string& pruning = "") {
  begin_group(app, "Pruning");
  add_word(app, "--sparsity", "FLOAT", "share of weights to prune, [0, 1)" + pruning,
           "an option has one value", [&flags](const std::string& word) {
             flags.sparsity_auto = word == "auto";
             if (!flags.sparsity_auto && !nearest(word, {"auto"}).empty())
               throw usage_error(written("--sparsity", word) + ": expected a number or auto" +
                                 did_you_mean(word, {"auto"}));
             if (!flags.sparsity_auto) flags.sparsity = parse_value<double>("--sparsity", word);
           });
  add_value(app, "--prunen", flags.prunen, "n of n:m, zeros in every m inputs");
  add_value(app, "--prunem", flags.prunem, "m of n:m, neighbouring inputs");
  add_flag(app, "--keep-zeros", flags.keep_zeros,
           "weights that are zero already stay zero, whatever else is pruned");
  add_value(app, "--mask-search", flags.mask_search,
            "greedy (default), or admm: the mask for the whole linear at once, the weights that "
            "stay exactly; the greedy result is kept where it loses less");
  add_flag(app, "--refine", flags.refine,
           "solve the weights that the mask leaves exactly; with --keep-zeros alone, those of a "
           "model that is pruned already");
  add_value(app, "--mask-region", flags.mask_region,
            "what --mask-search admm counts a share of weights over: linear (default), row or "
            "block");
  begin_group(app, "Solver");
  add_flag(app, "--act-order", flags.act_order, "visit inputs by falling diag(H)");
  add_flag(app, "--clip-search", flags.clip_search, "search the clipping range of every grid");
  add_flag(app, "--symmetric", flags.symmetric, "symmetric grids");
  add_value(app, "--percdamp", flags.percdamp,
            "damping as a share of mean(diag H) (default: 0.01)");
  add_value(app, "--blocksize", flags.blocksize, "columns per block (default: 128)");
}

/// Options of grids per group of inputs.
/// @param planning  what --help says of --group-size besides
inline void add_group_options(CLI::App& app, CompressionFlags& flags,
                              const std::string& planning = "") {
  begin_group(app, "Groups");
  add_word(
      app, "--group-size", "INT",
      "inputs that share a grid, for instance 128 (default: 0, all of a row), or auto: in each "
      "linear the largest of 128, 64 and 32 that divides its inputs" +
          planning,
      "an option has one value", [&flags](const std::string& word) {
        flags.group_size_auto = word == "auto";
        if (!flags.group_size_auto && !nearest(word, {"auto"}).empty())
          throw usage_error(written("--group-size", word) + ": expected a whole number or auto" +
                            did_you_mean(word, {"auto"}));
        if (!flags.group_size_auto)
          flags.group_size = parse_value<pare::index_t>("--group-size", word);
      });
  add_value(app, "--group-fit", flags.group_fit,
            "what grids of groups are fitted to: dense weights (default), or compensated, as they "
            "are when the sweep reaches the group");
}

/// Options of rotations.
/// @param kinds  the values of --rotate
inline void add_rotation_options(CLI::App& app, CompressionFlags& flags, const std::string& kinds) {
  begin_group(app, "Rotation");
  add_value(app, "--rotate", flags.rotate,
            "spread outliers by orthogonal matrices before weights are rounded: " + kinds +
                " (default: none)");
  add_value(app, "--rotate-seed", flags.rotate_seed, "which matrices (default: 1)");
}

/// Which rotation a run has.
struct Rotating {
  /// What --rotate says.
  enum Kind : std::uint8_t { none, folded, full, chosen };
  Kind kind = none;
  std::uint64_t seed = 1;

  /// Of the inputs of every linear with `full`, of those that the plan chooses with `chosen`.
  std::optional<pare::kernels::HadamardRotation> inputs() const {
    if (kind != full && kind != chosen) return std::nullopt;
    return pare::kernels::HadamardRotation{seed};
  }
};

/// The seed of a rotation.
/// @param option  that gives it
/// @throws usage_error for a negative one
inline std::uint64_t checked_seed(const std::string& option,
                                  const std::optional<std::int64_t>& seed) {
  if (seed && *seed < 0)
    throw usage_error(option + " " + std::to_string(*seed) +
                      ": it is the number of a matrix; write 0 or more");
  return std::uint64_t(seed.value_or(1));
}

/// What the options of rotations say.
/// @throws usage_error for a value that is none, or would be ignored
inline Rotating checked_rotation(const CompressionFlags& flags) {
  const std::string word = flags.rotate.value_or("none");
  Rotating rotating;
  if (word == "folded")
    rotating.kind = Rotating::folded;
  else if (word == "full")
    rotating.kind = Rotating::full;
  else if (word == "auto")
    rotating.kind = Rotating::chosen;
  else if (word != "none")
    throw unknown_value("--rotate", word, "rotation", {"none", "folded", "full", "auto"});
  rotating.seed = checked_seed("--rotate-seed", flags.rotate_seed);
  if (rotating.kind == Rotating::none && flags.rotate_seed)
    throw usage_error("--rotate-seed " + std::to_string(*flags.rotate_seed) +
                      " without --rotate: nothing is rotated; add --rotate full, or leave it out");
  if (rotating.kind != Rotating::none && flags.keep_zeros)
    throw usage_error("--rotate " + word +
                      " with --keep-zeros: weights that are zero are no longer zero after a "
                      "rotation; leave one of them out");
  return rotating;
}

/// Options that choose bits.
inline void add_bit_options(CLI::App& app, CompressionFlags& flags) {
  begin_group(app, "Widths");
  add_value(app, "--wbits", flags.wbits, "base width in bits, 2..8 (16: no quantization)");
  add_value(app, "--target-avg-bits", flags.target_average_bits,
            "mean bits per channel; widths are chosen from {2,3,4,6,8}");
  add_value(app, "--bit-method", flags.bit_method,
            "quantile or budget (default: budget); quantile without a target gives each of "
            "{2,3,4,6,8} an equal share of the channels");
  add_axis_option(app, flags);
}

namespace detail {

inline void check_pattern(const CompressionFlags& flags, pare::CompressionRequest& request) {
  if (flags.prunen.has_value() != flags.prunem.has_value())
    throw usage_error(flags.prunen ? "--prunen without --prunem: n:m needs both; add --prunem 4"
                                   : "--prunem without --prunen: n:m needs both; add --prunen 2");
  if (flags.prunen && flags.sparsity)
    throw usage_error("--sparsity with --prunen: a linear has one pattern; leave one of them out");
  if (flags.prunen && !(*flags.prunen > 0 && *flags.prunen < *flags.prunem))
    throw usage_error("--prunen " + std::to_string(*flags.prunen) + " --prunem " +
                      std::to_string(*flags.prunem) +
                      ": of m weights some are pruned, not none and not all; write 0 < n < m, for "
                      "instance --prunen 2 --prunem 4");
  if (flags.sparsity && !(*flags.sparsity >= 0 && *flags.sparsity < 1))
    throw usage_error("--sparsity " + pare::number_text(*flags.sparsity) +
                      ": it is the share of weights to prune; write one within [0, 1), for "
                      "instance --sparsity 0.5");
  if (flags.prunen) {
    request.solver.zeros = flags.prunen;
    request.solver.of = flags.prunem;
  } else if (flags.sparsity && *flags.sparsity > 0) {
    request.solver.sparsity = flags.sparsity;
  }
}

inline bool has_target(const CompressionFlags& flags) {
  return flags.target_average_bits || flags.target_stored_bits;
}

/// Whether every width gets an equal share of the channels, whatever the mean.
inline bool equal_shares(const CompressionFlags& flags) {
  return flags.bit_method == "quantile" && !has_target(flags);
}

inline void check_groups(const CompressionFlags& flags, pare::CompressionRequest& request) {
  if (flags.group_size && *flags.group_size < 0)
    throw usage_error("--group-size " + std::to_string(*flags.group_size) +
                      ": a group has at least one input; write for instance --group-size 128, or 0 "
                      "for a grid per row");
  request.solver.group_size = flags.group_size.value_or(0);
  if (flags.group_size_auto) request.solver.group_size = pare::dividing_group_size;
  if (!flags.group_fit || *flags.group_fit == "dense") return;
  if (*flags.group_fit != "compensated")
    throw unknown_value("--group-fit", *flags.group_fit, "fit", {"dense", "compensated"});
  request.solver.group_fit = pare::GroupFit::compensated;
  const std::string fit = "--group-fit compensated";
  if (flags.group_size_auto && flags.target_stored_bits)
    throw usage_error(fit +
                      " with --group-size auto: a plan prices grids of dense weights; write a "
                      "number");
  if (request.solver.group_size == 0)
    throw usage_error(fit +
                      " without --group-size: the grid of a whole row is fitted before the "
                      "sweep; add --group-size 128");
  if (flags.act_order || flags.axis == "input")
    throw usage_error(fit + (flags.act_order ? " with --act-order" : " with --axis input") +
                      ": the sweep does not visit the inputs of a group one after the other; leave "
                      "one of them out");
  const pare::index_t size = pare::resolved_group_size(request.solver.group_size, 1);
  if (flags.prunem && size % *flags.prunem != 0)
    throw usage_error(fit + " with --prunem " + std::to_string(*flags.prunem) + ": --group-size " +
                      std::to_string(size) + " is no multiple of it; write one");
}

inline void check_quantizer(const CompressionFlags& flags, pare::CompressionRequest& request) {
  constexpr int off = 16;
  if (flags.wbits && *flags.wbits != off &&
      (*flags.wbits < pare::min_bits || *flags.wbits > pare::max_bits))
    throw usage_error("--wbits " + std::to_string(*flags.wbits) +
                      ": no grid has that width; write one within 2..8, or 16 for no quantization");
  if (flags.wbits && *flags.wbits != off) request.solver.bits = flags.wbits;
  const std::string no_grid = flags.wbits ? " with --wbits 16" : " without --wbits";
  if ((has_target(flags) || equal_shares(flags)) && !request.quantizes())
    throw usage_error((flags.target_average_bits  ? "--target-avg-bits"
                       : flags.target_stored_bits ? "--target-bits-per-weight"
                                                  : "--bit-method quantile") +
                      no_grid +
                      ": mixed precision needs a base quantizer, otherwise bits are chosen and "
                      "nothing is quantized; write --wbits 4");
  if ((flags.clip_search || flags.symmetric) && !request.quantizes())
    throw usage_error((flags.clip_search ? "--clip-search" : "--symmetric") + no_grid +
                      ": there is no grid to fit; write --wbits 4");
  const bool has_size = flags.group_size || flags.group_size_auto;
  if ((has_size || flags.group_fit) && !request.quantizes())
    throw usage_error((has_size ? "--group-size" : "--group-fit") + no_grid +
                      ": there is no grid to fit; write --wbits 4");
  check_groups(flags, request);
  request.solver.grid = {.symmetric = flags.symmetric, .clip_search = flags.clip_search};
}

inline void check_mixed_precision(const CompressionFlags& flags,
                                  pare::CompressionRequest& request) {
  const bool shares = equal_shares(flags);
  if (flags.bit_method && *flags.bit_method != "quantile" && *flags.bit_method != "budget")
    throw unknown_value("--bit-method", *flags.bit_method, "method", {"quantile", "budget"});
  if (flags.axis && *flags.axis != "output" && *flags.axis != "input")
    throw unknown_value("--axis", *flags.axis, "axis", {"output", "input"});
  if (flags.bit_method && !has_target(flags) && !shares)
    throw usage_error(
        "--bit-method budget without --target-avg-bits: there is no target to meet; add "
        "--target-avg-bits 4.0");
  if (flags.axis && !has_target(flags) && !shares)
    throw usage_error(
        "--axis without --target-avg-bits: channels matter to mixed precision only; "
        "add --target-avg-bits 4.0 or leave it out");
  if (flags.axis == "input") request.solver.axis = pare::ChannelAxis::input;
  if (shares) request.policy = pare::PolicyKind::quantile;
  if (!flags.target_average_bits) return;
  const std::vector<int>& tiers = pare::default_tiers();
  if (!(*flags.target_average_bits >= tiers.front() && *flags.target_average_bits <= tiers.back()))
    throw usage_error("--target-avg-bits " + pare::number_text(*flags.target_average_bits) +
                      ": tiers " + pare::tiers_text(tiers) +
                      " cannot meet it; write a target from " + std::to_string(tiers.front()) +
                      " to " + std::to_string(tiers.back()));
  request.policy =
      flags.bit_method == "quantile" ? pare::PolicyKind::quantile : pare::PolicyKind::budget;
  request.solver.target_average_bits = flags.target_average_bits;
}

inline void check_search(const CompressionFlags& flags, pare::CompressionRequest& request) {
  using pare::MaskRegion;
  const bool prunes = request.pattern().prunes() || flags.sparsity_auto;
  if (flags.mask_search && *flags.mask_search != "greedy" && *flags.mask_search != "admm")
    throw unknown_value("--mask-search", *flags.mask_search, "search", {"greedy", "admm"});
  const bool alternating = flags.mask_search == "admm";
  if (flags.mask_search && !prunes)
    throw usage_error(
        "--mask-search without a pattern: there is no mask to search for; add "
        "--sparsity 0.5, or --prunen 2 --prunem 4");
  if (flags.refine && alternating)
    throw usage_error(
        "--refine with --mask-search admm: admm solves the weights that stay "
        "exactly already; leave --refine out");
  if (flags.refine && !prunes && !flags.keep_zeros)
    throw usage_error(
        "--refine without a mask: it solves the weights that a mask leaves; add "
        "--sparsity 0.5, --prunen 2 --prunem 4, or --keep-zeros for a model that is "
        "pruned already");
  if (flags.mask_region && (!alternating || request.pattern().kind == pare::PatternKind::n_of_m))
    throw usage_error(std::string("--mask-region ") +
                      (alternating
                           ? "with --prunen: n:m counts every m inputs"
                           : "without --mask-search admm: a greedy mask counts every block") +
                      "; leave it out");
  if (alternating) request.solver.mask_search = pare::MaskSearch::alternating;
  request.solver.refine = flags.refine;
  if (!flags.mask_region) return;
  for (const MaskRegion region : {MaskRegion::linear, MaskRegion::row, MaskRegion::block})
    if (*flags.mask_region == pare::to_string(region)) request.solver.mask_region = region;
  if (!request.solver.mask_region)
    throw unknown_value("--mask-region", *flags.mask_region, "region", {"linear", "row", "block"});
}

inline void check_something_to_do(const CompressionFlags& flags,
                                  const pare::CompressionRequest& request) {
  if (request.pattern().prunes() || request.quantizes() || flags.refine) return;
  const char* what = flags.sparsity && flags.wbits ? "--sparsity 0 with --wbits 16"
                     : flags.sparsity              ? "--sparsity 0 alone"
                     : flags.wbits                 ? "--wbits 16 alone"
                                                   : "no --sparsity, no --prunen and no --wbits";
  throw usage_error(std::string(what) +
                    ": neither pruning nor quantization is asked for; add --sparsity 0.5, "
                    "--prunen 2 --prunem 4, or --wbits 4");
}

}  // namespace detail

/// Turns flags into the request that pare::dispatch turns into types.
/// @throws usage_error for every combination that has no type to become, or in which an option
///         would be ignored. Nothing has been read by then.
inline pare::CompressionRequest checked(const CompressionFlags& flags) {
  pare::CompressionRequest request;
  if (flags.sparsity_auto && !flags.target_stored_bits)
    throw usage_error(
        "--sparsity auto: what is pruned is chosen under pare compress "
        "--target-bits-per-weight alone, which counts what pruning saves; write a "
        "share, for instance --sparsity 0.5");
  detail::check_pattern(flags, request);
  detail::check_quantizer(flags, request);
  detail::check_mixed_precision(flags, request);
  detail::check_search(flags, request);
  detail::check_something_to_do(flags, request);
  if (flags.percdamp && !(*flags.percdamp >= 0 && *flags.percdamp <= 1))
    throw usage_error("--percdamp " + pare::number_text(*flags.percdamp) +
                      ": damping is a share of mean(diag H); write one within 0..1, for instance "
                      "--percdamp 0.01");
  if (flags.blocksize && *flags.blocksize < 1)
    throw usage_error("--blocksize " + std::to_string(*flags.blocksize) +
                      ": a block holds at least one column; write for instance --blocksize 128");
  request.solver.act_order = flags.act_order;
  request.solver.damping = flags.percdamp.value_or(request.solver.damping);
  request.solver.block_size = flags.blocksize.value_or(request.solver.block_size);
  return request;
}

/// Throws usage_error unless the m of the request's n:m, if any, divides the inputs of a linear.
/// @param linear  its name
/// @param inputs  how many it has
inline void require_whole_runs(const pare::CompressionRequest& request, const std::string& linear,
                               pare::index_t inputs) {
  const pare::Pattern pattern = request.pattern();
  if (pattern.kind != pare::PatternKind::n_of_m || inputs % pattern.of == 0) return;
  const std::string of = std::to_string(*request.solver.of);
  throw usage_error("--prunen " + std::to_string(*request.solver.zeros) + " --prunem " + of +
                    ": the " + std::to_string(inputs) + " inputs of " + linear +
                    " are no multiple of " + of + "; write a --prunem that divides " +
                    std::to_string(inputs));
}

}  // namespace tool
