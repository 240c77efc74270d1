// pare as a program: plans over the whole model, sensitivities, the preset, the comparison.
#define BOOST_TEST_MODULE pare_plan_tool
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

#include "cli_support.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Json;
using cli::Outcome;
using cli::Texts;
using pare::index_t;

namespace {

const fs::path tiny = cli::data / "opt-tiny";

/// "pare COMMAND MODEL CALIB_TEXT options...", evaluated on the short text.
Outcome pare_opt(const Texts& texts, const std::string& command, const Arguments& options) {
  Arguments all{command, tiny.string(), texts.calibration.string(),          "--nsamples",
                "8",     "--eval",      "short=" + texts.evaluation.string()};
  all.insert(all.end(), options.begin(), options.end());
  return cli::run(PARE_TOOL, all, texts.path);
}

struct Result {
  Json report;
  std::string out;

  const Json& plan() const { return report.at("plan"); }
  double total(const char* key) const { return report.at("totals").at(key); }
};

/// Compresses, which must succeed.
Result compressed(const Texts& texts, Arguments options) {
  options.insert(options.end(), {"--report", (texts / "report.json").string()});
  const Outcome outcome = pare_opt(texts, "compress", options);
  BOOST_TEST_INFO(cli::text_of(options) << ": " << outcome.err);
  BOOST_REQUIRE(outcome.code == 0);
  Result result{cli::parse_json(cli::read_text(texts / "report.json")), outcome.out};
  fs::remove(texts / "report.json");
  return result;
}

const Arguments three_bits{"--wbits", "3", "--target-avg-bits", "3", "--kl-windows", "2"};

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

bool has_gnuplot() { return std::system("command -v gnuplot >/dev/null 2>&1") == 0; }

}  // namespace

BOOST_AUTO_TEST_CASE(a_plan_for_the_model_meets_its_target_and_is_reported) {
  const Texts texts;
  const Result run = compressed(texts, three_bits + Arguments{"--scope", "model"});
  BOOST_TEST(run.total("average_bits") <= 3 + 1e-12);
  BOOST_TEST(run.total("average_bits") > 3 - 1e-3);
  BOOST_TEST(run.report.at("layers").size() == 24u);
  std::set<double> means;  // linears share the budget, they do not each meet it
  for (const Json& layer : run.report.at("layers"))
    means.insert(layer.at("average_bits").get<double>());
  BOOST_TEST(means.size() > 12u);
  BOOST_TEST(*means.rbegin() > 3.5);
  BOOST_TEST(*means.begin() < 2.9);

  const Json& plan = run.plan();
  const double loss = plan.at("predicted_loss"), bound = plan.at("bound");
  BOOST_TEST(loss > 0);
  BOOST_TEST(bound <= loss);
  BOOST_TEST(bound > 0.99 * loss);
  BOOST_TEST(plan.at("gap").get<double>() == loss - bound);
  BOOST_TEST(plan.at("uniform_bits") == 3);
  BOOST_TEST(plan.at("uniform_loss").get<double>() > loss);
  BOOST_TEST(plan.at("uniform_kept") == false);
  BOOST_TEST(run.report.at("config").at("scope") == "model");
  for (const char* part : {"plan: 3 code bits per weight", "predicted kl", "at least",
                           "uniform 3 bits (dense)", "mean bits", "stored"}) {
    BOOST_TEST_INFO(part << " in " << run.out);
    BOOST_CHECK(test::contains(run.out, part));
  }
  // Better than the same budget spent evenly, which is what it is for.
  const Result uniform = compressed(texts, {"--wbits", "3"});
  const auto perplexity = [](const Result& r) {
    return r.report.at("perplexity").at("compressed").at("short").get<double>();
  };
  BOOST_TEST(perplexity(run) < perplexity(uniform));
}

BOOST_AUTO_TEST_CASE(every_objective_and_scope_plans_something_else) {
  const Texts texts;
  std::map<double, std::string> losses;
  for (const Arguments& options : std::vector<Arguments>{
           {"--wbits", "3", "--target-avg-bits", "3"},
           {"--wbits", "3", "--target-avg-bits", "3", "--importance", "distortion"},
           {"--wbits", "3", "--target-avg-bits", "3", "--importance", "distortion", "--scope",
            "model"},
           three_bits + Arguments{"--scope", "model"},
           three_bits + Arguments{"--importance", "kl", "--scope", "model", "--axis", "input"},
           {"--wbits", "3", "--target-bits-per-weight", "3.2", "--kl-windows", "2"}})
    BOOST_TEST_CONTEXT(cli::text_of(options)) {
      const Result run = compressed(texts, options + Arguments{"--minlayer", "3"});
      BOOST_TEST(losses.emplace(run.total("loss"), cli::text_of(options)).second);
      const bool by_model = test::contains(cli::text_of(options), "model");
      if (!by_model && run.total("average_bits") <= 3)
        for (const Json& layer : run.report.at("layers"))
          BOOST_TEST(layer.at("average_bits").get<double>() <= 3);
    }
}

