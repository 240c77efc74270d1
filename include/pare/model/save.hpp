// A model from memory as a folder of Hugging Face.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/config_json.hpp"
#include "pare/model/decoder.hpp"
#include "pare/model/load.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/convert.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/safetensors.hpp"

namespace pare::inline PARE_TARGET {

/// The head where it only repeats the embeddings that it is tied to: safetensors has no tensors
/// that share bytes, so transformers leaves it out there and ties it again when loading.
/// @return  the names of the tensors that need not be written; empty or one
inline std::set<std::string> tied_head(const Architecture& config, const Checkpoint& checkpoint) {
  const std::string head_name = config.names.head + ".weight";
  const auto head = checkpoint.find(head_name);
  const auto embedding =
      checkpoint.find(tensor_prefix(config, checkpoint) + config.names.embedding + ".weight");
  if (!config.tie_word_embeddings || !head || !embedding) return {};
  if (head->info->dtype != embedding->info->dtype ||
      !std::ranges::equal(head->file->bytes(*head->info), embedding->file->bytes(*embedding->info)))
    return {};
  return {head_name};
}

/// Writes the weights of a model folder into another one: the same names and types, the same shards
/// and their index; what PyTorch saved becomes safetensors. Holds one tensor at a time.
/// @param source   a folder with a model
/// @param folder   an existing one
/// @param replace  the data of a tensor, or nothing to keep what it has
/// @throws as load_architecture, Checkpoint and write_safetensors
inline void write_model_weights(const std::filesystem::path& source,
                                const std::filesystem::path& folder,
                                const TensorReplacement& replace) {
  const Checkpoint checkpoint(source);
  if (checkpoint.format() != CheckpointFormat::safetensors)
    return write_as_safetensors(checkpoint, folder,
                                tied_head(load_architecture(source), checkpoint), replace);
  for (const TensorFile& file : checkpoint.files())
    copy_safetensors(SafetensorsFile(file.path()), folder / file.path().filename(), replace);
  if (checkpoint.sharded())
    std::filesystem::copy_file(source / Checkpoint::index_name, folder / Checkpoint::index_name);
}

namespace detail {

/// Makes `folder`, or takes an empty one. Throws argument_error, io_error.
inline void make_model_folder(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(folder, error) &&
      !(fs::is_directory(folder, error) && fs::is_empty(folder, error)))
    throw argument_error("folder: expected a new or empty one, got " + folder.string());
  fs::create_directory(folder, error);
  if (error) throw io_error(folder.string() + ": cannot be made: " + error.message());
}

/// Copies what a model folder holds beside weights and config.json. Throws io_error.
inline void copy_beside_weights(const std::filesystem::path& source,
                                const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  for (const char* name :
       {"generation_config.json", "vocab.json", "merges.txt", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    std::error_code error;
    if (!fs::exists(source / name, error)) continue;
    fs::copy_file(source / name, folder / name, error);
    if (error) throw io_error((folder / name).string() + ": cannot be written: " + error.message());
  }
}

}  // namespace detail

/// Writes a model that was loaded from `source`, and perhaps compressed, to a new folder that other
/// programs load as they do `source`: its linears as they are in `model`, rounded to the type that
/// `source` stores, all other tensors, the configuration and the tokenizer as they are there.
/// config.json is written last: without it nothing takes the folder for a model.
/// @param model   in the backend's memory, not packed
/// @param source  the folder that it was loaded from
/// @param folder  new or empty; the folder around it exists
/// @throws argument_error when the model is packed, or `folder` is not empty; io_error when it
///         cannot be written; as write_model_weights
template <class B, class S>
void save_model(const LanguageModel<B, S>& model, const std::filesystem::path& source,
                const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::map<std::string, const Linear<B, S>*> linears;
  for (const DecoderLayer<B, S>& layer : model.layers)
    for (const Linear<B, S>* linear : layer.linears()) {
      if (linear->packed != nullptr)
        throw argument_error("model: expected dense linears, got " + linear->name +
                             " packed; pare unpack writes a packed folder as a dense one");
      linears[linear->tensor] = linear;
    }
  detail::make_model_folder(folder);
  write_model_weights(source, folder,
                      [&](const TensorInfo& info) -> std::optional<std::vector<std::byte>> {
                        const auto linear = linears.find(info.name);
                        if (linear == linears.end()) return std::nullopt;
                        return detail::stored_weights(*linear->second);
                      });
  detail::copy_beside_weights(source, folder);
  std::error_code error;
  fs::copy_file(source / "config.json", folder / "config.json", error);
  if (error)
    throw io_error((folder / "config.json").string() + ": cannot be written: " + error.message());
}

}  // namespace pare::inline PARE_TARGET
