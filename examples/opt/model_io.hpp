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

/// Throws usage_error unless a new file or folder can be made at `target`.
inline void require_creatable(const std::string& option, const fs::path& target) {
  const fs::path parent = fs::absolute(target).lexically_normal().parent_path();
  std::error_code error;
  if (!fs::is_directory(parent, error))
    throw usage_error(option + " " + target.string() + ": the folder " + parent.string() +
                      " does not exist");
  if (::access(parent.c_str(), W_OK) != 0)
    throw usage_error(option + " " + target.string() + ": the folder " + parent.string() +
                      " cannot be written");
}

/// Checks --save before hours of work: the folder is new or empty and can be made.
inline void require_savable(const fs::path& folder) {
  std::error_code error;
  const fs::path target = folder / "";  // "DIR" and "DIR/" are the same folder
  if (fs::exists(target, error)) {
    if (!fs::is_directory(target, error))
      throw usage_error("--save " + folder.string() + ": exists and is not a folder");
    if (!fs::is_empty(target, error))
      throw usage_error("--save " + folder.string() +
                        ": the folder is not empty; name a new one");
  }
  require_creatable("--save", target.parent_path());
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

  const fs::path target = (folder / "").parent_path();
  fs::path partial = target;
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
    fs::rename(partial, target);  // replaces an empty folder
  } catch (const std::exception& e) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw std::runtime_error(folder.string() + ": cannot be saved: " + e.what());
  }
}

/// Writes JSON to a file, whole or not at all.
inline void write_report(const fs::path& file, const pare::Json& report) {
  const std::string text = report.dump(2) + "\n";
  try {
    pare::detail::AtomicFile out{file};
    out.write(std::as_bytes(std::span(text)));
    out.commit();
  } catch (const pare::error& e) {
    throw std::runtime_error(e.what());
  }
}

}  // namespace tool
