// Misuses of the two programs: tests/misuse/run_time.json says what is written, what is answered,
// and what may be read by then. docs/misuse.md is rendered from it and from the compile-time table.
#define BOOST_TEST_MODULE pare_misuse
#include <boost/test/unit_test.hpp>

#include <limits>
#include <sstream>

#include "cli_support.hpp"
#include "pare/pipeline/dispatch.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::Folder;
using cli::Json;
using cli::Outcome;

namespace {

const fs::path tests = PARE_TESTS_DIR;
const fs::path page = tests.parent_path() / "docs" / "misuse.md";
const fs::path tiny = fs::path(test::examples_data) / "opt-tiny";

/// One line of the run-time table.
struct Misuse {
  std::string program, command;
  std::optional<Arguments> options;    ///< behind MODEL CALIB_TEXT or IN OUT
  std::optional<Arguments> arguments;  ///< or everything behind the program's name
  std::map<std::string, std::vector<std::int64_t>> tensors;  ///< of IN: name and shape
  std::string message;
  std::string reads;  ///< "nothing", "config", "header" or "text"
};

std::vector<Misuse> run_time_misuses() {
  std::vector<Misuse> misuses;
  for (const Json& json : cli::parse_json(cli::read_text(tests / "misuse" / "run_time.json"))) {
    Misuse misuse{.program = json.at("program"),
                  .command = json.value("command", ""),
                  .options = {},
                  .arguments = {},
                  .tensors = json.value("tensors", decltype(Misuse::tensors){}),
                  .message = json.at("message"),
                  .reads = json.at("reads")};
    if (json.contains("options")) misuse.options = json["options"].get<Arguments>();
    if (json.contains("arguments")) misuse.arguments = json["arguments"].get<Arguments>();
    misuses.push_back(misuse);
  }
  return misuses;
}

using Placeholders = std::vector<std::pair<std::string, std::string>>;

std::string replaced(std::string text, const Placeholders& placeholders) {
  for (const auto& [placeholder, value] : placeholders)
    for (std::size_t at = 0; (at = text.find(placeholder, at)) != std::string::npos;
         at += value.size())
      text.replace(at, placeholder.size(), value);
  return text;
}

bool holds(const Arguments& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Everything behind the program's name. Every output that the command has is named.
Arguments command_line(const Misuse& misuse) {
  if (misuse.arguments) return *misuse.arguments;
  const Arguments& options = misuse.options.value();
  if (misuse.program == "pare-layer") {
    Arguments all{"{in}", "{out}"};
    all.insert(all.end(), options.begin(), options.end());
    return all;
  }
  Arguments all{misuse.command, "{model}"};
  if (misuse.command != "evaluate") all.push_back("{text}");
  if (misuse.command == "compress" && !holds(options, "--save"))
    all.insert(all.end(), {"--save", "{saved}"});
  if (!holds(options, "--report")) all.insert(all.end(), {"--report", "{report}"});
  all.insert(all.end(), options.begin(), options.end());
  return all;
}

/// A folder that holds what may be read before the refusal, and nothing that may not.
struct Scene : Folder {
  explicit Scene(const Misuse& misuse) {
    fs::create_directory(path / "taken");
    cli::write_text(path / "taken" / "file", "");
    if (misuse.reads == "config" || misuse.reads == "text") {
      fs::create_directory(path / "model");
      fs::copy_file(tiny / "config.json", path / "model" / "config.json");
    }
    if (misuse.reads == "text") {  // and no weights
      for (const char* name : {"vocab.json", "merges.txt"})
        fs::copy_file(tiny / name, path / "model" / name);
      cli::write_text(path / "text.txt",
                      cli::read_text(tiny.parent_path() / "sampled.calib.txt").substr(0, 9000));
      cli::write_text(path / "empty.txt", "");
    }
    if (misuse.reads == "header") {
      std::vector<pare::TensorData> tensors;
      for (const auto& [name, shape] : misuse.tensors) {
        std::size_t size = 1;
        for (const std::int64_t side : shape) size *= std::size_t(side);
        // A program that looks at the elements complains of them.
        const std::vector<float> poison(size, std::numeric_limits<float>::quiet_NaN());
        tensors.push_back({name, "F32", shape, pare::encode_floats(poison, pare::DType::f32)});
      }
      pare::write_safetensors(path / "in.safetensors", tensors);
    }
  }

  Placeholders placeholders() const {
    const std::string folder = fs::canonical(path).string();
    return {{"{folder}", folder},
            {"{model}", folder + "/model"},
            {"{text}", folder + "/text.txt"},
            {"{in}", folder + "/in.safetensors"},
            {"{out}", folder + "/out.safetensors"},
            {"{saved}", folder + "/saved"},
            {"{report}", folder + "/report.json"}};
  }
};

// What the page calls the placeholders.
const Placeholders page_names{{"{folder}/", ""},     {"{model}", "MODEL"}, {"{text}", "CALIB_TEXT"},
                              {"{in}", "IN"},        {"{out}", "OUT"},     {"{saved}", "SAVED"},
                              {"{report}", "REPORT"}};

/// What a reader of the page sees as written: the options, or the whole command line.
std::string shown_words(const Misuse& misuse) {
  std::string text = misuse.arguments ? misuse.program : "";
  for (const std::string& word : misuse.arguments ? *misuse.arguments : *misuse.options)
    text += (text.empty() ? "" : " ") + (word.empty() ? "\"\"" : word);
  for (const auto& [name, shape] : misuse.tensors) {
    text += text.find(" # IN: ") == std::string::npos ? " # IN: " : ", ";
    text += name + " (";
    for (std::size_t i = 0; i < shape.size(); ++i)
      text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    text += ")";
  }
  return replaced(text, page_names);
}

/// The misuses of one command as a table.
std::string rendered(const std::vector<Misuse>& misuses, const std::string& program,
                     const std::string& command) {
  std::string text = "| written | answered | read by then |\n|---|---|---|\n";
  for (const Misuse& misuse : misuses) {
    if (misuse.program != program || misuse.command != command) continue;
    const std::string words = shown_words(misuse);
    text += "| " + (words.empty() ? "(nothing)" : "`" + words + "`") + " | " + "`" +
            replaced(misuse.message, page_names) + "` | " + misuse.reads + " |\n";
  }
  return text;
}

/// A snippet of tests/compile_fail: what does not compile, and what to write in its place.
struct Snippet {
  std::string wrong, right;
};

Snippet read_snippet(const std::string& name) {
  const fs::path file = tests / "compile_fail" / (name + ".cpp");
  Snippet snippet;
  std::string* part = &snippet.wrong;
  int directives = 0;
  std::istringstream lines(cli::read_text(file));
  for (std::string line; std::getline(lines, line);) {
    if (line == "#else") part = &snippet.right;
    if (line == "#endif") part = &snippet.wrong;
    directives += line == "#ifdef PARE_MISUSE" || line == "#else" || line == "#endif";
    const bool is_frame = line.starts_with("#") || line == "using namespace pare;" ||
                          line.starts_with("static_assert(sizeof(");
    if (!is_frame) *part += line + "\n";
  }
  BOOST_TEST_INFO(file.string() << ": expected #ifdef PARE_MISUSE, #else, #endif, once each");
  BOOST_REQUIRE((directives == 3 && !snippet.wrong.empty() && !snippet.right.empty()));
  return snippet;
}

std::string rendered_page() {
  std::string text =
      "# Misuses\n"
      "\n"
      "What does not compile or does not run, what is answered, and what to write instead. This\n"
      "page is rendered from the tables that the tests hold against the compilers and the "
      "programs\n"
      "([compile time](../tests/compile_fail/misuses.json), "
      "[run time](../tests/misuse/run_time.json)):\n"
      "`PARE_UPDATE_DOCS=1 ctest -R misuse` renders it anew.\n"
      "\n"
      "## At compile time\n";
  const std::string table = cli::read_text(tests / "compile_fail" / "misuses.json");
  for (const Json& misuse : cli::parse_json(table)) {
    const std::string name = misuse.at("name");
    const Snippet snippet = read_snippet(name);
    text += "\n### " + replaced(name, {{"_", " "}}) + "\n\n```cpp\n" + snippet.wrong +
            "```\n\n> `" + misuse.at("message").get<std::string>() + "`\n\n```cpp\n" +
            snippet.right + "```\n";
  }
  text +=
      "\n## On the command line\n"
      "\n"
      "Each ends with exit code 2 and one line on standard error, the program's name in front of\n"
      "what is shown here; nothing is written. The last column says what has been read by then:\n"
      "`config` is the model's config.json, `header` that of the safetensors file, `text` the\n"
      "vocabulary and the texts.\n";
  const std::vector<Misuse> misuses = run_time_misuses();
  text += "\n### pare-layer IN OUT\n\n" + rendered(misuses, "pare-layer", "");
  text += "\n### pare\n\n" + rendered(misuses, "pare", "");
  for (const char* command :
       {"compress MODEL CALIB_TEXT", "evaluate MODEL", "compare MODEL CALIB_TEXT"}) {
    const std::string words = command;
    text += "\n### pare " + words + "\n\n" +
            rendered(misuses, "pare", words.substr(0, words.find(' ')));
  }
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_misuse_is_refused_with_its_message_before_more_is_read) {
  for (const Misuse& misuse : run_time_misuses()) {
    const Scene scene(misuse);
    const Placeholders placeholders = scene.placeholders();
    Arguments words = command_line(misuse);
    for (std::string& word : words) word = replaced(word, placeholders);
    BOOST_TEST_CONTEXT(misuse.program << " " << cli::text_of(words)) {
      const auto before = cli::listing(scene.path);
      const Outcome outcome =
          cli::run(misuse.program == "pare" ? PARE_TOOL : PARE_LAYER, words, scene.path);
      BOOST_TEST(outcome.code == 2);
      BOOST_TEST(outcome.err ==
                 misuse.program + ": " + replaced(misuse.message, placeholders) + "\n");
      BOOST_TEST(outcome.out == "");
      BOOST_CHECK(cli::listing(scene.path) == before);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_table_holds_every_misuse_once_and_many) {
  const std::set<std::string> programs{"pare-layer", "pare"};
  const std::set<std::string> commands{"", "compress", "evaluate", "compare"};
  const std::set<std::string> readings{"nothing", "config", "header", "text"};
  std::set<std::string> seen;
  std::map<std::string, int> entries;
  for (const Misuse& misuse : run_time_misuses()) {
    const std::string words = misuse.program + " " + misuse.command + " " + shown_words(misuse);
    BOOST_TEST_CONTEXT(words) {
      BOOST_TEST(seen.insert(words).second);
      BOOST_TEST(programs.contains(misuse.program));
      BOOST_TEST(commands.contains(misuse.command));
      BOOST_TEST(readings.contains(misuse.reads));
      BOOST_TEST(misuse.options.has_value() != misuse.arguments.has_value());
      BOOST_TEST((misuse.reads == "header") == !misuse.tensors.empty());
      ++entries[misuse.program];
    }
  }
  for (const std::string& program : programs) BOOST_TEST(entries[program] >= 25);
}

BOOST_AUTO_TEST_CASE(a_request_becomes_the_type_that_says_the_same_or_is_refused) {
  using pare::PatternKind, pare::PolicyKind;
  for (const auto pattern : {PatternKind::dense, PatternKind::unstructured, PatternKind::n_of_m})
    for (const bool quantize : {false, true})
      for (const auto policy : {PolicyKind::none, PolicyKind::quantile, PolicyKind::budget})
        BOOST_TEST_CONTEXT("pattern " << int(pattern) << ", quantize " << quantize << ", policy "
                                      << int(policy)) {
          pare::CompressionRequest request{policy, {}};
          if (pattern == PatternKind::unstructured) request.solver.sparsity = 0.5;
          if (pattern == PatternKind::n_of_m)
            std::tie(request.solver.zeros, request.solver.of) = std::pair(1, 2);
          if (quantize) request.solver.bits = 4;
          const auto dispatched = [&] {
            return pare::dispatch(request, []<class Config>(std::type_identity<Config>) {
              const auto kind = pare::Pattern(typename Config::pattern{}).kind;
              using Policy = typename Config::policy;
              const auto chosen = std::is_void_v<Policy>                 ? PolicyKind::none
                                  : std::is_same_v<Policy, pare::Budget> ? PolicyKind::budget
                                                                         : PolicyKind::quantile;
              return std::tuple(kind, Config::quantizes, chosen);
            });
          };
          const bool rounds_nothing = policy != PolicyKind::none && !quantize;
          const bool does_nothing = pattern == PatternKind::dense && !quantize;
          if (rounds_nothing || does_nothing)
            BOOST_CHECK_THROW(dispatched(), pare::argument_error);
          else
            BOOST_CHECK(dispatched() == std::tuple(pattern, quantize, policy));
        }
}

BOOST_AUTO_TEST_CASE(the_page_shows_the_tables) {
  const std::string text = rendered_page();
  if (const char* update = std::getenv("PARE_UPDATE_DOCS"); update && update == std::string("1"))
    cli::write_text(page, text);
  const std::string written = cli::read_text(page);
  const auto differs = std::mismatch(written.begin(), written.end(), text.begin(), text.end());
  BOOST_TEST_INFO("docs/misuse.md is stale from line "
                  << 1 + std::count(written.begin(), differs.first, '\n')
                  << "; render it with PARE_UPDATE_DOCS=1 ctest -R misuse");
  BOOST_CHECK(written == text);
}
