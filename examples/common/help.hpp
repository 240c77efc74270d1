// --help: options by group, every line within the width of the terminal and 100 columns.
#pragma once

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/terminal.hpp"

namespace tool {

/// The words of a text in lines of at most `width` characters; a longer word gets its own line.
inline std::vector<std::string> wrapped(std::string_view text, std::size_t width) {
  std::istringstream words{std::string(text)};
  std::vector<std::string> lines;
  for (std::string word; words >> word;) {
    if (lines.empty() || lines.back().size() + 1 + word.size() > width)
      lines.push_back(word);
    else
      lines.back() += " " + word;
  }
  return lines;
}

/// The group of arguments that may be left out.
inline constexpr const char* optional_group = "Optional";

/// "TEXT", or "[TEXT]" where the argument may be left out.
inline std::string argument_label(const CLI::Option& argument) {
  const std::string name = argument.get_name(true);
  return argument.get_group() == optional_group ? "[" + name + "]" : name;
}

/// Writes what --help prints; the parser's own text changes from version to version.
class HelpText : public CLI::FormatterBase {
 public:
  explicit HelpText(std::size_t width) : width_(width) {}

  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const override {
    std::string text;
    std::string description = app->get_description() + ".";
    description[0] = char(std::toupper(static_cast<unsigned char>(description[0])));
    add_paragraph(text, description);
    std::string usage = "Usage: " + name;
    const auto commands = app->get_subcommands([](const CLI::App*) { return true; });
    if (!commands.empty()) usage += " COMMAND";
    std::vector<Line> arguments;
    for (const CLI::Option* option : app->get_options()) {
      if (!option->get_positional()) continue;
      usage += " " + argument_label(*option);
      arguments.emplace_back(option->get_name(true), option->get_description());
    }
    text += "\n" + usage + " [OPTION]...\n";
    add_list(text, "Arguments", arguments);
    std::vector<Line> list;
    for (const CLI::App* command : commands)
      list.emplace_back(command->get_name(), command->get_description());
    add_list(text, "Commands", list);
    for (const std::string& group : app->get_groups()) {  // in the order in which they are named
      std::vector<Line> options;
      for (const CLI::Option* option : app->get_options())
        if (option->nonpositional() && option->get_group() == group)
          options.emplace_back(label(*option), option->get_description());
      add_list(text, group, options);
    }
    if (!app->get_footer().empty()) {
      text += "\n";
      add_paragraph(text, app->get_footer());
    }
    return text;
  }

 private:
  using Line = std::pair<std::string, std::string>;  // what is described, the description
  static constexpr std::size_t column = 28;          // where descriptions begin

  /// "--act-order", "--wbits INT": of several spellings the one with dashes.
  static std::string label(const CLI::Option& option) {
    std::string text = option.get_snames().empty() ? "" : "-" + option.get_snames().front() + ", ";
    text += "--" + option.get_lnames().front();
    if (option.get_items_expected_max() > 0) text += " " + option.get_type_name();
    return text;
  }

  void add_paragraph(std::string& text, const std::string& paragraph) const {
    for (const std::string& line : wrapped(paragraph, width_)) text += line + "\n";
  }

  void add_list(std::string& text, const std::string& title, const std::vector<Line>& lines) const {
    if (lines.empty()) return;
    text += "\n" + title + ":\n";
    for (const auto& [name, description] : lines) {
      std::string line = "  " + name;
      for (const std::string& part : wrapped(description, width_ - column)) {
        if (line.size() + 2 > column) {  // no room beside it
          text += line + "\n";
          line.clear();
        }
        line.resize(column, ' ');
        text += line + part + "\n";
        line.clear();
      }
      if (!line.empty()) text += line + "\n";
    }
  }

  std::size_t width_;
};

/// What --help prints fits the terminal, 50 columns at least and 100 at most.
inline std::shared_ptr<CLI::FormatterBase> help_text() {
  const int columns = ::isatty(STDOUT_FILENO) == 1 ? terminal_columns(STDOUT_FILENO) : 100;
  return std::make_shared<HelpText>(std::size_t(std::clamp(columns, 50, 100)));
}

}  // namespace tool
