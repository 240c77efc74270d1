// Packed models in pare-opt: writing, reading, unpacking and inspecting them.
#pragma once

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "opt/model_io.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/packed_writer.hpp"

namespace tool {

/// Refuses a packed model where a dense one is needed.
inline void require_dense_model(const std::string& model) {
  if (pare::PackedFile::is_in(model))
    throw usage_error(model +
                      ": the model is packed, a dense one is needed here; name that, or "
                      "write pare-opt unpack " +
                      model + " OUT and name OUT");
}

/// Refuses a folder that holds no packed model.
inline void require_packed_model(const std::string& command, const std::string& folder) {
  std::error_code error;
  if (!fs::exists(fs::path(folder) / pare::PackedFile::name, error))
    throw usage_error(command + " " + folder + ": " +
                      (fs::is_directory(folder, error)
                           ? std::string("there is no ") + pare::PackedFile::name + " in it"
                           : "there is no such folder") +
                      "; name a folder that compress --save-packed wrote");
}

/// Writes a packed folder: packed weights, the source's other files, the report with what holds
/// the three together. Adds that to `report`. One tensor is held at a time.
/// @param run   finished, with packed linears
/// @param text  fingerprint of the calibration windows
inline void save_packed(const pare::RunFolder& run, const fs::path& source, const fs::path& folder,
                        std::uint64_t text, pare::Json& report, const Saving& saving = {}) {
  const std::vector<pare::SafetensorsFile> layers = finished_layers(run);
  std::map<std::string, pare::PackedParts> linears;
  for (const pare::SafetensorsFile& layer : layers) linears.merge(pare::parts_in(layer));
  fill_folder(
      folder,
      [&](const fs::path& partial) {
        const fs::path file = partial / pare::PackedFile::name;
        const pare::Checkpoint checkpoint(source);
        pare::write_packed(file, checkpoint, linears,
                           tied_head(pare::load_architecture(source), checkpoint));
        copy_side_files(source, partial, weight_names(checkpoint));
        pare::Json checksums = pare::Json::object();
        for (const auto& [tensor, parts] : linears) checksums[tensor] = parts.entry.at("checksum");
        report["packed"] = {{"file_bytes", fs::file_size(file)},
                            {"calibration", pare::hex_text(text)},
                            {"checksums", checksums}};
        write_report(partial / packed_report_name, report);
      },
      saving);
}

/// What save_packed added to the report, read from the folder. Throws format_error.
inline pare::Json packed_member(const fs::path& folder) {
  const fs::path file = folder / packed_report_name;
  const std::string text = pare::detail::read_whole_file(file);
  pare::detail::parse_json_object(file.string(), text);  // the checks of a hostile file
  const pare::Json report = pare::Json::parse(text);
  if (!report.contains("packed"))
    throw pare::format_error(file.string() + ": there is no packed in it");
  return report["packed"];
}

/// pare-opt unpack: writes the dense Hugging Face folder of a packed model.
inline void unpack_model(const std::string& packed, const std::string& given) {
  require_packed_model("unpack", packed);
  const fs::path target = savable_folder("OUT", given, packed);
  const pare::PackedFile file(packed);
  fill_folder(target, [&](const fs::path& partial) {
    pare::write_unpacked(partial / pare::Checkpoint::single_name, file);
    copy_side_files(packed, partial, {pare::PackedFile::name});
  });
  std::printf("unpacked to %s\n", given.c_str());
}

namespace detail {

/// "4", "2-8" or "-": the widths of a linear.
inline std::string widths_text(const pare::PackedLayout& layout) {
  if (!layout.quantized()) return "-";
  const std::vector<std::uint8_t> tiers = layout.tiers();
  std::string text = std::to_string(tiers.back());
  return tiers.size() == 1 ? text : text + "-" + std::to_string(tiers.front());
}

inline std::string mask_text(const pare::PackedLinear& packed) {
  if (packed.kind == pare::PackedMask::bits) return "bit mask";
  if (packed.kind == pare::PackedMask::none) return "none";
  return std::to_string(packed.layout.pattern.zeros) + ":" +
         std::to_string(packed.layout.pattern.of);
}

/// Mean width of the codes.
inline std::string mean_bits_text(const pare::PackedLayout& layout) {
  double sum = 0;
  for (const std::uint8_t width : layout.widths) sum += width;
  return layout.quantized() ? pare::detail::format_text("%.3f", sum / double(layout.widths.size()))
                            : "-";
}

inline pare::index_t count_zeros(const pare::PackedLinear& packed) {
  pare::Matrix<float> row(1, packed.layout.columns);
  std::vector<std::uint8_t> pruned(std::size_t(packed.layout.columns));
  pare::index_t zeros = 0;
  for (pare::index_t i = 0; i < packed.layout.rows; ++i) {
    pare::unpack_row(packed, i, pruned.data(), row.data());
    zeros += std::count(row.data(), row.data() + row.size(), 0.0f);
  }
  return zeros;
}

}  // namespace detail

/// pare-opt inspect: a table of the packed linears and what the file is made of.
inline void inspect_packed(const std::string& folder) {
  require_packed_model("inspect", folder);
  const pare::PackedFile file(folder);
  std::size_t longest = 6;
  for (const pare::PackedEntry& entry : file.linears())
    longest = std::max(longest, entry.tensor.size());
  const int name_width = int(std::min<std::size_t>(longest, 100));
  std::printf("%-*s %13s %6s %6s %6s %8s %8s %11s %7s  %s\n", name_width, "tensor", "shape", "axis",
              "bits", "widths", "mask", "zeros", "bytes", "bits/w", "checksum");
  double weights = 0, zeros = 0;
  std::uint64_t linear_bytes = 0, other_bytes = 0;
  for (const pare::PackedEntry& entry : file.linears()) {
    const pare::PackedLinear packed = file.read(entry);
    const pare::PackedLayout& layout = packed.layout;
    const double size = double(layout.rows) * double(layout.columns);
    const pare::index_t zero = detail::count_zeros(packed);
    const std::string shape = std::to_string(layout.rows) + " x " + std::to_string(layout.columns);
    std::printf("%-*s %13s %6s %6s %6s %8s %7.2f%% %11ju %7.3f  %s\n", name_width,
                entry.tensor.c_str(), shape.c_str(),
                std::string(pare::to_string(layout.axis)).c_str(),
                detail::mean_bits_text(layout).c_str(), detail::widths_text(layout).c_str(),
                detail::mask_text(packed).c_str(), 100 * double(zero) / size,
                std::uintmax_t(packed.bytes()), 8 * double(packed.bytes()) / size,
                pare::hex_text(entry.checksum).c_str());
    weights += size;
    zeros += double(zero);
    linear_bytes += packed.bytes();
  }
  for (const pare::TensorInfo& info : file.file().tensors())
    if (!file.is_part(info.name)) other_bytes += info.end - info.begin;
  for (const pare::TensorInfo& info : file.file().tensors())
    if (!file.is_part(info.name)) file.require_intact(info.name, file.file().bytes(info));
  const std::uint64_t header = file.file().data_offset();
  std::printf("\npacked linears     %zu, %.0f weights, %.2f%% zero\n", file.linears().size(),
              weights, weights > 0 ? 100 * zeros / weights : 0);
  std::printf("stored             %.3f bits per weight\n",
              weights > 0 ? 8 * double(linear_bytes) / weights : 0);
  std::printf(
      "bytes              %ju in packed linears, %ju in other tensors, %ju in the header, "
      "%ju in all\n",
      std::uintmax_t(linear_bytes), std::uintmax_t(other_bytes), std::uintmax_t(header),
      std::uintmax_t(header + linear_bytes + other_bytes));
  std::printf("checksums          %s\n",
              file.checks_every_tensor()
                  ? "of every tensor; all hold"
                  : "of packed linears alone, all hold; the file is of an older version and has "
                    "none of other tensors");
}

}  // namespace tool
