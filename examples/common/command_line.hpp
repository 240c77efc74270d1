// The command line of pare and pare-layer: options, outputs, and errors of one line.
#pragma once

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

#include "common/help.hpp"
#include "common/signals.hpp"
#include "common/suggestions.hpp"
#include "pare/core/error.hpp"
#include "pare/core/version.hpp"

namespace tool {

namespace fs = std::filesystem;

/// What the program is called, which its messages begin with.
inline std::string program = "pare";

/// A command line that cannot be carried out: one line, exit code 2. Messages are of the form
/// "<what was written>: <why it cannot work>; <what to write instead>".
struct usage_error : pare::argument_error {
  using pare::argument_error::argument_error;
};

/// "--a-b,--a_b": an option in both spellings; the scripts of GPTQ have a third of one.
inline std::string both_spellings(std::string name) {
  if (name == "--group-size") return "--group-size,--group_size,--groupsize";
  std::string underscored = name;
  for (std::size_t i = 2; i < underscored.size(); ++i)
    if (underscored[i] == '-') underscored[i] = '_';
  return underscored == name ? name : name + "," + underscored;
}

/// "OPTION VALUE" as it was written; an empty value stays visible.
inline std::string written(const std::string& option, const std::string& value) {
  return option + " " + (value.empty() ? "\"\"" : value);
}

/// What an option with this type name in --help expects.
inline std::string expected_value(const std::string& type) {
  static const std::map<std::string, std::string> texts{{"INT", "a whole number"},
                                                        {"FLOAT", "a number"},
                                                        {"TEXT", "a text"},
                                                        {"DIR", "a folder"},
                                                        {"FILE", "a file"}};
  const auto found = texts.find(type);
  return found == texts.end() ? type : found->second;
}

inline usage_error without_value(const std::string& option, const std::string& type) {
  return usage_error(option + " without a value: expected " + expected_value(type));
}

template <class T>
inline constexpr const char* type_name = std::is_floating_point_v<T> ? "FLOAT"
                                         : std::is_arithmetic_v<T>   ? "INT"
                                                                     : "TEXT";

/// "; write 3.5" for numbers as they are written elsewhere, "3,5" and "350 %"; otherwise empty.
inline std::string number_advice(std::string text) {
  const bool percent = text.ends_with('%');
  if (percent) text.pop_back();
  const std::size_t comma = text.find(',');
  if (comma != std::string::npos) text[comma] = '.';
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if ((!percent && comma == std::string::npos) || stop != end || error != std::errc()) return "";
  char shown[32];
  std::snprintf(shown, sizeof shown, "%g", percent ? value / 100 : value);
  return std::string("; write ") + shown;
}

/// The number that the whole text is, or the text itself where T is one. Throws usage_error.
template <class T>
T parse_value(const std::string& option, const std::string& text) {
  if constexpr (std::is_arithmetic_v<T>) {
    const std::string expected = expected_value(type_name<T>);
    const char* const end = text.data() + text.size();
    T value{};
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (stop == end && error == std::errc::result_out_of_range)
      throw usage_error(written(option, text) + ": out of range for " + expected);
    if (stop != end || error != std::errc())
      throw usage_error(written(option, text) + ": expected " + expected +
                        (std::is_floating_point_v<T> ? number_advice(text) : ""));
    return value;
  } else {
    return text;
  }
}

/// Names the group in which --help lists the options that are registered from here on.
inline void begin_group(CLI::App& app, const std::string& name) {
  app.option_defaults()->group(name);
}

/// Whether an argument must be given: always, as require_arguments says, or never.
enum class Need { always, asked, never };

/// Registers an option whose words go to `read`, one a time it is given. The parser itself converts
/// nothing, so that every refusal is ours.
template <class Read>
void add_words(CLI::App& app, const std::string& name, const char* type, const std::string& help,
               const Read& read) {
  const auto callback = [&app, name, type, read](const CLI::results_t& words) {
    for (const std::string& word : words)  // the parser takes the next option for a value
      if (word.starts_with("-") && app.get_option_no_throw(word) != nullptr)
        throw without_value(name, type);
    read(words);
    return true;
  };
  app.add_option(both_spellings(name), CLI::callback_t(callback), help)
      ->type_name(type)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

/// Registers an option that is given once; its word goes to `read`.
/// @param type   what --help calls the value
/// @param once   why it cannot be given twice
template <class Read>
void add_word(CLI::App& app, const std::string& name, const char* type, const std::string& help,
              const std::string& once, const Read& read) {
  add_words(app, name, type, help, [name, once, read](const std::vector<std::string>& words) {
    std::string all;
    for (const std::string& word : words) all += (all.empty() ? "" : " ") + written(name, word);
    if (words.size() > 1) throw usage_error(all + ": " + once + "; give it once");
    read(words.front());
  });
}

/// The same for a number or a text.
/// @param value  set when the option is given
template <class T>
void add_value(CLI::App& app, const std::string& name, std::optional<T>& value,
               const std::string& help, const char* type = type_name<T>,
               const std::string& once = "an option has one value") {
  add_word(app, name, type, help, once,
           [&value, name](const std::string& word) { value = parse_value<T>(name, word); });
}

/// Registers an option that may be given several times.
inline void add_values(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                       const std::string& help, const char* type) {
  add_words(app, name, type, help,
            [&values](const std::vector<std::string>& words) { values = words; });
}

/// Registers an argument that names a file or a folder.
inline void add_argument(CLI::App& app, const std::string& name, std::string& value,
                         const std::string& help, Need need = Need::always) {
  const auto callback = [&value, name](const CLI::results_t& words) {
    value = words.front();
    if (value.empty())
      throw usage_error(written(name, value) + ": the name is empty; name another");
    return true;
  };
  CLI::Option* argument = app.add_option(name, CLI::callback_t(callback), help);
  argument->required(need == Need::always);
  if (need == Need::never) argument->group(optional_group);
}

/// Registers an argument that is given once or more; like add_argument().
inline void add_arguments(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                          const std::string& help) {
  const auto callback = [&values](const CLI::results_t& words) {
    values = words;
    return true;
  };
  app.add_option(name, CLI::callback_t(callback), help)
      ->required()
      ->expected(-1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

/// Registers an option without a value.
inline void add_flag(CLI::App& app, const std::string& name, bool& flag, const std::string& help) {
  app.add_flag(both_spellings(name), flag, help)->disable_flag_override();
}

/// The refusal of a word that is none of those an option takes.
/// @param kind   what the words are, "method"
/// @param known  those that there are
/// @param alias  what others call some of them
inline usage_error unknown_value(const std::string& option, const std::string& value,
                                 const std::string& kind, const std::vector<std::string>& known,
                                 const std::map<std::string, std::string>& alias = {}) {
  const auto found = alias.find(value);
  return usage_error(written(option, value) + ": there is no such " + kind + "; write " +
                     one_of(known) +
                     did_you_mean(found == alias.end() ? value : found->second, known));
}

namespace detail {

/// What a command is called, how it is written, and the first of its arguments that is missing.
struct Usage {
  std::string name, text, missing;

  Usage(const CLI::App& app, const CLI::App& command)
      : name(&app == &command ? app.get_name() : app.get_name() + " " + command.get_name()),
        text(name) {
    for (const CLI::Option* option : command.get_options()) {
      if (!option->get_positional()) continue;
      text += " " + argument_label(*option);
      if (option->count() == 0 && missing.empty() && option->get_group() != optional_group)
        missing = option->get_name(true);
    }
  }
  std::string refusal() const {
    return name + " without " + missing + ": an argument is missing; write " + text;
  }
};

/// Every option of a command as --help names it.
inline std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    if (option->nonpositional()) names.push_back("--" + option->get_lnames().front());
  return names;
}

/// @param name  what the command is called
inline std::string unknown_option(const CLI::App& app, const CLI::App& command,
                                  const std::string& name, const std::string& option) {
  std::string owners;
  for (const CLI::App* other : app.get_subcommands([](const CLI::App*) { return true; }))
    if (other != &command && other->get_option_no_throw(option) != nullptr)
      owners += (owners.empty() ? "" : ", ") + other->get_name();
  if (!owners.empty())
    return option + ": " + name + " has no such option, it is one of " + owners + "; see " + name +
           " --help";
  return option + ": unknown option; see " + name + " --help" +
         did_you_mean(option, option_names(command));
}

/// Says why the parser refused the words. What it says itself differs from version to version.
inline std::string refusal(const CLI::App& app, std::span<char* const> words,
                           const CLI::ParseError& error) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  const CLI::App& command = parsed.empty() ? app : *parsed.front();
  const std::vector<std::string> surplus = command.remaining();
  if (!commands.empty() && parsed.empty()) {
    std::vector<std::string> names;
    for (const CLI::App* other : commands) names.push_back(other->get_name());
    if (surplus.empty()) return "no command: there is nothing to do; write " + one_of(names);
    const std::string refusal = surplus.front() + ": unknown command; write " + one_of(names);
    for (const std::string& name : option_names(app)) names.push_back(name);
    return refusal + did_you_mean(surplus.front(), names);
  }

  const Usage usage(app, command);
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    const std::string last = words.back();
    if (const CLI::Option* option = command.get_option_no_throw(last))
      return without_value(option->get_name(), option->get_type_name()).what();
    for (const std::string word : words)
      if (const CLI::Option* option = command.get_option_no_throw(word.substr(0, word.find('=')));
          option != nullptr && option->get_items_expected_max() == 0 &&
          word.find('=') != std::string::npos)
        return word + ": a flag takes no value; write " + option->get_name() + " or leave it out";
  }
  for (const std::string& word : surplus)
    if (word.starts_with("-"))
      return unknown_option(app, command, usage.name, word.substr(0, word.find('=')));
  if (!usage.missing.empty()) return usage.refusal();
  if (!surplus.empty())
    return surplus.front() + ": an argument too many; write " + usage.text +
           (command.get_option_no_throw("--eval") != nullptr
                ? ", and a text to measure perplexity on as --eval NAME=FILE"
                : "");
  return error.what();
}

}  // namespace detail

/// Parses the command line. Returns false when it asked for help or for the version, which is then
/// printed.
/// @throws usage_error for what cannot be parsed
inline bool parse(CLI::App& app, int argc, char** argv) {
  const std::string version = app.get_name() + " " + PARE_VERSION_TEXT;
  std::vector<CLI::App*> all = app.get_subcommands([](const CLI::App*) { return true; });
  all.push_back(&app);
  for (CLI::App* command : all) {
    begin_group(*command, "Other");
    command->set_help_flag("-h,--help", "print this text");
    command->set_version_flag("--version", version, "print the version of the program");
    command->formatter(help_text());
  }
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::Success& e) {
    app.exit(e);
    return false;
  } catch (const CLI::ParseError& e) {
    throw usage_error(detail::refusal(app, {argv, std::size_t(argc)}, e));
  }
}