BOOST_AUTO_TEST_CASE(a_target_below_the_narrowest_choice_says_what_there_is) {
  const Texts texts;
  const Outcome outcome =
      pare_opt(texts, "compress",
               {"--wbits", "3", "--target-bits-per-weight", "1", "--importance", "distortion"});
  check_failure(outcome, 2, "pare",
                {"--target-bits-per-weight 1: ", "expected at least 2.", "got 1"});
}

BOOST_AUTO_TEST_CASE(stored_bits_are_what_the_target_says) {
  const Texts texts;
  const Arguments base{"--wbits", "3", "--kl-windows", "1", "--minlayer", "2"};
  for (const double target : {2.6, 3.5}) {
    const Result run =
        compressed(texts, base + Arguments{"--target-bits-per-weight", std::to_string(target)});
    BOOST_TEST(run.total("stored_bits_per_weight") <= target + 1e-9);
    BOOST_TEST(run.total("stored_bits_per_weight") > target - 0.05);
    BOOST_TEST(run.total("average_bits") < target);
    BOOST_TEST(run.total("sparsity") == 0);
    BOOST_CHECK(test::contains(run.out, "stored bits per weight"));
  }
  const Result chosen =
      compressed(texts, base + Arguments{"--target-bits-per-weight", "2.3", "--sparsity", "auto"});
  BOOST_TEST(chosen.total("stored_bits_per_weight") <= 2.3 * 1.01);
  std::set<std::string> patterns;
  for (const auto& [name, pattern] : chosen.plan().at("patterns").items())
    patterns.insert(pattern.get<std::string>());
  BOOST_TEST(chosen.plan().at("patterns").size() == 12u);
  for (const std::string& pattern : patterns)
    BOOST_TEST((pattern == "dense" || pattern == "2:4" || pattern == "50%" || pattern == "70%"));
  BOOST_TEST(chosen.report.at("config").at("sparsity_auto") == true);
  // Statistics say what the plan said of every linear.
  for (const Json& layer : chosen.report.at("layers")) {
    const std::string name = layer.at("name"), pattern = chosen.plan().at("patterns").at(name);
    const double share = pattern == "dense" ? 0 : pattern == "70%" ? 0.7 : 0.5;
    BOOST_TEST(std::abs(layer.at("sparsity").get<double>() - share) < 1e-3);
  }
}

BOOST_AUTO_TEST_CASE(rotated_models_are_planned_with_their_head_counted) {
  const Texts texts;
  const fs::path file = texts / "sensitivities.json";
  const Arguments base{"--wbits", "3", "--kl-windows", "1", "--minlayer", "3"};
  const Arguments full = base + Arguments{"--rotate", "full", "--sensitivity", file.string()};
  const Result turned = compressed(texts, full + Arguments{"--target-bits-per-weight", "3.2"});
  BOOST_TEST(turned.total("stored_bits_per_weight") <= 3.2);
  BOOST_TEST(turned.total("stored_bits_per_weight") > 3.15);
  BOOST_TEST(cli::parse_json(cli::read_text(file)).at("rotation_seed") == 1);
  // The plan of other bases is another; a file of one basis does not serve the other.
  const Result plain = compressed(texts, base + Arguments{"--target-bits-per-weight", "3.2"});
  BOOST_TEST(plain.total("loss") != turned.total("loss"));
  for (const Arguments& other : {Arguments{"--rotate", "full", "--rotate-seed", "2"}, Arguments{}})
    check_failure(pare_opt(texts, "compress",
                           base + other +
                               Arguments{"--target-bits-per-weight", "3.2", "--sensitivity",
                                         file.string()}),
                  2, "pare", {"--sensitivity " + file.string(), "another rotation"});

  // A folded rotation unties the head, which counts like the rest.
  const Arguments folded = base + Arguments{"--rotate", "folded"};
  const Result uniform =
      compressed(texts, {"--wbits", "3", "--minlayer", "3", "--rotate", "folded"});
  const double head = uniform.total("added_bits_per_weight");
  BOOST_TEST(head == uniform.report.at("config").at("rotation").at("added_bits_per_weight"));
  BOOST_TEST(head > 1);
  double linears = 0, weights = 0;
  for (const Json& layer : uniform.report.at("layers")) {
    const double of = layer.at("rows").get<double>() * layer.at("columns").get<double>();
    linears += of * layer.at("stored_bits_per_weight").get<double>();
    weights += of;
  }
  BOOST_TEST(std::abs(uniform.total("stored_bits_per_weight") - linears / weights - head) < 1e-9);
  BOOST_CHECK(test::contains(uniform.out, " of them for the untied head"));
  const std::string target = std::to_string(3.2 + head);
  const Result planned = compressed(texts, folded + Arguments{"--target-bits-per-weight", target});
  BOOST_TEST(planned.total("stored_bits_per_weight") <= 3.2 + head + 1e-6);
  BOOST_TEST(planned.total("stored_bits_per_weight") > 3.15 + head);
  check_failure(pare_opt(texts, "compress", folded + Arguments{"--target-bits-per-weight", "3.2"}),
                2, "pare",
                {"--target-bits-per-weight 3.2: ", "for what is stored beside the linears",
                 "got 3.2"});
}

