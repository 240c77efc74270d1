// Reading and writing what pare-opt works on: model folders, texts, reports.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/compression_options.hpp"
#include "pare/model/opt.hpp"
#include "pare/model/tokenizer.hpp"
#include "pare/storage/safetensors.hpp"

namespace tool {

namespace fs = std::filesystem;

/// A text and the name its perplexity goes by, "NAME=FILE" on the command line.
struct EvaluationText {
  std::string name;
  fs::path file;
};

inline std::vector<EvaluationText> parse_evaluations(const std::vector<std::string>& arguments) {
  std::vector<EvaluationText> texts;
  for (const std::string& argument : arguments) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == argument.size())
      throw usage_error("--eval " + argument + ": expected NAME=FILE");
    const std::string name = argument.substr(0, equals);
    for (const EvaluationText& other : texts)
      if (other.name == name) throw usage_error("--eval " + argument + ": the name is taken");
    texts.push_back({name, argument.substr(equals + 1)});
  }
  return texts;
}

/// Token ids of a whole text file, the model's leading id in front.
inline std::vector<std::int32_t> read_tokens(const fs::path& file, const pare::Tokenizer& tokenizer,
                                             const pare::OptConfig& config) {
  const std::string text = pare::detail::read_whole_file(file);
  std::vector<std::int32_t> ids;
  try {
    ids = tokenizer.encode(text);
  } catch (const pare::format_error& e) {
    throw pare::format_error(file.string() + ": " + e.what());
  }
  ids.insert(ids.begin(), std::int32_t(config.bos_token_id));
  return ids;
}

/// Throws format_error, naming the file, unless the ids fill at least one window.
inline void require_window(const fs::path& file, const std::vector<std::int32_t>& ids,
                           pare::index_t seqlen) {
  if (pare::index_t(ids.size()) < seqlen)
    throw pare::format_error(file.string() + ": " + std::to_string(ids.size()) +
                             " tokens are less than one window of " + std::to_string(seqlen));
}

inline pare::Tokenizer load_tokenizer(const fs::path& folder, const pare::OptConfig& config) {
  pare::Tokenizer tokenizer = pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
  if (tokenizer.max_id() >= config.vocab_size)
    throw pare::format_error((folder / "vocab.json").string() + ": id " +
                             std::to_string(tokenizer.max_id()) +
                             " is outside the model's vocabulary of " +
                             std::to_string(config.vocab_size));
  return tokenizer;
}

/// The absolute path of what an option names, links resolved: "DIR", "DIR/" and "./DIR" are one.
inline fs::path output_path(const std::string& option, const std::string& given) {
  if (given.empty()) throw usage_error(option + ": expected a name, got an empty one");
  fs::path path = fs::absolute(given).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::error_code error;
  const fs::path resolved = fs::weakly_canonical(path, error);
  return error ? path : resolved;
}

/// Throws usage_error unless the folder in which `path` is to be made exists and can be written.
inline void require_parent(const std::string& option, const std::string& given,
                           const fs::path& path) {
  const fs::path parent = path.parent_path();
  std::error_code error;
  if (!fs::is_directory(parent, error))
    throw usage_error(option + " " + given + ": there is no folder " + parent.string());
  if (::access(parent.c_str(), W_OK) != 0)
    throw usage_error(option + " " + given + ": the folder " + parent.string() +
                      " cannot be written");
}

/// Checks --save before hours of work. Returns the folder: new or empty.
inline fs::path savable_folder(const std::string& given) {
  const fs::path path = output_path("--save", given);
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_directory(path, error))
    throw usage_error("--save " + given + ": exists and is not a folder");
  if (fs::is_directory(path, error) && !fs::is_empty(path, error))
    throw usage_error("--save " + given + ": the folder is not empty; name a new one");
  require_parent("--save", given, path);
  return path;
}

/// Checks --report before hours of work. Returns the file.
inline fs::path reportable_file(const std::string& given) {
  const fs::path path = output_path("--report", given);
  std::error_code error;
  if (given.back() == '/' || fs::is_directory(path, error))
    throw usage_error("--report " + given + ": names a folder; name a file");
  require_parent("--report", given, path);
  return path;
}

/// Writes a Hugging Face folder: the source's files with the compressed weights in place of the
/// dense ones, same names, same types. The folder appears whole or not at all.
template <class B, class T>
void save_model(const pare::OptModel<B, T>& model, const fs::path& source, const fs::path& folder) {
  std::unordered_map<std::string, const pare::Linear<B, T>*> linears;
  for (const auto& layer : model.layers)
    for (const auto* linear : layer.linears()) linears[linear->tensor] = linear;
  const auto replacement =
      [&](const pare::TensorInfo& info) -> std::optional<std::vector<std::byte>> {
    const auto found = linears.find(info.name);
    if (found == linears.end()) return std::nullopt;
    const pare::Matrix<T> W = B::to_host(pare::detail::as_const(found->second->weight.view()));
    const std::vector<float> values(W.data(), W.data() + W.size());
    return pare::encode_floats(values, found->second->dtype);
  };

  fs::path partial = folder;
  partial += ".partial-" + std::to_string(::getpid());
  try {
    fs::create_directories(partial);
    const pare::Checkpoint checkpoint(source);
    for (const pare::SafetensorsFile& file : checkpoint.files())
      pare::copy_safetensors(file, partial / file.path().filename(), replacement);
    for (const char* name :
         {"config.json", "generation_config.json", "vocab.json", "merges.txt", "tokenizer.json",
          "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"})
      if (fs::exists(source / name)) fs::copy_file(source / name, partial / name);
    if (checkpoint.sharded())
      fs::copy_file(source / pare::Checkpoint::index_name,
                    partial / pare::Checkpoint::index_name);
    fs::rename(partial, folder);  // replaces an empty folder
  } catch (const std::exception& e) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw std::runtime_error(folder.string() + ": cannot be saved: " + e.what());
  }
}

/// Writes JSON to a file, whole or not at all.
inline void write_report(const fs::path& file, const pare::Json& report) {
  // Names of files and texts may be any bytes; JSON is UTF-8.
  const std::string text =
      report.dump(2, ' ', false, pare::Json::error_handler_t::replace) + "\n";
  try {
    pare::detail::AtomicFile out{file};
    out.write(std::as_bytes(std::span(text)));
    out.commit();
  } catch (const pare::error& e) {
    throw std::runtime_error(e.what());
  }
}

}  // namespace tool
