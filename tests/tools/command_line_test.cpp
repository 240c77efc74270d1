// What both programs share on the command line: suggestions, --help, --version, progress, tables.
#define BOOST_TEST_MODULE pare_command_line
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <optional>
#include <sstream>

#include "cli_support.hpp"
#include "common/progress.hpp"
#include "common/suggestions.hpp"
#include "pare/core/version.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Json;
using cli::Outcome;

namespace {

using Names = std::vector<std::string>;

const fs::path tiny = cli::data / "opt-tiny";
const Names commands{"compress", "evaluate", "compare", "unpack",
                     "export",   "inspect",  "table",   "verify"};

/// Every command line that prints a help text.
std::vector<std::pair<fs::path, Arguments>> helps() {
  std::vector<std::pair<fs::path, Arguments>> all{{PARE_LAYER, {"--help"}},
                                                  {PARE_TOOL, {"--help"}}};
  for (const std::string& command : commands) all.push_back({PARE_TOOL, {command, "--help"}});
  return all;
}

Names lines_of(const std::string& text) {
  std::istringstream stream(text);
  Names lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// What a program shows on a line that it rewrites, each time.
Names rewritten(const std::string& screen) {
  const std::string begin = "\r\033[K";
  Names texts;
  for (std::size_t at = screen.find(begin); at != std::string::npos;) {
    const std::size_t next = screen.find(begin, at + begin.size());
    const std::string text = screen.substr(at + begin.size(), next - at - begin.size());
    if (!text.empty()) texts.push_back(text.substr(0, text.find('\r')));
    at = next;
  }
  return texts;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_edit_distance_counts_swapped_neighbours_once) {
  BOOST_TEST(tool::edit_distance("", "") == 0u);
  BOOST_TEST(tool::edit_distance("", "abc") == 3u);
  BOOST_TEST(tool::edit_distance("kitten", "sitting") == 3u);
  BOOST_TEST(tool::edit_distance("sparsity", "sparsty") == 1u);
  BOOST_TEST(tool::edit_distance("quantile", "qauntile") == 1u);
  BOOST_TEST(tool::edit_distance("ca", "abc") == 3u);  // optimal string alignment
  BOOST_TEST(tool::edit_distance("budget", "quantile") == 7u);
}

BOOST_AUTO_TEST_CASE(the_nearest_words_are_suggested_and_distant_ones_are_not) {
  const Names options{"--sparsity", "--wbits", "--target-avg-bits", "--target-bits-per-weight",
                      "--save",     "--seqlen"};
  const auto check = [&](const std::string& word, const Names& expected) {
    const Names found = tool::nearest(word, options);
    BOOST_TEST_INFO(word);
    BOOST_CHECK_EQUAL_COLLECTIONS(found.begin(), found.end(), expected.begin(), expected.end());
  };
  check("--sparcity", {"--sparsity"});
  check("-sparsity", {"--sparsity"});
  check("--SPARSITY", {"--sparsity"});
  check("--wbit", {"--wbits"});
  check("--target", {"--target-avg-bits", "--target-bits-per-weight"});
  check("--target_avg_bit", {"--target-avg-bits"});
  check("--seed", {});  // two letters of four
  check("--s", {});     // says too little
  check("--", {});
  check("--calibration", {});
  BOOST_TEST(tool::did_you_mean("autp", {"auto"}) == "; did you mean auto?");
  BOOST_TEST(tool::did_you_mean("half", {"auto"}) == "");
  BOOST_TEST(tool::one_of({"a", "b", "c"}) == "a, b or c");
}

BOOST_AUTO_TEST_CASE(progress_fits_its_columns) {
  BOOST_TEST(tool::progress_text("compressing", 0.25, 12.4, 80) == "compressing:  25 %, 12 s left");
  BOOST_TEST(tool::progress_text("compressing", 1, 0, 29) == "compressing: 100 %, 0 s left");
  BOOST_TEST(tool::progress_text("compressing", 1, 0, 27) == "compres...: 100 %, 0 s left");
  BOOST_TEST(tool::progress_text("compressing", 1, 0, 17) == ": 100 %, 0 s left");
  BOOST_TEST(tool::progress_text("compressing", 1, 0, 9) == ": 100 %, ");
  // A character that is not ASCII may take two columns and is not cut within.
  BOOST_TEST(tool::cut_to_columns("\u00e4\u00f6\u00fc", 5) == "\u00e4\u00f6");
  BOOST_TEST(tool::cut_to_columns("a\nb\033c\x7f", 9) == "a?b?c?");
}

BOOST_AUTO_TEST_CASE(every_line_of_help_fits_100_columns) {
  for (const auto& [program, arguments] : helps()) BOOST_TEST_CONTEXT(cli::text_of(arguments)) {
      const Outcome help = cli::run(program, arguments);
      check_success(help);
      BOOST_CHECK(test::contains(help.out, "\nUsage: "));
      BOOST_CHECK(test::contains(help.out, "--version"));
      for (const std::string& line : lines_of(help.out)) {
        BOOST_TEST_INFO(line);
        BOOST_CHECK(line.size() <= 100u);
        BOOST_CHECK(!line.ends_with(" "));
      }
    }
  const std::string compress = cli::run(PARE_TOOL, {"compress", "--help"}).out;
  BOOST_CHECK(test::contains(compress, "Usage: pare compress MODEL CALIB_TEXT [OPTION]..."));
  for (const char* part : {"quantile without a target", "--sparsity FLOAT", "--preset TEXT"})
    BOOST_CHECK(test::contains(compress, part));
  // What is not said on the command line is said here.
  const std::string compare = cli::run(PARE_TOOL, {"compare", "--help"}).out;
  BOOST_CHECK(test::contains(compare, "[0, 1) (default: 0.5; 0 prunes nothing)"));
  BOOST_CHECK(test::contains(cli::run(PARE_TOOL, {"verify", "--help"}).out, "PACKED [TEXT] "));
}

BOOST_AUTO_TEST_CASE(help_fits_a_narrow_terminal) {
  for (const auto& [program, arguments] : helps()) BOOST_TEST_CONTEXT(cli::text_of(arguments)) {
      const Outcome help = cli::run_on_terminal(program, arguments, 60, "xterm");
      BOOST_TEST(help.code == 0);
      for (std::string line : lines_of(help.out)) {
        if (line.ends_with("\r")) line.pop_back();
        BOOST_TEST_INFO(line);
        BOOST_CHECK(line.size() <= 60u || line.starts_with("Usage: "));
      }
    }
}

BOOST_AUTO_TEST_CASE(the_version_is_the_headers) {
  const std::string numbers = std::to_string(PARE_VERSION_MAJOR) + "." +
                              std::to_string(PARE_VERSION_MINOR) + "." +
                              std::to_string(PARE_VERSION_PATCH);
  BOOST_TEST(PARE_VERSION_TEXT == numbers);
  const auto check = [&](const fs::path& program, const Arguments& arguments,
                         const std::string& name) {
    const Outcome version = cli::run(program, arguments);
    check_success(version);
    BOOST_TEST(version.out == name + " " + numbers + "\n");
  };
  check(PARE_LAYER, {"--version"}, "pare-layer");
  check(PARE_TOOL, {"--version"}, "pare");
  for (const std::string& command : commands) check(PARE_TOOL, {command, "--version"}, "pare");
}

BOOST_AUTO_TEST_CASE(progress_is_cut_to_the_terminal_and_plain_on_a_dumb_one) {
  // Long enough that progress is shown: on one thread a second of work.
  const cli::Texts texts;
  cli::write_text(texts.evaluation, cli::excerpt("sampled.eval.txt", 60000));
  const std::string name = "a text with a name that is longer than the terminal is wide";
  const Arguments arguments{"evaluate", tiny.string(), "--eval",
                            name + "=" + texts.evaluation.string()};
  const Outcome wide = cli::run_on_terminal(PARE_TOOL, arguments, 200, "xterm");
  BOOST_REQUIRE(wide.code == 0);
  const Names whole = rewritten(wide.err);
  BOOST_REQUIRE(!whole.empty());
  for (const std::string& text : whole)
    BOOST_CHECK(text.starts_with("perplexity of the given model on " + name + ": "));

  const Outcome narrow = cli::run_on_terminal(PARE_TOOL, arguments, 40, "xterm");
  BOOST_REQUIRE(narrow.code == 0);
  const Names cut = rewritten(narrow.err);
  BOOST_REQUIRE(!cut.empty());
  for (const std::string& text : cut) {
    BOOST_TEST_INFO(text);
    BOOST_CHECK(text.size() <= 39u && test::contains(text, "...: "));
    BOOST_CHECK(text.ends_with(" s left"));
  }
  BOOST_CHECK(narrow.err.ends_with("\r\033[K"));  // nothing stays

  for (const char* terminal : {"dumb", ""}) {
    const Outcome plain = cli::run_on_terminal(PARE_TOOL, arguments, 40, terminal);
    BOOST_TEST(plain.code == 0);
    BOOST_CHECK(plain.err.find('\033') == std::string::npos);
    for (const std::string& line : lines_of(plain.err)) BOOST_CHECK(line.ends_with(" s left\r"));
  }
}

BOOST_AUTO_TEST_CASE(a_table_shows_reports_side_by_side) {
  const cli::Texts texts;
  const auto compress = [&](const std::string& name, const Arguments& options) {
    Arguments all{"compress",
                  tiny.string(),
                  texts.calibration.string(),
                  "--nsamples",
                  "2",
                  "--eval",
                  "short=" + texts.evaluation.string(),
                  "--report",
                  name,
                  "--minlayer",
                  "3"};
    all.insert(all.end(), options.begin(), options.end());
    check_success(cli::run(PARE_TOOL, all, texts.path));
    return cli::parse_json(cli::read_text(texts / name.c_str()));
  };
  const Json uniform = compress("uniform.json", {"--sparsity", "0.5", "--wbits", "4"});
  const Json shares = compress("shares.json", {"--wbits", "4", "--bit-method", "quantile"});
  const Outcome table =
      cli::run(PARE_TOOL, {"table", "half, 4 bits=uniform.json", "equal shares=shares.json"},
               texts.path);
  check_success(table);
  const Names rows = lines_of(table.out);
  BOOST_REQUIRE(rows.size() == 5u);  // two of the head, dense, two
  const auto words = [&](std::size_t row, std::size_t name) {
    std::istringstream stream(rows[row].substr(name));
    return Names(std::istream_iterator<std::string>(stream), {});
  };
  const auto number = [](double value, int digits) {
    std::ostringstream stream;
    stream << std::fixed;
    stream.precision(digits);
    stream << value;
    return stream.str();
  };
  const auto perplexity = [&](const Json& report, const char* model) {
    return number(report.at("perplexity").at(model).at("short"), 3);
  };
  const Names head{"bits", "2", "3", "4", "6", "8", "%", "bits", "short"};
  BOOST_TEST(words(1, 0) == head, boost::test_tools::per_element());
  const Names dense{"-", "-", "-", "-", "-", "-", "-", "-", perplexity(uniform, "dense")};
  BOOST_TEST(rows[2].starts_with("dense "));
  BOOST_TEST(words(2, 12) == dense, boost::test_tools::per_element());
  const Names half{"4.00",
                   "-",
                   "-",
                   "100.0",
                   "-",
                   "-",
                   "50.0",
                   number(uniform.at("totals").at("stored_bits_per_weight"), 3),
                   perplexity(uniform, "compressed")};
  BOOST_TEST(rows[3].starts_with("half, 4 bits "));
  BOOST_TEST(words(3, 12) == half, boost::test_tools::per_element());
  BOOST_TEST(rows[4].starts_with("equal shares "));
  for (std::size_t k = 1; k <= 5; ++k) BOOST_TEST(std::abs(std::stod(words(4, 12)[k]) - 20) <= 0.5);
  BOOST_TEST(words(4, 12)[6] == "0.0");

  // What does not belong beside the others is refused.
  check_failure(cli::run(PARE_TOOL, {"table", "uniform.json"}, texts.path), 2, "pare",
                {"REPORT uniform.json: a row needs a name; write NAME=FILE"});
  cli::write_text(texts / "other.json", Json{{"perplexity", 3}}.dump());
  check_failure(cli::run(PARE_TOOL, {"table", "a=other.json"}, texts.path), 2, "pare",
                {"other.json: not a report of compress or compare"});
  Json changed = shares;
  changed["perplexity"]["dense"]["short"] = 7.5;
  cli::write_text(texts / "other.json", changed.dump());
  check_failure(cli::run(PARE_TOOL, {"table", "a=uniform.json", "b=other.json"}, texts.path), 2,
                "pare", {"their dense models differ", "short 7.500"});
}
