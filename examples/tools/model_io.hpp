// Reading and writing what pare works on: model folders, texts, reports.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "common/compression_options.hpp"
#include "common/outputs.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/load.hpp"
#include "pare/model/text.hpp"
#include "pare/pipeline/documents.hpp"
#include "pare/pipeline/run/json_file.hpp"
#include "pare/pipeline/run/side_files.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace tool {

using pare::index_t;

/// A file and the name that results of it go by, "NAME=FILE" on the command line.
struct NamedFile {
  std::string name;
  fs::path file;
};

/// None unless both are there.
inline std::optional<NamedFile> parse_named_file(const std::string& argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == argument.size())
    return std::nullopt;
  return NamedFile{argument.substr(0, equals), argument.substr(equals + 1)};
}

/// The texts that perplexities are measured on.
inline std::vector<NamedFile> parse_evaluations(const std::vector<std::string>& arguments) {
  std::vector<NamedFile> texts;
  for (const std::string& argument : arguments) {
    const std::optional<NamedFile> text = parse_named_file(argument);
    if (!text)
      throw usage_error(written("--eval", argument) +
                        ": a text needs a name to report it by; write NAME=FILE");
    for (const NamedFile& other : texts)
      if (other.name == text->name)
        throw usage_error("--eval " + argument +
                          ": the name is taken by an earlier one; name each text differently");
    texts.push_back(*text);
  }
  return texts;
}

/// Throws format_error, naming the file, unless the ids fill at least one window.
inline void require_window(const fs::path& file, const std::vector<std::int32_t>& ids,
                           pare::index_t seqlen) {
  if (pare::index_t(ids.size()) < seqlen)
    throw pare::format_error(file.string() + ": less than one window of " + std::to_string(seqlen) +
                             " tokens, it gives " + std::to_string(ids.size()) +
                             "; use a longer text or a smaller --seqlen");
}

/// Says on standard error what of a model could be read in two ways.
inline void print_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes)
    std::fprintf(stderr, "%s: warning: %s\n", program.c_str(), note.c_str());
}

/// The tokenizer of a model folder. Says on standard error where it contradicts the configuration.
inline pare::Tokenizer read_tokenizer(const fs::path& folder, const pare::Architecture& config) {
  pare::Tokenizer tokenizer = pare::load_tokenizer(folder, config);
  print_notes(pare::tokenizer_notes(tokenizer, config));
  return tokenizer;
}

/// The ids of a text file. Says on standard error how much of it the vocabulary has nothing for.
inline std::vector<std::int32_t> read_ids(const pare::Tokenizer& tokenizer,
                                          const pare::Architecture& config, const fs::path& file) {
  std::size_t left_out = 0;
  std::vector<std::int32_t> ids = pare::file_ids(tokenizer, config, file, &left_out);
  if (left_out > 0)
    print_notes({file.string() + ": characters left out because the vocabulary of " +
                 tokenizer.file() + " has nothing for them: " + std::to_string(left_out)});
  return ids;
}

/// Says on standard error what of the weights in a model folder could be read in two ways.
inline void print_weight_notes(const fs::path& folder, const pare::Architecture& config) {
  print_notes(pare::weight_notes(config, pare::PackedFile::is_in(folder)
                                             ? pare::Checkpoint(folder, pare::PackedFile::name)
                                             : pare::Checkpoint(folder)));
}

/// Says which files of a folder do not go along.
inline void print_left_out(const std::string& folder, const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  std::printf("not copied from %s: %s\n", folder.c_str(), text.c_str());
}

}  // namespace tool
