// pare compare: schemes that choose widths, side by side at several budgets.
#pragma once

#include <cinttypes>
#include <sstream>

#include "tools/outputs.hpp"
#include "tools/plot.hpp"
#include "tools/work.hpp"

namespace tool {

/// Who chooses the widths. With a search for masks, or exact weights, uniform widths stand there with
/// the greedy mask as well.
enum class Scheme { dense, uniform, greedy, quantile, budget_linear, budget_model };

inline constexpr Scheme mixed_schemes[] = {Scheme::quantile, Scheme::budget_linear,
                                           Scheme::budget_model};

inline const char* scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::uniform:
      return "uniform";
    case Scheme::greedy:
      return "greedy";
    case Scheme::quantile:
      return "quantile";
    case Scheme::budget_linear:
      return "budget-layer";
    case Scheme::budget_model:
      return "budget-model";
    case Scheme::dense:
      break;
  }
  return "dense";
}

/// The same in every picture, whichever schemes it has.
inline const char* scheme_colour(Scheme scheme) {
  switch (scheme) {
    case Scheme::greedy:
      return "#984ea3";
    case Scheme::quantile:
      return "#d95f02";
    case Scheme::budget_linear:
      return "#1f78b4";
    case Scheme::budget_model:
      return "#33a02c";
    default:
      return "#444444";
  }
}

/// One row of the comparison.
struct Run {
  Scheme scheme = Scheme::dense;
  std::string name = "dense";
  double budget = 0;                                     ///< code bits per weight
  std::optional<pare::CompressionRequest> request = {};  ///< none: dense
  std::optional<pare::FolderPlan> planned = {};
  std::optional<pare::ModelPlan> plan = {};
  pare::Statistics statistics = {};
  Perplexities perplexities = {};
  double divergence = 0;  ///< KL from the dense model, nats per token
  double seconds = 0;
  std::vector<std::uint64_t> fingerprints = {};  ///< of every linear's weights

  bool one_width() const { return scheme == Scheme::uniform || scheme == Scheme::greedy; }
  bool mixed() const { return scheme != Scheme::dense && !one_width(); }
};