BOOST_AUTO_TEST_CASE(trades_between_linears_lower_the_kl_of_a_plan) {
  const Texts texts;
  const Arguments base{
      "--wbits", "3", "--kl-windows", "2", "--minlayer", "3", "--target-bits-per-weight", "3"};
  const Result plain = compressed(texts, base);
  BOOST_TEST(!plain.plan().contains("swaps"));
  const Result traded = compressed(texts, base + Arguments{"--plan-swaps", "30"});
  const Json& swaps = traded.plan().at("swaps");
  BOOST_TEST(swaps.at("tried") == 30);
  BOOST_TEST(swaps.at("windows") == 2);
  BOOST_TEST(swaps.at("kept") > 0);
  BOOST_TEST(swaps.at("swapped_kl").get<double>() < swaps.at("kl").get<double>());
  BOOST_TEST(traded.total("stored_bits_per_weight") <= 3);
  BOOST_TEST(traded.total("loss") != plain.total("loss"));
  BOOST_CHECK(test::contains(traded.out, "swaps: "));
  BOOST_TEST(traded.report.at("config").at("plan_swaps") == 30);
}

BOOST_AUTO_TEST_CASE(sensitivities_serve_every_target_and_no_other_input) {
  const Texts texts;
  const fs::path file = texts / "sensitivities.json";
  const Arguments with{"--wbits",       "3",           "--scope",    "model",
                       "--sensitivity", file.string(), "--minlayer", "3"};
  const auto at = [&](const char* target) {
    return compressed(texts, with + Arguments{"--target-avg-bits", target});
  };
  const Result first = at("3");
  BOOST_CHECK(test::contains(first.out, "sensitivities: written to"));
  const std::string kept = cli::read_text(file);
  const Result again = at("3"), other = at("2.5");
  BOOST_CHECK(test::contains(again.out, "sensitivities: read from"));
  BOOST_TEST(cli::read_text(file) == kept);
  BOOST_TEST(again.total("loss") == first.total("loss"));
  BOOST_TEST(other.total("average_bits") <= 2.5);
  // Another objective is planned from the same measurements.
  compressed(texts, with + Arguments{"--target-avg-bits", "3", "--importance", "distortion"});

  const auto refused = [&](const Arguments& options, const std::string& why) {
    const auto before = cli::listing(texts.path);
    const Outcome outcome = pare_opt(texts, "compress", with + options);
    check_failure(outcome, 2, "pare",
                  {"--sensitivity " + file.string(), why, "name another file to measure anew"});
    BOOST_TEST(!test::contains(outcome.out, "perplexity"));  // before any long work
    BOOST_CHECK(cli::listing(texts.path) == before);
  };
  const Arguments target{"--target-avg-bits", "3"};
  refused(target + Arguments{"--act-order"}, "act_order");
  refused(target + Arguments{"--clip-search"}, "clip_search");
  refused(target + Arguments{"--sparsity", "0.5"}, "pattern");
  refused(target + Arguments{"--seqlen", "128"}, "another seqlen: expected 128, found 256");
  const std::string calibration = cli::read_text(texts.calibration);
  cli::write_text(texts.calibration, "Another beginning. " + calibration);
  refused(target, "another calibration text");
  cli::write_text(texts.calibration, calibration);
  cli::write_text(file, kept.substr(0, kept.size() / 2));
  for (const Outcome& outcome : {pare_opt(texts, "compress", with + target),
                                 pare_opt(texts, "compare", {"--sensitivity", file.string()})}) {
    check_failure(outcome, 2, "pare", {file.string()});
    BOOST_TEST(!test::contains(outcome.out, "perplexity"));
    BOOST_TEST(!test::contains(outcome.out, "done"));
  }
}

