// A compressed model folder from the layers that a run has finished.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "pare/model/save.hpp"
#include "pare/pipeline/run/result_folder.hpp"
#include "pare/pipeline/run/side_files.hpp"
#include "pare/pipeline/run_folder.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/safetensors.hpp"

namespace pare::inline PARE_TARGET {

/// The finished layers of a run, open for reading.
inline std::vector<SafetensorsFile> finished_layers(const RunFolder& run) {
  std::vector<SafetensorsFile> layers;
  for (index_t i = 0; i < run.finished(); ++i) layers.push_back(run.layer(i));
  return layers;
}

/// Writes a Hugging Face folder: the source's files with the compressed weights in place of the
/// dense ones, same names, same types; what PyTorch saved becomes safetensors. Holds one tensor at
/// a time.
/// @param run     finished
/// @param source  the folder that was compressed
/// @param folder  new or empty, or what `saving` knows of
/// @param saving  for a run that may be stopped meanwhile
/// @return        names of what lies in `source` and does not go along: other weights, folders
/// @throws save_error when it cannot be written
inline std::vector<std::string> save_run(const RunFolder& run, const std::filesystem::path& source,
                                         const std::filesystem::path& folder,
                                         const Saving& saving = {}) {
  const std::vector<SafetensorsFile> layers = finished_layers(run);
  const auto replacement = [&](const TensorInfo& info) -> std::optional<std::vector<std::byte>> {
    for (const SafetensorsFile& layer : layers)
      if (layer.find(info.name) != nullptr) return layer.read_bytes(info.name);
    return std::nullopt;
  };
  std::vector<std::string> left_out;
  fill_folder(
      folder,
      [&](const std::filesystem::path& partial) {
        write_model_weights(source, partial, replacement);
        left_out = copy_side_files(source, partial, weight_names(Checkpoint(source)));
      },
      saving);
  return left_out;
}

}  // namespace pare