namespace detail {

/// The budgets as they were written, "4.0,3.5".
inline std::vector<std::pair<std::string, double>> parse_budgets(const std::string& list) {
  std::vector<std::pair<std::string, double>> budgets;
  std::istringstream words(list);
  const std::vector<int>& tiers = pare::default_tiers();
  for (std::string word; std::getline(words, word, ',');) {
    word.erase(0, word.find_first_not_of(' '));  // "4.0, 3.5" is a list too
    word.erase(word.find_last_not_of(' ') + 1);
    const auto value = parse_value<double>("--budgets", word);
    if (!(value >= tiers.front() && value <= tiers.back()))
      throw usage_error(written("--budgets", list) + ": " + word + ": tiers " +
                        pare::tiers_text(tiers) + " cannot meet it; write targets from " +
                        std::to_string(tiers.front()) + " to " + std::to_string(tiers.back()));
    for (const auto& [other, number] : budgets)
      if (number == value)
        throw usage_error(written("--budgets", list) + ": " + word +
                          " is there twice; write every budget once");
    budgets.emplace_back(word, value);
  }
  if (budgets.empty())
    throw usage_error(written("--budgets", list) +
                      ": there is nothing to compare at; write for instance --budgets 4.0,3.5");
  return budgets;
}

/// The rows, without results.
inline std::vector<Run> runs_of(const Arguments& arguments) {
  std::vector<Run> runs(1);
  const auto add = [&](Scheme scheme, const std::string& budget, double value, int wbits) {
    CompressionFlags flags = arguments.flags;
    if (!flags.sparsity && !flags.prunen && !flags.prunem) flags.sparsity = 0.5;
    flags.wbits = wbits;
    const bool uniform = scheme == Scheme::uniform || scheme == Scheme::greedy;
    if (scheme == Scheme::greedy) {
      flags.mask_search.reset();
      flags.mask_region.reset();
      flags.refine = false;
    }
    if (uniform) {
      flags.axis.reset();  // uniform widths have no channels to tell apart
    } else {
      flags.target_average_bits = value;
      flags.bit_method = scheme == Scheme::quantile ? "quantile" : "budget";
    }
    if (scheme == Scheme::budget_linear) flags.importance = "distortion";
    if (scheme == Scheme::budget_model) flags.scope = "model";
    if (scheme != Scheme::budget_model) flags.kl_windows.reset();
    if (uniform || scheme == Scheme::quantile) flags.sensitivity.reset();
    Run run{.scheme = scheme, .name = scheme_name(scheme) + (" " + budget), .budget = value};
    run.request = checked(flags);
    run.planned = planned(flags, *run.request);
    runs.push_back(std::move(run));
  };
  const auto budgets = parse_budgets(arguments.budgets.value_or("4.0,3.5"));
  const bool searches = arguments.flags.mask_search == "admm" || arguments.flags.refine;
  for (const Scheme scheme : {Scheme::uniform, Scheme::greedy})
    for (const auto& [word, value] : budgets)
      if (value == std::floor(value) && (searches || scheme == Scheme::uniform))
        add(scheme, std::to_string(int(value)), value, int(value));
  // The base width of the others is where losses are measured; their widths come from the tiers.
  for (const Scheme scheme : mixed_schemes)
    for (const auto& [word, value] : budgets) add(scheme, word, value, 3);
  return runs;
}

/// What every row but the dense one has, "50 % sparsity", "2:4 sparsity, groups of 64", or "groups of
/// 128, 64 or 32" where every linear has the largest that divides its inputs.
inline std::string pattern_text(const pare::CompressionRequest& request) {
  const pare::Pattern pattern = request.pattern();
  const pare::index_t group_size = request.solver.group_size;
  return (pattern.kind == pare::PatternKind::n_of_m
              ? pare::to_string(pattern)
              : pare::number_text(100 * pattern.sparsity) + " %") +
         " sparsity" +
         (group_size > 0                            ? ", groups of " + std::to_string(group_size)
          : group_size == pare::dividing_group_size ? ", groups of 128, 64 or 32"
                                                    : "");
}

/// Windows to measure the KL on, whose predictions of the dense model fit into 256 MiB.
/// @param tokens  of the text
inline index_t comparison_windows(const Inputs& inputs, index_t tokens) {
  const index_t all = tokens / inputs.seqlen;
  const index_t window = inputs.seqlen * inputs.config.vocab_size;
  return std::clamp<index_t>((index_t{1} << 26) / window, 1, all);
}

/// What the plans of all runs are made from.
/// @param given  of pare::given_sensitivities
inline pare::Sensitivities sensitivities(Model& model, const Inputs& inputs,
                                         const Arguments& arguments, const pare::FolderPlan& plan,
                                         const std::optional<pare::Sensitivities>& given) {
  pare::SensitivitySource source;
  pare::Sensitivities found = pare::find_sensitivities(
      plan, selection_of(arguments), given,
      [&](const pare::SensitivityOptions& options) {
        ProgressLine line("measuring sensitivities");
        return model.measure(inputs.windows, options, [&](double share) { line.advance(share); });
      },
      source);
  print_source(source);
  return found;
}

inline pare::Statistics compress(Model& model, const Inputs& inputs, const Arguments& arguments,
                                 const Run& run) {
  ProgressLine line(run.name);
  pare::CompressionProgress progress;
  progress.advanced = [&](double share) { line.advance(share); };
  pare::ModelCompressionOptions options = options_of(arguments, *run.request);
  if (run.plan) options.solver = pare::without_choices(options.solver);
  return model.compress(*run.request, run.plan ? &*run.plan : nullptr, inputs.windows, options,
                        progress);
}

inline void require_different(const std::vector<Run>& runs) {
  std::string pairs;
  for (std::size_t a = 0; a < runs.size(); ++a)
    for (std::size_t b = a + 1; b < runs.size(); ++b) {
      if (runs[a].fingerprints != runs[b].fingerprints) continue;
      // A plan that found uniform widths best says so, at the outermost tiers there are no others,
      // and both scopes are one for one linear.
      const std::vector<int>& tiers = pare::default_tiers();
      const auto uniform = [&](const Run& run) {
        return run.one_width() || (run.plan && run.plan->uniform_kept) ||
               (run.mixed() && (run.budget == tiers.front() || run.budget == tiers.back()));
      };
      if (uniform(runs[a]) && uniform(runs[b])) continue;
      if (runs[a].plan && runs[b].plan && runs[a].budget == runs[b].budget &&
          runs[a].statistics.linears.size() == 1)
        continue;
      pairs += (pairs.empty() ? "\"" : ", \"") + runs[a].name + "\" and \"" + runs[b].name + "\"";
    }
  if (!pairs.empty())
    throw pare::error("different configurations gave identical weights: " + pairs +
                      "; either bits were chosen and never applied, or all scores are so alike "
                      "that the policy chose uniform bits");
}

inline void print_comparison(const std::vector<Run>& runs) {
  std::printf("\n%-18s", "configuration");
  for (const auto& [name, value] : runs.front().perplexities)
    std::printf(" %11s", name.substr(0, 11).c_str());
  std::printf(" %9s %10s %11s %9s %9s %12s\n", "kl", "mean bits", "stored bits", "sparsity",
              "seconds", "total loss");
  for (const Run& run : runs) {
    const pare::Totals t = pare::totals(run.statistics);
    std::printf("%-18s", run.name.c_str());
    for (const auto& [name, value] : run.perplexities) std::printf(" %11.3f", value);
    const std::string stored =
        run.request ? pare::number_text(std::round(1e4 * t.stored_bits_per_weight) / 1e4) : "-";
    std::printf(" %9.5f %10s %11s %8.2f%% %9.2f %12.5g\n", run.divergence,
                pare::detail::bits_text(t.average_bits).c_str(), stored.c_str(), 100 * t.sparsity,
                run.seconds, t.loss);
  }
  std::printf("\n%-28s", "loss");
  for (const Run& run : runs)
    if (run.request) std::printf(" %16s", run.name.c_str());
  std::printf("\n");
  for (std::size_t l = 0; l < runs.back().statistics.linears.size(); ++l) {
    std::printf("%-28s", runs.back().statistics.linears[l].name.c_str());
    for (const Run& run : runs)
      if (run.request) std::printf(" %16.5g", run.statistics.linears[l].loss);
    std::printf("\n");
  }
  std::fflush(stdout);
}

inline void draw_comparison(const fs::path& folder, const std::string& title,
                            const std::vector<Run>& runs) {
  const auto curves = [&](const auto& value) {
    std::vector<Curve> all;
    for (const Scheme scheme : {Scheme::uniform, Scheme::greedy, Scheme::quantile,
                                Scheme::budget_linear, Scheme::budget_model}) {
      Curve curve{scheme_name(scheme), scheme_colour(scheme), {}};
      for (const Run& run : runs)
        if (run.scheme == scheme)
          curve.points.emplace_back(pare::totals(run.statistics).stored_bits_per_weight,
                                    value(run));
      std::sort(curve.points.begin(), curve.points.end());
      if (!curve.points.empty()) all.push_back(std::move(curve));
    }
    return all;
  };
  std::vector<Panel> panels;
  const Perplexities& dense = runs.front().perplexities;
  for (std::size_t text = 0; text < dense.size(); ++text)
    panels.push_back({"perplexity on " + dense[text].first,
                      curves([&](const Run& run) { return run.perplexities[text].second; }),
                      dense[text].second});
  panels.push_back(
      {"KL from dense, nats per token", curves([](const Run& run) { return run.divergence; }), {}});
  plot_frontier(folder, title, "stored bits per weight", panels);

  // The widths of the plan in the middle of the budgets.
  std::vector<const Run*> plans;
  for (const Run& run : runs)
    if (run.scheme == Scheme::budget_model) plans.push_back(&run);
  std::sort(plans.begin(), plans.end(),
            [](const Run* a, const Run* b) { return a->budget < b->budget; });
  const Run& shown = *plans[plans.size() / 2];
  std::vector<WidthCounts> linears;
  for (const pare::LinearStatistics& linear : shown.statistics.linears)
    linears.push_back({linear.name.substr(linear.name.find('.') + 1), linear.bits_histogram});
  plot_widths(folder, title + ": widths of " + shown.name, linears, pare::default_tiers());
}

}  // namespace detail