/// Throws usage_error when an argument of the command is missing.
inline void require_arguments(const CLI::App& app, const CLI::App& command) {
  const detail::Usage usage(app, command);
  if (!usage.missing.empty()) throw usage_error(usage.refusal());
}

/// Throws unless all that was printed has arrived: a device may be full, a pipe closed.
inline void require_printed() {
  errno = 0;
  std::cout.flush();
  // What failed in the middle of the run left a mark and no reason: another byte fails alike.
  if (std::ferror(stdout) != 0) std::fputc('\n', stdout);
  bool failed = std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout;
  // Some file systems tell of what went wrong only here.
  if (const int copy = ::dup(STDOUT_FILENO); !failed && copy >= 0) failed = ::close(copy) != 0;
  if (failed)
    throw std::runtime_error(
        "standard output: cannot be written" +
        (errno != 0 ? ": " + std::generic_category().message(errno) : std::string()));
}

/// Runs a program: exit code 0, 2 for a command line or an input that cannot be used, 1 for a
/// failure; every error is one line on standard error.
inline int run(const std::function<void()>& body) {
  const auto fail = [&](std::string what, int code) {
    wait_if_stopped();
    for (char& c : what)
      if (c == '\n') c = ' ';
    std::cout.flush();
    std::fflush(stdout);
    std::cerr << program << ": " << what << std::endl;
    return code;
  };
  try {
    require_standard_descriptors();
    clean_up_on_signals();
    body();
    require_printed();
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

/// Calls f(), which writes what the run keeps. That it cannot is a failure (exit code 1), not a
/// mistake in the command line.
template <class F>
void kept(const F& f) {
  try {
    f();
  } catch (const pare::io_error& e) {
    throw std::runtime_error(e.what());
  }
}

}  // namespace tool
