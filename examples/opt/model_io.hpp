// Reading and writing what pare-opt works on: model folders, texts, reports.
#pragma once

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/compression_options.hpp"
#include "opt/result_folder.hpp"
#include "opt/side_files.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/load.hpp"
#include "pare/model/save.hpp"
#include "pare/model/text.hpp"
#include "pare/pipeline/run_folder.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/convert.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/safetensors.hpp"
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

/// Token ids of a whole text file as windows of `seqlen` are cut from it.
inline std::vector<std::int32_t> read_tokens(const fs::path& file, const pare::Tokenizer& tokenizer,
                                             const pare::Architecture& config,
                                             pare::index_t seqlen) {
  const std::string text = pare::detail::read_text_file(file);
  try {
    return pare::window_ids(pare::token_ids(tokenizer, config, text),
                            pare::leading_ids(tokenizer, config), config, seqlen);
  } catch (const pare::format_error& e) {
    throw pare::format_error(file.string() + ": " + e.what());
  }
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
    std::fprintf(stderr, "pare-opt: warning: %s\n", note.c_str());
}

/// The tokenizer of a model folder. Says on standard error where it contradicts the configuration.
inline pare::Tokenizer read_tokenizer(const fs::path& folder, const pare::Architecture& config) {
  pare::Tokenizer tokenizer = pare::load_tokenizer(folder, config);
  print_notes(pare::tokenizer_notes(tokenizer, config));
  return tokenizer;
}

/// Says on standard error what of the weights in a model folder could be read in two ways.
inline void print_weight_notes(const fs::path& folder, const pare::Architecture& config) {
  print_notes(pare::weight_notes(config, pare::PackedFile::is_in(folder)
                                             ? pare::Checkpoint(folder, pare::PackedFile::name)
                                             : pare::Checkpoint(folder)));
}

/// Files of a model folder that decide, beside its weights, what it computes.
inline constexpr const char* model_files[] = {"config.json",
                                              "generation_config.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "tokenizer.json",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "added_tokens.json"};

/// The finished layers of a run, open for reading.
inline std::vector<pare::SafetensorsFile> finished_layers(const pare::RunFolder& run) {
  std::vector<pare::SafetensorsFile> layers;
  for (index_t i = 0; i < run.finished(); ++i) layers.push_back(run.layer(i));
  return layers;
}

/// Writes a Hugging Face folder: the source's files with the compressed weights in place of the
/// dense ones, same names, same types; what PyTorch saved becomes safetensors. One tensor is held
/// at a time.
inline void save_model(const pare::RunFolder& run, const fs::path& source, const fs::path& folder,
                       const Saving& saving = {}) {
  const std::vector<pare::SafetensorsFile> layers = finished_layers(run);
  const auto replacement =
      [&](const pare::TensorInfo& info) -> std::optional<std::vector<std::byte>> {
    for (const pare::SafetensorsFile& layer : layers)
      if (layer.find(info.name) != nullptr) return layer.read_bytes(info.name);
    return std::nullopt;
  };
  fill_folder(
      folder,
      [&](const fs::path& partial) {
        pare::write_model_weights(source, partial, replacement);
        copy_side_files(source, partial, weight_names(pare::Checkpoint(source)));
      },
      saving);
}

/// Writes JSON to a file, whole or not at all.
inline void write_report(const fs::path& file, const pare::Json& report) {
  // Names of files and texts may be any bytes; JSON is UTF-8.
  const std::string text = report.dump(2, ' ', false, pare::Json::error_handler_t::replace) + "\n";
  kept([&] {
    pare::detail::OutputFile out{file};
    out.write(std::as_bytes(std::span(text)));
    out.commit();
  });
}

}  // namespace tool