BOOST_AUTO_TEST_CASE(the_preset_is_the_options_it_names) {
  const Texts texts;
  const Arguments base{"--wbits",      "3", "--target-avg-bits", "3",
                       "--kl-windows", "1", "--minlayer",        "3"};
  const Result preset = compressed(texts, base + Arguments{"--preset", "best"});
  const Result spelled =
      compressed(texts, base + Arguments{"--act-order", "--clip-search", "--true-sequential",
                                         "--asymmetric", "0.5", "--scope", "model", "--group-size",
                                         "auto", "--rotate", "full"});
  BOOST_TEST(preset.total("loss") == spelled.total("loss"));
  BOOST_TEST(preset.report.at("config").at("preset") == "best");
  for (const char* option : {"act_order", "clip_search", "true_sequential"})
    BOOST_TEST(preset.report.at("config").at(option) == true);
  const Result given = compressed(texts, base + Arguments{"--preset", "best", "--asymmetric", "1"});
  BOOST_TEST(given.report.at("config").at("asymmetric") == 1);
  BOOST_TEST(given.total("loss") != preset.total("loss"));
  const Arguments one{"--minlayer", "3", "--prune-only", "k_proj"};
  const auto config = [&](const Arguments& options) {
    return compressed(texts, one + options + Arguments{"--preset", "best"}).report.at("config");
  };
  const Json pruned = config({"--sparsity", "0.5"});
  BOOST_TEST(pruned.at("clip_search") == false);
  BOOST_TEST(pruned.at("mask_search") == "admm");
  BOOST_TEST(!pruned.contains("rotate"));
  const Json plain = config({"--wbits", "3", "--rotate", "none", "--group-size", "0"});
  BOOST_TEST(!plain.contains("rotation_seed"));
  BOOST_TEST(!plain.contains("group_size"));
  const Arguments stored{"--wbits", "3", "--target-bits-per-weight", "3.2", "--kl-windows", "1"};
  const Json planned = config(stored);
  BOOST_TEST(planned.at("group_size_auto") == true);
  BOOST_TEST(planned.at("rotation_seed") == 1);
  const Json searched = config(stored + Arguments{"--sparsity", "auto"});
  BOOST_TEST(!searched.contains("group_size_auto"));
  BOOST_TEST(!searched.contains("group_size"));
  BOOST_TEST(searched.at("mask_search") == "admm");
  BOOST_TEST(searched.at("rotation_seed") == 1);
  const Json exported =
      config({"--wbits", "4", "--save-as", "gptq=" + (texts / "exported").string()});
  BOOST_TEST(exported.at("rotate") == "folded");
  const Result fast = compressed(texts, {"--wbits", "4", "--preset", "fast", "--minlayer", "3"});
  const Result grouped =
      compressed(texts, {"--wbits", "4", "--act-order", "--group-size", "auto", "--minlayer", "3"});
  BOOST_TEST(fast.total("loss") == grouped.total("loss"));
  // The largest of 128, 64 and 32 that divides the inputs, in every linear by itself.
  for (const Json& linear : grouped.report.at("layers"))
    BOOST_TEST(linear.at("group_size") == (linear.at("columns") == 768 ? 128 : 64));
  BOOST_TEST(grouped.report.at("config").at("group_size") == "auto");
  const Result other = compressed(texts, {"--wbits", "4", "--preset", "fast", "--group-size", "32",
                                          "--minlayer", "3"});
  BOOST_TEST(other.total("loss") != grouped.total("loss"));
}

