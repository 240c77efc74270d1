// Packed models in pare: unpacking and inspecting them; and folders of results, checked before any
// work.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "pare/pipeline/run/packed_folder.hpp"
#include "pare/report/text.hpp"
#include "tools/model_io.hpp"

namespace tool {

/// Refuses a packed model where a dense one is needed.
inline void require_dense_model(const std::string& model) {
  if (pare::PackedFile::is_in(model))
    throw usage_error(model +
                      ": the model is packed, a dense one is needed here; name that, or "
                      "write " +
                      program + " unpack " + model + " OUT and name OUT");
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

/// Checks a folder that is to be written before hours of work. Returns it: new or empty, or what
/// an earlier process of this run wrote there.
/// @param model   the folder that the run reads
/// @param noted   what an earlier process noted of it
/// @param others  results that may lie in it
inline fs::path savable_folder(const std::string& option, const std::string& given,
                               const fs::path& model, const pare::Json& noted = nullptr,
                               const std::vector<fs::path>& others = {}) {
  const fs::path path = output_path(option, given);
  const std::string what = option + " " + given;
  if (same_place(path, model))
    throw usage_error(what + ": this is the model itself; name a new folder");
  if (const auto refusal = pare::folder_refusal(path, noted, others))
    throw usage_error(what + ": " + *refusal);
  std::error_code error;
  detail::require_writable(option, given,
                           fs::is_directory(path, error) ? path : path.parent_path());
  return path;
}

/// pare unpack: writes the dense Hugging Face folder of a packed model.
inline void unpack_model(const std::string& packed, const std::string& given) {
  require_packed_model("unpack", packed);
  const fs::path target = savable_folder("OUT", given, packed);
  print_left_out(packed, pare::unpack_folder(packed, target));
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

inline std::string mask_text(const pare::InspectedLinear& linear) {
  if (linear.kind == pare::PackedMask::bits) return "bit mask";
  if (linear.kind == pare::PackedMask::none) return "none";
  return std::to_string(linear.layout.pattern.zeros) + ":" +
         std::to_string(linear.layout.pattern.of);
}

/// Columns of a grid, "64"; "-" where it has all of a row or tier.
inline std::string groups_text(const pare::PackedLayout& layout) {
  return layout.group_size == 0 ? "-" : std::to_string(layout.group_size);
}

/// Mean width of the codes.
inline std::string mean_bits_text(const pare::PackedLayout& layout) {
  double sum = 0;
  for (const std::uint8_t width : layout.widths) sum += width;
  return layout.quantized() ? pare::detail::format_text("%.3f", sum / double(layout.widths.size()))
                            : "-";
}

}  // namespace detail

/// pare inspect: a table of the packed linears and what the file is made of.
inline void inspect_packed(const std::string& folder) {
  require_packed_model("inspect", folder);
  const pare::PackedFile file(folder);
  std::size_t longest = 6;
  for (const pare::PackedEntry& entry : file.linears())
    longest = std::max(longest, entry.tensor.size());
  const int name_width = int(std::min<std::size_t>(longest, 100));
  std::printf("%-*s %13s %6s %6s %6s %6s %8s %8s %11s %7s  %s\n", name_width, "tensor", "shape",
              "axis", "bits", "widths", "group", "mask", "zeros", "bytes", "bits/w", "checksum");
  double weights = 0, zeros = 0;
  std::uint64_t linear_bytes = 0;
  const pare::InspectedFile all = pare::inspect(file, [&](const pare::InspectedLinear& linear) {
    const pare::PackedLayout& layout = linear.layout;
    const double size = double(linear.weights());
    const std::string shape = std::to_string(layout.rows) + " x " + std::to_string(layout.columns);
    std::printf("%-*s %13s %6s %6s %6s %6s %8s %7.2f%% %11ju %7.3f  %s\n", name_width,
                linear.tensor.c_str(), shape.c_str(),
                std::string(pare::to_string(layout.axis)).c_str(),
                detail::mean_bits_text(layout).c_str(), detail::widths_text(layout).c_str(),
                detail::groups_text(layout).c_str(), detail::mask_text(linear).c_str(),
                100 * double(linear.zeros) / size, std::uintmax_t(linear.bytes),
                8 * double(linear.bytes) / size, pare::hex_text(linear.checksum).c_str());
    weights += size;
    zeros += double(linear.zeros);
    linear_bytes += linear.bytes;
  });
  std::printf("\npacked linears     %zu, %.0f weights, %.2f%% zero\n", all.linears.size(), weights,
              weights > 0 ? 100 * zeros / weights : 0);
  std::printf("stored             %.3f bits per weight\n",
              weights > 0 ? 8 * double(linear_bytes) / weights : 0);
  const auto rotated =
      std::count_if(file.linears().begin(), file.linears().end(),
                    [](const pare::PackedEntry& e) { return e.rotation.has_value(); });
  if (rotated > 0) std::printf("rotated inputs     %td linears\n", rotated);
  std::printf(
      "bytes              %ju in packed linears, %ju in other tensors, %ju in the header, "
      "%ju in all\n",
      std::uintmax_t(linear_bytes), std::uintmax_t(all.other_bytes),
      std::uintmax_t(all.header_bytes),
      std::uintmax_t(all.header_bytes + linear_bytes + all.other_bytes));
  std::printf("checksums          %s\n",
              all.checks_every_tensor
                  ? "of every tensor; all hold"
                  : "of packed linears alone, all hold; the file is of an older version and has "
                    "none of other tensors");
}

}  // namespace tool
