// Packed model folders: writing them from a run, reading their report, unpacking them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/model/config_json.hpp"
#include "pare/pipeline/run/save_run.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/packed_writer.hpp"

namespace pare::inline PARE_TARGET {

/// Writes a packed folder: packed weights, the source's other files, the report with what holds the
/// three together. Adds that to `report`. Holds one tensor at a time.
/// @param run     finished, with packed linears
/// @param source  the folder that was compressed
/// @param folder  new or empty, or what `saving` knows of
/// @param text    fingerprint of the calibration windows
/// @param report  gets the member "packed", and is written
/// @param saving  for a run that may be stopped meanwhile
/// @return        names of what lies in `source` and does not go along
/// @throws save_error when it cannot be written
inline std::vector<std::string> save_packed(const RunFolder& run,
                                            const std::filesystem::path& source,
                                            const std::filesystem::path& folder, std::uint64_t text,
                                            Json& report, const Saving& saving = {}) {
  const std::vector<SafetensorsFile> layers = finished_layers(run);
  std::map<std::string, PackedParts> linears;
  for (const SafetensorsFile& layer : layers) linears.merge(parts_in(layer));
  std::vector<std::string> left_out;
  fill_folder(
      folder,
      [&](const std::filesystem::path& partial) {
        const std::filesystem::path file = partial / PackedFile::name;
        const Checkpoint checkpoint(source);
        write_packed(file, checkpoint, linears, tied_head(load_architecture(source), checkpoint));
        left_out = copy_side_files(source, partial, weight_names(checkpoint));
        Json checksums = Json::object();
        for (const auto& [tensor, parts] : linears) checksums[tensor] = parts.entry.at("checksum");
        report["packed"] = {{"file_bytes", std::filesystem::file_size(file)},
                            {"calibration", hex_text(text)},
                            {"checksums", checksums}};
        write_json(partial / packed_report_name, report);
      },
      saving);
  return left_out;
}

/// What save_packed added to the report, read from the folder. Throws format_error.
inline Json packed_member(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / packed_report_name;
  const std::string text = detail::read_whole_file(file);
  detail::parse_json_object(file.string(), text);  // the checks of a hostile file
  const Json report = Json::parse(text);
  if (!report.contains("packed")) throw format_error(file.string() + ": there is no packed in it");
  return report["packed"];
}

/// Writes the dense Hugging Face folder of a packed model.
/// @param packed  a folder that save_packed wrote
/// @param folder  new or empty
/// @return        names of what lies in `packed` and does not go along
/// @throws argument_error when `folder` is neither; as PackedFile; save_error
inline std::vector<std::string> unpack_folder(const std::filesystem::path& packed,
                                              const std::filesystem::path& folder) {
  if (const auto refusal = folder_refusal(folder))
    throw argument_error("folder: " + folder.string() + ": " + *refusal);
  const PackedFile file(packed);
  std::vector<std::string> left_out;
  fill_folder(folder, [&](const std::filesystem::path& partial) {
    write_unpacked(partial / Checkpoint::single_name, file);
    left_out = copy_side_files(packed, partial, {PackedFile::name});
  });
  return left_out;
}

/// What is in one packed linear.
struct InspectedLinear {
  std::string tensor;          ///< its name
  PackedLayout layout;         ///< shape, axis, widths and pattern
  PackedMask kind;             ///< how it says what is pruned
  index_t zeros = 0;           ///< weights that are zero
  std::uint64_t bytes = 0;     ///< that it takes
  std::uint64_t checksum = 0;  ///< of these
  /// Number of its weights.
  index_t weights() const { return layout.rows * layout.columns; }
};

/// What a packed file is made of.
struct InspectedFile {
  /// In the order of the file.
  std::vector<InspectedLinear> linears;
  std::uint64_t other_bytes = 0;     ///< of tensors that are not packed
  std::uint64_t header_bytes = 0;    ///< in front of all tensors
  bool checks_every_tensor = false;  ///< else the file is of an older version: packed linears alone
};

/// Reads a packed linear and counts it.
/// @param file   that holds it
/// @param entry  one of file.linears()
/// @throws format_error when it is damaged
inline InspectedLinear inspect(const PackedFile& file, const PackedEntry& entry) {
  const PackedLinear packed = file.read(entry);
  InspectedLinear linear{entry.tensor,   packed.layout, packed.kind, 0,
                         packed.bytes(), entry.checksum};
  Matrix<float> row(1, packed.layout.columns);
  std::vector<std::uint8_t> pruned(std::size_t(packed.layout.columns));
  for (index_t i = 0; i < packed.layout.rows; ++i) {
    unpack_row(packed, i, pruned.data(), row.data());
    linear.zeros += std::count(row.data(), row.data() + row.size(), 0.0f);
  }
  return linear;
}

/// Reads all of a packed file and counts it.
/// @param file  to be read
/// @param told  called with every linear; may be empty
/// @throws format_error naming the tensor that is damaged
inline InspectedFile inspect(const PackedFile& file,
                             const std::function<void(const InspectedLinear&)>& told = {}) {
  InspectedFile inspected;
  for (const PackedEntry& entry : file.linears()) {
    inspected.linears.push_back(inspect(file, entry));
    if (told) told(inspected.linears.back());
  }
  for (const TensorInfo& info : file.file().tensors()) {
    if (file.is_part(info.name)) continue;
    inspected.other_bytes += info.end - info.begin;
    file.require_intact(info.name, file.file().bytes(info));
  }
  inspected.header_bytes = file.file().data_offset();
  inspected.checks_every_tensor = file.checks_every_tensor();
  return inspected;
}

}  // namespace pare