BOOST_AUTO_TEST_CASE(linears_that_are_loaded_as_one_have_one_width) {
  const Texts texts;
  const Result fused =
      compressed(texts, {"--wbits", "3", "--target-avg-bits", "3.4", "--kl-windows", "2",
                         "--minlayer", "2", "--scope", "model", "--symmetric", "--fused-widths",
                         "--save-as", "compressed-tensors=" + (texts / "ct").string()});
  std::map<std::string, Json> widths;
  for (const Json& linear : fused.report.at("layers")) {
    BOOST_TEST(linear.at("bits_histogram").size() == 1u);
    widths[linear.at("name")] = linear.at("bits_histogram");
  }
  std::set<std::string> different;
  for (const char* layer : {"layers.2.", "layers.3."}) {
    const std::string attention = layer + std::string("self_attn.");
    BOOST_TEST(widths.at(attention + "q_proj") == widths.at(attention + "k_proj"));
    BOOST_TEST(widths.at(attention + "q_proj") == widths.at(attention + "v_proj"));
  }
  for (const auto& [name, width] : widths) different.insert(width.items().begin().key());
  BOOST_TEST(different.size() > 1u);
  const Json config = cli::parse_json(cli::read_text(texts / "ct" / "config.json"));
  BOOST_TEST(config.at("quantization_config").at("config_groups").size() == different.size());
  BOOST_TEST(fused.report.at("config").at("fused_widths") == true);
}

BOOST_AUTO_TEST_CASE(the_comparison_tells_schemes_apart) {
  const Texts texts;
  const Outcome outcome =
      pare_opt(texts, "compare", {"--report", (texts / "report.json").string()});
  check_success(outcome);
  const std::vector<std::string> names{"dense",
                                       "uniform 4",
                                       "quantile 4.0",
                                       "quantile 3.5",
                                       "budget-layer 4.0",
                                       "budget-layer 3.5",
                                       "budget-model 4.0",
                                       "budget-model 3.5"};
  const Json report = cli::parse_json(cli::read_text(texts / "report.json"));
  const Json& runs = report.at("runs");
  BOOST_REQUIRE(runs.size() == names.size());
  std::set<double> perplexities, losses, divergences;
  for (std::size_t r = 0; r < names.size(); ++r) BOOST_TEST_CONTEXT(names[r]) {
      BOOST_TEST(runs[r].at("name") == names[r]);
      perplexities.insert(runs[r].at("perplexity").at("short").get<double>());
      divergences.insert(runs[r].at("kl").get<double>());
      BOOST_CHECK(test::contains(outcome.out, "\n" + names[r] + " "));
      if (r == 0) continue;
      losses.insert(runs[r].at("totals").at("loss").get<double>());
      BOOST_TEST(runs[r].at("layers").size() == 24u);
      BOOST_TEST(std::abs(runs[r].at("totals").at("sparsity").get<double>() - 0.5) < 1e-12);
      const double target = runs[r].at("budget"), mean = runs[r].at("totals").at("average_bits");
      BOOST_TEST(target == (names[r].ends_with("3.5") ? 3.5 : 4.0));
      BOOST_TEST(mean <= target + 1e-12);
      BOOST_TEST(mean > target - 2.0 / 192);
      BOOST_TEST(runs[r].at("plan").is_null() == !names[r].starts_with("budget"));
    }
  BOOST_TEST(runs[0].at("kl") == 0.0);
  BOOST_TEST(perplexities.size() == names.size());
  BOOST_TEST(divergences.size() == names.size());
  BOOST_TEST(losses.size() == names.size() - 1);
  for (std::size_t l = 0; l < 24; ++l) {
    std::set<double> per_layer;
    for (const std::size_t r : {2u, 3u, 4u, 5u})
      per_layer.insert(runs[r].at("layers").at(l).at("loss").get<double>());
    BOOST_TEST_INFO(runs[2].at("layers").at(l).at("name"));
    BOOST_CHECK(per_layer.size() == 4u);
  }
  for (const char* part :
       {"mean bits", "stored bits", "sparsity", "seconds", "total loss", "short", "kl"}) {
    BOOST_TEST_INFO(part);
    BOOST_CHECK(test::contains(outcome.out, part));
  }
  // What is pruned unless the command line says otherwise is said.
  BOOST_CHECK(test::contains(
      outcome.out,
      "every row but dense has 50 % sparsity; 50 % is the default, --sparsity 0 prunes nothing"));
  for (const Json& layer : runs[1].at("layers"))
    BOOST_CHECK(test::contains(outcome.out, "\n" + layer.at("name").get<std::string>() + " "));
}

