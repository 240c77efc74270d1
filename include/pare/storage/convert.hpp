// Checkpoints of any format, written as safetensors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/storage/checkpoint.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/output_file.hpp"
#include "pare/storage/safetensors.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

/// Writes every tensor of `checkpoint` into `folder` as transformers names and reads it:
/// `model.safetensors` or, where the checkpoint is sharded, as many shards and their index. Tensors
/// that share bytes get their own. Holds one tensor at a time. Throws as write_safetensors.
/// @param checkpoint  the source
/// @param folder      an existing one
/// @param left_out  names of tensors that are not written
/// @param replace   the data of a tensor, or nothing to keep what it has
/// @param added     tensors that the checkpoint lacks, whose data `replace` gives; they come last
inline void write_as_safetensors(const Checkpoint& checkpoint, const std::filesystem::path& folder,
                                 const std::set<std::string>& left_out,
                                 const TensorReplacement& replace,
                                 const std::vector<TensorInfo>& added = {}) {
  const std::size_t shards = checkpoint.files().size();
  nlohmann::json weight_map = nlohmann::json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards; ++i) {
    const TensorFile& file = checkpoint.files()[i];
    std::string name = Checkpoint::single_name;
    if (checkpoint.sharded()) {
      char numbered[64];
      std::snprintf(numbered, sizeof numbered, "model-%05zu-of-%05zu.safetensors", i + 1, shards);
      name = numbered;
    }
    std::vector<TensorInfo> tensors;
    for (const TensorInfo& info : file.tensors()) {
      if (!checkpoint.reads(file, info.name) || left_out.contains(info.name)) continue;
      tensors.push_back(info);
      weight_map[info.name] = name;
      total += info.end - info.begin;
    }
    if (i + 1 == shards)
      for (const TensorInfo& info : added) {
        tensors.push_back(info);
        weight_map[info.name] = name;
        total += info.end - info.begin;
      }
    // Wide elements first, so that every one lies at a multiple of its size.
    std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return element_bytes(a.dtype) > element_bytes(b.dtype);
    });
    // transformers reads only files that say whose tensors they hold.
    write_safetensors(folder / name, file, tensors, replace, {{"format", "pt"}});
  }
  if (!checkpoint.sharded()) return;
  const nlohmann::json index{{"metadata", {{"total_size", total}}},
                             {"weight_map", std::move(weight_map)}};
  const std::string text = index.dump(2) + "\n";
  detail::OutputFile out(folder / Checkpoint::index_name);
  out.write(std::as_bytes(std::span(text)));
  out.commit();
}

}  // namespace pare
