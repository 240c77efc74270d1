// The command-line options that describe a compression, shared by pare-opt and pare-layer.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <optional>
#include <string>

#include "pare/pipeline/dispatch.hpp"
#include "pare/report/json.hpp"
#include "pare/report/text.hpp"

namespace tool {

/// A command line that cannot be carried out: one line, exit code 2.
struct usage_error : pare::argument_error {
  using pare::argument_error::argument_error;
};

/// "--a-b,--a_b": an option in both spellings.
inline std::string both_spellings(std::string name) {
  std::string underscored = name;
  for (std::size_t i = 2; i < underscored.size(); ++i)
    if (underscored[i] == '-') underscored[i] = '_';
  return underscored == name ? name : name + "," + underscored;
}

/// What the command line said; unset where it said nothing.
struct CompressionFlags {
  std::optional<double> sparsity, target_average_bits;
  std::optional<int> prunen, prunem, wbits;
  std::optional<std::string> bit_method, axis;
  bool act_order = false, clip_search = false, symmetric = false;
  double percdamp = 0.01;
  pare::index_t blocksize = 128;
};

/// Options that every compression has.
inline void add_solver_options(CLI::App& app, CompressionFlags& flags) {
  app.add_option("--sparsity", flags.sparsity, "share of weights to prune, [0, 1)");
  app.add_option("--prunen", flags.prunen, "n of n:m, zeros per group");
  app.add_option("--prunem", flags.prunem, "m of n:m, consecutive inputs per group");
  app.add_flag(both_spellings("--act-order"), flags.act_order, "visit inputs by falling diag(H)");
  app.add_flag(both_spellings("--clip-search"), flags.clip_search,
               "search the clipping range of every grid");
  app.add_flag("--symmetric", flags.symmetric, "symmetric grids");
  app.add_option("--percdamp", flags.percdamp, "damping as a share of mean(diag H)")
      ->capture_default_str();
  app.add_option("--blocksize", flags.blocksize, "columns per block")->capture_default_str();
}

/// Options that choose bits.
inline void add_bit_options(CLI::App& app, CompressionFlags& flags) {
  app.add_option("--wbits", flags.wbits, "base width in bits, 2..8 (16: no quantization)");
  app.add_option(both_spellings("--target-avg-bits"), flags.target_average_bits,
                 "mean bits per channel; widths are chosen from {2,3,4,6,8}");
  app.add_option(both_spellings("--bit-method"), flags.bit_method,
                 "quantile or budget (default: budget)");
  app.add_option("--axis", flags.axis, "what a channel is: output (default) or input");
}

/// Turns flags into a request, or throws usage_error. Nothing has been read by then.
inline pare::CompressionRequest checked(const CompressionFlags& flags) {
  using pare::number_text;
  pare::CompressionRequest request;
  if (flags.prunen.has_value() != flags.prunem.has_value())
    throw usage_error(flags.prunen ? "--prunen without --prunem: n:m needs both; add --prunem 4"
                                   : "--prunem without --prunen: n:m needs both; add --prunen 2");
  if (flags.prunen && flags.sparsity)
    throw usage_error("--sparsity with --prunen: a layer has one pattern; leave one of them out");
  if (flags.prunen && !(*flags.prunen > 0 && *flags.prunen < *flags.prunem))
    throw usage_error("--prunen " + std::to_string(*flags.prunen) + " --prunem " +
                      std::to_string(*flags.prunem) + ": expected 0 < n < m");
  if (flags.sparsity && !(*flags.sparsity >= 0 && *flags.sparsity < 1))
    throw usage_error("--sparsity " + number_text(*flags.sparsity) +
                      ": expected a share within [0, 1)");
  if (flags.prunen) {
    request.pattern = pare::PatternKind::n_of_m;
    request.solver.zeros = flags.prunen;
    request.solver.group = flags.prunem;
  } else if (flags.sparsity && *flags.sparsity > 0) {
    request.pattern = pare::PatternKind::unstructured;
    request.solver.sparsity = flags.sparsity;
  }

  constexpr int off = 16;
  if (flags.wbits && *flags.wbits != off &&
      (*flags.wbits < pare::min_bits || *flags.wbits > pare::max_bits))
    throw usage_error("--wbits " + std::to_string(*flags.wbits) +
                      ": expected a width within 2..8, or 16 for no quantization");
  request.quantize = flags.wbits && *flags.wbits != off;
  if (flags.bit_method && *flags.bit_method != "quantile" && *flags.bit_method != "budget")
    throw usage_error("--bit-method " + *flags.bit_method + ": expected quantile or budget");
  if (flags.axis && *flags.axis != "output" && *flags.axis != "input")
    throw usage_error("--axis " + *flags.axis + ": expected output or input");
  if (flags.bit_method && !flags.target_average_bits)
    throw usage_error("--bit-method without --target-avg-bits: there is no target to meet; add "
                      "--target-avg-bits 4.0");
  if (flags.target_average_bits && !request.quantize)
    throw usage_error(std::string("--target-avg-bits ") + (flags.wbits ? "with --wbits 16" : "without --wbits") +
                      ": mixed precision needs a base quantizer, otherwise bits are chosen and "
                      "nothing is quantized; add --wbits 4");
  if (flags.axis && !flags.target_average_bits)
    throw usage_error("--axis without --target-avg-bits: channels matter to mixed precision only; "
                      "add --target-avg-bits 4.0 or leave it out");
  if ((flags.clip_search || flags.symmetric) && !request.quantize)
    throw usage_error(std::string(flags.clip_search ? "--clip-search" : "--symmetric") +
                      " without --wbits: there is no grid to fit; add --wbits 4");
  if (flags.target_average_bits) {
    const std::vector<int>& tiers = pare::default_tiers();
    if (!(*flags.target_average_bits >= tiers.front() &&
          *flags.target_average_bits <= tiers.back()))
      throw usage_error("--target-avg-bits " + number_text(*flags.target_average_bits) +
                        ": tiers " + pare::tiers_text(tiers) + " can meet targets from " +
                        std::to_string(tiers.front()) + " to " + std::to_string(tiers.back()));
    request.policy = flags.bit_method == "quantile" ? pare::PolicyKind::quantile
                                                    : pare::PolicyKind::budget;
    request.solver.target_average_bits = flags.target_average_bits;
    if (flags.axis == "input") request.solver.axis = pare::ChannelAxis::input;
  }
  if (request.quantize) request.solver.bits = flags.wbits;
  if (request.pattern == pare::PatternKind::dense && !request.quantize)
    throw usage_error("neither pruning nor quantization was asked for; add --sparsity 0.5, "
                      "--prunen 2 --prunem 4, or --wbits 4");
  if (!(flags.percdamp >= 0 && flags.percdamp <= 1))
    throw usage_error("--percdamp " + number_text(flags.percdamp) +
                      ": expected a number within 0..1");
  if (flags.blocksize < 1)
    throw usage_error("--blocksize " + std::to_string(flags.blocksize) +
                      ": expected at least 1");
  request.solver.act_order = flags.act_order;
  request.solver.grid = {.symmetric = flags.symmetric, .clip_search = flags.clip_search};
  request.solver.damping = flags.percdamp;
  request.solver.block_size = flags.blocksize;
  return request;
}

/// Every option in force.
inline pare::Json to_json(const pare::CompressionRequest& request) {
  using pare::Json;
  const pare::SolverOptions& o = request.solver;
  const auto value = [](const auto& optional) { return optional ? Json(*optional) : Json(nullptr); };
  return {{"sparsity", value(o.sparsity)},
          {"prunen", value(o.zeros)},
          {"prunem", value(o.group)},
          {"wbits", value(o.bits)},
          {"target_avg_bits", value(o.target_average_bits)},
          {"bit_method", request.policy == pare::PolicyKind::none       ? Json(nullptr)
                         : request.policy == pare::PolicyKind::quantile ? Json("quantile")
                                                                        : Json("budget")},
          {"tiers", request.policy == pare::PolicyKind::none
                        ? Json(nullptr)
                        : Json(o.tiers.value_or(pare::default_tiers()))},
          {"axis", pare::to_string(o.axis)},
          {"act_order", o.act_order},
          {"clip_search", o.grid.clip_search},
          {"symmetric", o.grid.symmetric},
          {"percdamp", o.damping},
          {"blocksize", o.block_size}};
}

/// Runs a program: exit code 0, 2 for a command line or an input that cannot be used, 1 for a
/// failure; every error is one line on standard error.
inline int run(const std::string& program, const std::function<void()>& body) {
  const auto fail = [&](const char* what, int code) {
    std::cout.flush();
    std::cerr << program << ": " << what << std::endl;
    return code;
  };
  try {
    body();
    std::cout.flush();
    if (!std::cout) return fail("standard output: cannot be written", 1);
    return 0;
  } catch (const pare::argument_error& e) {
    return fail(e.what(), 2);
  } catch (const pare::format_error& e) {
    return fail(e.what(), 2);
  } catch (const pare::io_error& e) {
    return fail(e.what(), 2);
  } catch (const std::bad_alloc&) {
    return fail("out of memory", 1);
  } catch (const std::exception& e) {
    return fail(e.what(), 1);
  }
}

/// Parses the command line. A parse error is one line and exit code 2; --help is exit code 0.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::string what = e.what();
    for (char& c : what)
      if (c == '\n') c = ' ';
    std::cerr << app.get_name() << ": " << what << std::endl;
    return 2;
  }
}

}  // namespace tool
