// GPTQ, checkpoint format 2: what GPTQModel and the programs that read its folders load.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pare/storage/export/format.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gptq {

/// What quantize_config.json says of a linear.
struct Scheme {
  int bits;
  index_t group_size;  // -1: a grid per row
  bool symmetric;
  bool operator==(const Scheme&) const = default;
  friend bool operator<(const Scheme& a, const Scheme& b) {
    return std::tie(a.bits, a.group_size, a.symmetric) <
           std::tie(b.bits, b.group_size, b.symmetric);
  }
};

inline bool has_width(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

/// Codes of widths that the format lacks are stored with 8 bits.
inline Scheme scheme_of(const ExportLinear& linear) {
  const int bits = has_width(linear.width()) ? linear.width() : 8;
  return {bits, linear.groups() == 1 ? -1 : linear.group_size, linear.symmetric};
}

inline std::optional<std::string> model_refusal(const ExportModel&) { return std::nullopt; }

inline std::optional<std::string> linear_refusal(const ExportLinear& linear) {
  if (auto refusal = uniform_refusal(linear)) return refusal;
  if (!has_width(linear.width()) && !linear.widened)
    return std::to_string(linear.width()) +
           " bits: this format has 2, 3, 4 and 8; add --widen to store the codes with 8, or write "
           "another width";
  if (linear.rows % 32 != 0 || linear.columns % 32 != 0)
    return "of shape (" + std::to_string(linear.rows) + ", " + std::to_string(linear.columns) +
           "): this format packs multiples of 32 rows and inputs; write --format "
           "compressed-tensors";
  return std::nullopt;
}

inline double bits_per_weight(const ExportLinear& linear) {
  const Scheme scheme = scheme_of(linear);
  const double grids = double(linear.rows) * double(linear.groups());
  const double bits = double(linear.rows) * double(linear.columns) * scheme.bits +
                      grids * (scheme.bits + 16) + 32 * double(linear.columns);
  return bits / (double(linear.rows) * double(linear.columns));
}

inline std::vector<std::string> notes(const ExportModel& model) {
  std::vector<std::string> notes;
  std::set<Scheme> schemes;
  for (const ExportLinear& linear : model.linears) schemes.insert(scheme_of(linear));
  if (schemes.size() > 1)
    notes.push_back(
        "linears of several schemes are named in `dynamic`, which not every program reads");
  return notes;
}

/// The tensors of a linear: qweight (in b / 32, out) packed along the inputs, qzeros
/// (groups, out b / 32) packed along the rows, scales (groups, out) float16, g_idx (in). Codes and
/// zeros have no sign, w = s (q - z); the words of a column or group are one stream, lowest bits
/// first. A symmetric scheme is read without looking at the zeros: codes that are stored with more
/// bits move so that zero is at 2^(b-1).
inline std::vector<ExportTensor> tensors(const ExportLinear& linear) {
  const auto [bits, group_size, symmetric] = scheme_of(linear);
  const int center = symmetric ? 1 << (bits - 1) : 0;
  const index_t groups = linear.groups();
  const std::string module = linear.module();
  std::vector<ExportTensor> out;
  out.push_back({{module + ".qweight", "I32", {linear.columns * bits / 32, linear.rows}},
                 [bits = bits, symmetric = symmetric, center](const ExportCodes& codes) {
                   const index_t words = codes.columns * bits / 32;
                   std::vector<std::uint32_t> stored(std::size_t(words * codes.rows));
                   host_parallel_for(codes.rows, [&](index_t i) {
                     std::vector<std::uint32_t> column(static_cast<std::size_t>(words));
                     BitWriter writer(reinterpret_cast<std::byte*>(column.data()));
                     for (index_t j = 0; j < codes.columns; ++j) {
                       const int zero =
                           symmetric ? codes.zero(codes.of_column[std::size_t(j)], i) : 0;
                       writer.put(std::uint32_t(codes.code(i, j) - zero + center), bits);
                     }
                     for (index_t k = 0; k < words; ++k)
                       stored[std::size_t(k * codes.rows + i)] = column[std::size_t(k)];
                   });
                   return bytes_of_values(stored);
                 }});
  out.push_back({{module + ".qzeros", "I32", {groups, linear.rows * bits / 32}},
                 [bits = bits, symmetric = symmetric, center, groups](const ExportCodes& codes) {
                   const index_t words = codes.rows * bits / 32;
                   std::vector<std::uint32_t> stored(std::size_t(groups * words));
                   for (index_t g = 0; g < groups; ++g) {
                     BitWriter writer(reinterpret_cast<std::byte*>(stored.data() + g * words));
                     for (index_t i = 0; i < codes.rows; ++i)
                       writer.put(std::uint32_t(symmetric ? center : codes.zero(g, i)), bits);
                   }
                   return bytes_of_values(stored);
                 }});
  out.push_back({{module + ".g_idx", "I32", {linear.columns}},
                 [](const ExportCodes& codes) { return bytes_of_values(codes.of_column); }});
  out.push_back({{module + ".scales", "F16", {groups, linear.rows}},
                 [](const ExportCodes& codes) { return bytes_of_values(codes.scales); }});
  return out;
}

/// The quantization_config: the scheme of most linears, and in `dynamic` those of the others.
inline nlohmann::ordered_json config_of(const ExportSource& source) {
  std::map<Scheme, std::size_t> count;
  std::set<std::string> quantized;
  for (const ExportLinear& linear : source.model.linears) {
    ++count[scheme_of(linear)];
    quantized.insert(linear.tensor);
  }
  Scheme usual{4, -1, false};
  std::size_t most = 0;
  for (const auto& [scheme, linears] : count)
    if (linears > most) {
      usual = scheme;
      most = linears;
    }
  const auto fields = [](const Scheme& scheme) {
    return nlohmann::ordered_json{{"bits", scheme.bits},
                                  {"group_size", scheme.group_size},
                                  {"sym", scheme.symmetric}};
  };
  nlohmann::ordered_json dynamic = nlohmann::ordered_json::object();
  for (const ExportLinear& linear : source.model.linears)
    if (scheme_of(linear) != usual)
      dynamic["+:" + module_pattern(linear.module())] = fields(scheme_of(linear));
  for (const PackedEntry& entry : source.file.linears())
    if (!quantized.contains(entry.tensor))
      dynamic["-:" + module_pattern(ExportLinear{.tensor = entry.tensor}.module())] =
          nlohmann::ordered_json::object();
  nlohmann::ordered_json config = fields(usual);
  config["desc_act"] = false;  // groups are of neighbouring inputs whatever the order of the solve
  config["lm_head"] = false;
  config["quant_method"] = "gptq";
  config["checkpoint_format"] = "gptq_v2";
  config["pack_dtype"] = "int32";
  if (!dynamic.empty()) config["dynamic"] = std::move(dynamic);
  return config;
}

inline void write(const ExportSource& source, const std::filesystem::path& folder) {
  write_export_tensors(folder / Checkpoint::single_name, source, tensors);
  const nlohmann::ordered_json quantization = config_of(source);
  write_export_json(folder / "quantize_config.json", quantization);
  nlohmann::ordered_json config = source.model.config;
  config["quantization_config"] = quantization;
  write_export_json(folder / "config.json", config);
}

}  // namespace detail::gptq

/// GPTQ, version 2: 2, 3, 4 and 8 bits, multiples of 32 rows and inputs.
/// @hideinitializer
inline constexpr ExportFormat gptq_format{.name = "gptq",
                                          .title = "GPTQ, checkpoint format 2 (GPTQModel)",
                                          .model_refusal = detail::gptq::model_refusal,
                                          .linear_refusal = detail::gptq::linear_refusal,
                                          .bits_per_weight = detail::gptq::bits_per_weight,
                                          .notes = detail::gptq::notes,
                                          .scale_digits = [](const ExportLinear&) { return 11; },
                                          .side_files = true,
                                          .fuses = true,
                                          .rounds_embeddings = false,
                                          .write = detail::gptq::write};

}  // namespace pare