inline void run_compare(const Arguments& arguments) {
  const auto evaluations = required_evaluations(arguments, "compare");
  const NamedBackend backend = chosen_backend(arguments.backend);
  ModelSource source = source_of(arguments, backend);
  source.whole = true;
  std::vector<Run> runs = detail::runs_of(arguments);
  check_windows_and_selection(arguments);
  const Outputs outputs(arguments, evaluations);
  const Inputs inputs = read_inputs(arguments, evaluations, backend, &*runs[1].request, source);
  const std::vector<std::int32_t> ids =
      pare::window_ids(inputs.texts.front().ids, inputs.leading_ids, inputs.config, inputs.seqlen);
  const index_t windows = detail::comparison_windows(inputs, index_t(ids.size()));
  const CompressionFlags& flags = arguments.flags;
  const std::string pattern = detail::pattern_text(*runs[1].request);
  const bool by_default = !flags.sparsity && !flags.prunen;
  std::printf("every row but dense has %s%s\n", pattern.c_str(),
              by_default ? "; 50 % is the default, --sparsity 0 prunes nothing" : "");
  std::optional<pare::Sensitivities> given, measured;  // serve every plan
  std::shared_ptr<void> reference;                     // of the dense model, serves every run
  for (Run& run : runs) {
    const std::unique_ptr<Model> model = backend.load_model(source);
    if (reference == nullptr) {
      given =
          pare::given_sensitivities(*runs.back().planned, inputs.windows, selection_of(arguments),
                                    [&] { return model->fingerprint(); });
      reference = model->keep_reference(std::span(ids).first(std::size_t(windows * inputs.seqlen)),
                                        inputs.seqlen);
    } else {
      model->use_reference(reference);
    }
    if (run.planned) {
      if (!measured)
        measured = detail::sensitivities(*model, inputs, arguments, *runs.back().planned, given);
      run.plan = pare::plan_bits(*measured, run.planned->options);
    }
    if (run.request) {
      const auto start = std::chrono::steady_clock::now();
      run.statistics = detail::compress(*model, inputs, arguments, run);
      run.seconds = seconds_since(start);
      run.divergence = model->divergence();
    }
    run.perplexities = evaluate(*model, inputs, run.name);
    run.fingerprints = model->fingerprints();
    std::printf("%s: done\n", run.name.c_str());
    std::fflush(stdout);
  }
  detail::print_comparison(runs);
  pare::Json report{{"kl_text", inputs.texts.front().name},
                    {"kl_windows", windows},
                    {"runs", pare::Json::array()}};
  for (const Run& run : runs) {
    pare::Json json{{"name", run.name},
                    {"scheme", scheme_name(run.scheme)},
                    {"budget", run.request ? pare::Json(run.budget) : pare::Json()},
                    {"perplexity", pare::to_json(run.perplexities)},
                    {"kl", run.divergence},
                    {"seconds", run.seconds}};
    json.update(pare::to_json(run.statistics));
    json["plan"] = run.plan ? pare::to_json(*run.plan) : pare::Json();
    json["config"] = run.request ? config_json(arguments, inputs, *run.request) : pare::Json();
    report["runs"].push_back(std::move(json));
  }
  if (outputs.report) pare::write_json(*outputs.report, report);
  if (outputs.plot) {
    fs::create_directories(*outputs.plot);
    pare::write_json(*outputs.plot / "compare.json", report);
    const std::string model = resolved(arguments.model).filename().string();
    const std::string text = fs::path(arguments.calibration_text).filename().string();
    detail::draw_comparison(*outputs.plot, model + ", " + pattern + ", calibrated on " + text,
                            runs);
    std::printf("pictures in %s: frontier.svg, widths.svg\n", arguments.plot->c_str());
  }
  detail::require_different(runs);
}

}  // namespace tool
