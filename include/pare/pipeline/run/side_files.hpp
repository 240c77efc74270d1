// The files of a model folder beside its weights: which of them go along with a result.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/temporary.hpp"

namespace pare::inline PARE_TARGET {

/// The report of the compression, beside packed weights.
inline constexpr const char* packed_report_name = "report.json";

/// Files of a model folder that decide, beside its weights, what it computes.
inline constexpr const char* model_files[] = {"config.json",
                                              "generation_config.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "tokenizer.json",
                                              "tokenizer.model",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "added_tokens.json"};

/// What lies in a model folder beside the weights that are read, by name.
struct SideFiles {
  std::vector<std::string> copied;    ///< files that go along
  std::vector<std::string> left_out;  ///< other weights, states of a training, folders: they stay
};

namespace detail {

/// Whether a file holds weights or what a training goes on from, which a compressed model is not.
inline bool holds_weights(const std::string& name) {
  const std::string extension = std::filesystem::path(name).extension().string();
  static const std::set<std::string> extensions{".safetensors", ".bin",  ".pt",      ".pth",
                                                ".ckpt",        ".h5",   ".msgpack", ".onnx",
                                                ".onnx_data",   ".gguf", ".ggml",    ".tflite",
                                                ".npz",         ".npy",  ".mlmodel", ".ot",
                                                ".pdparams",    ".nemo", ".engine",  ".distcp",
                                                ".pkl",         ".zip",  ".tar",     ".gz",
                                                ".part",        ".lock", ".partial", ".incomplete"};
  if (extensions.contains(extension)) return true;
  for (const std::string_view end :
       {".safetensors.index.json", ".bin.index.json", ".h5.index.json", ".msgpack.index.json"})
    if (name.ends_with(end)) return true;
  return name == "quantize_config.json" || name == packed_report_name;
}

}  // namespace detail

/// Sorts the entries of a model folder. Weights that are read are in neither list.
/// @param folder  of the model
/// @param read    the names of these, and of their index
inline SideFiles side_files(const std::filesystem::path& folder,
                            const std::set<std::string>& read) {
  SideFiles files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code ignored;
    const std::filesystem::path found = std::filesystem::canonical(folder, ignored) / name;
    if (read.contains(name) || detail::Temporaries::all().contain(found)) continue;
    const bool regular =
        std::filesystem::is_regular_file(entry->path(), ignored);  // links are followed
    const bool readable = regular && ::access(entry->path().c_str(), R_OK) == 0;
    const bool stays = !readable || detail::holds_weights(name);
    (stays ? files.left_out : files.copied)
        .push_back(name +
                   (!regular && std::filesystem::is_directory(entry->path(), ignored) ? "/" : ""));
  }
  if (error) throw io_error(folder.string() + ": cannot be read: " + error.message());
  std::sort(files.copied.begin(), files.copied.end());
  std::sort(files.left_out.begin(), files.left_out.end());
  return files;
}

/// The names of the weights that a Checkpoint of `folder` reads.
inline std::set<std::string> weight_names(const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const TensorFile& file : checkpoint.files()) names.insert(file.path().filename().string());
  if (checkpoint.sharded())
    names.insert(checkpoint.format() == CheckpointFormat::safetensors
                     ? Checkpoint::index_name
                     : Checkpoint::pytorch_index_name);
  return names;
}

/// Copies what goes along.
/// @param source  a model folder
/// @param target  an existing folder
/// @param read    as for side_files
/// @return        what does not go along, SideFiles::left_out
/// @throws io_error, std::filesystem::filesystem_error
inline std::vector<std::string> copy_side_files(const std::filesystem::path& source,
                                                const std::filesystem::path& target,
                                                const std::set<std::string>& read) {
  SideFiles files = side_files(source, read);
  for (const std::string& name : files.copied)
    std::filesystem::copy_file(source / name, target / name);
  return std::move(files.left_out);
}

}  // namespace pare