BOOST_AUTO_TEST_CASE(the_comparison_takes_another_sparsity_axis_group_size_and_list_of_budgets) {
  const Texts texts;
  const Outcome outcome = pare_opt(texts, "compare",
                                   {"--sparsity", "0.25", "--axis", "input", "--act-order",
                                    "--minlayer", "2", "--budgets", " 3 ", "--group-size", "40",
                                    "--report", (texts / "report.json").string()});
  check_success(outcome);
  BOOST_CHECK(test::contains(outcome.out, "every row but dense has 25 % sparsity, groups of 40\n"));
  const Json report = cli::parse_json(cli::read_text(texts / "report.json"));
  BOOST_REQUIRE(report.at("runs").size() == 5u);
  for (std::size_t r = 1; r < 5; ++r) {
    const Json& run = report.at("runs").at(r);
    BOOST_TEST(run.at("layers").size() == 12u);
    BOOST_TEST(std::abs(run.at("totals").at("sparsity").get<double>() - 0.25) < 1e-12);
    BOOST_TEST(run.at("config").at("axis") == (r == 1 ? "output" : "input"));
    for (const Json& layer : run.at("layers")) BOOST_TEST(layer.at("group_size") == 40);
  }
}

BOOST_AUTO_TEST_CASE(the_comparison_draws_what_it_measured) {
  const Texts texts;
  const Arguments options{"--sparsity", "0",    "--budgets", "3,2.5",    "--minlayer",   "2",
                          "--preset",   "best", "--plot",    "pictures", "--kl-windows", "1"};
  if (!has_gnuplot()) {
    std::cout << "skipped: pictures: gnuplot is not installed\n";
    check_failure(pare_opt(texts, "compare", options), 2, "pare", {"install gnuplot-nox"});
    return;
  }
  check_success(pare_opt(texts, "compare", options));
  const fs::path folder = texts / "pictures";
  const Json report = cli::parse_json(cli::read_text(folder / "compare.json"));
  BOOST_REQUIRE(report.at("runs").size() == 8u);
  for (const char* picture : {"frontier.svg", "widths.svg"}) {
    const std::string svg = cli::read_text(folder / picture);
    BOOST_CHECK(test::contains(svg, "<svg"));
    BOOST_CHECK(test::contains(svg, "</svg>"));
  }
  const std::string frontier = cli::read_text(folder / "frontier.svg");
  for (const char* part : {"budget-model", "budget-layer", "quantile", "uniform", "dense",
                           "perplexity on short", "stored bits per weight", "KL"})
    BOOST_CHECK(test::contains(frontier, part));
  const std::string widths = cli::read_text(folder / "widths.svg");
  for (const char* part : {"2.self_attn.k_proj", "3.fc2", "8 bits"})
    BOOST_CHECK(test::contains(widths, part));
  // The key covers no curve, and the title says what is pruned.
  const std::string script = cli::read_text(folder / "frontier.gnuplot");
  BOOST_CHECK(test::contains(script, "set key outside "));
  BOOST_CHECK(!test::contains(script, "set key top"));
  BOOST_CHECK(
      test::contains(frontier,
                     "opt-tiny, 0 % sparsity, groups of 128, 64 or 32, calibrated on calib.txt"));
  BOOST_CHECK(
      test::contains(widths,
                     "opt-tiny, 0 % sparsity, groups of 128, 64 or 32, calibrated on calib.txt"));
  // Every run is a point of the script.
  for (std::size_t r = 1; r < 8; ++r) {
    std::ostringstream point;
    point.precision(10);
    point << report["runs"][r]["totals"]["stored_bits_per_weight"].get<double>() << ' '
          << report["runs"][r]["perplexity"]["short"].get<double>() << '\n';
    BOOST_TEST_INFO(point.str());
    BOOST_CHECK(test::contains(script, point.str()));
  }
}

BOOST_AUTO_TEST_CASE(the_comparison_fails_when_two_configurations_agree) {
  // Nothing is left at this sparsity, so that every configuration gives zeros.
  const Texts texts;
  const Outcome outcome =
      pare_opt(texts, "compare",
               {"--sparsity", "0.9999999999999", "--prune-only", "3.self_attn.q_proj"});
  check_failure(outcome, 1, "pare",
                {"identical weights", "\"uniform 4\" and \"quantile 4.0\"",
                 "\"uniform 4\" and \"quantile 3.5\"", "\"quantile 4.0\" and \"quantile 3.5\"",
                 "\"quantile 3.5\" and \"budget-layer 3.5\""});
  BOOST_CHECK(!test::contains(outcome.err, "\"dense\""));
  BOOST_CHECK(!test::contains(outcome.err, "\"budget-layer 3.5\" and \"budget-model 3.5\""));
}
