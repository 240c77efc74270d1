// compressed-tensors, pack-quantized: what vLLM, llm-compressor and transformers load.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pare/storage/export/format.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::compressed_tensors {

/// What a group of config.json says of its linears.
struct Scheme {
  int bits;
  index_t group_size;  // 0: a grid per row
  bool symmetric;
  bool operator==(const Scheme&) const = default;
  friend bool operator<(const Scheme& a, const Scheme& b) {
    return std::tie(a.bits, a.group_size, a.symmetric) <
           std::tie(b.bits, b.group_size, b.symmetric);
  }
};

inline Scheme scheme_of(const ExportLinear& linear) {
  return {linear.width(), linear.groups() == 1 ? 0 : linear.group_size, linear.symmetric};
}

/// Significant bits that the type of the scales holds.
inline int digits_of(const ExportLinear& linear) { return linear.dtype == DType::bf16 ? 8 : 11; }

inline std::optional<std::string> linear_refusal(const ExportLinear& linear) {
  if (linear.transposed)
    return "the checkpoint stores the weight as (in, out), which no module that this format "
           "compresses does; write --format gptq";
  if (auto refusal = uniform_refusal(linear)) return refusal;
  if (linear.groups() > 1 && linear.columns % linear.group_size != 0)
    return "groups of " + std::to_string(linear.group_size) + " do not divide its " +
           std::to_string(linear.columns) + " inputs; write --group-size 64 or another divisor";
  if (linear.scale_digits > digits_of(linear))
    return "its scales have more digits than " + dtype_name(linear.dtype) +
           ", the type of the checkpoint, which this format stores them in; compress with "
           "--save-as "
           "compressed-tensors=DIR, or write --format gptq";
  return std::nullopt;
}

inline std::optional<std::string> model_refusal(const ExportModel&) { return std::nullopt; }

/// Words that so many codes take.
inline index_t words_of(index_t codes, int bits) { return (codes * bits + 31) / 32; }

inline double bits_per_weight(const ExportLinear& linear) {
  const Scheme scheme = scheme_of(linear);
  const double words = double(words_of(linear.columns, scheme.bits)) * double(linear.rows);
  const double grids = double(linear.rows * linear.groups());
  double bits = 32 * words + 8 * dtype_bytes(linear.dtype) * grids + 128;
  if (!scheme.symmetric)
    bits += 32 * double(words_of(linear.rows, scheme.bits)) * double(linear.groups());
  return bits / (double(linear.rows) * double(linear.columns));
}

inline std::vector<std::string> notes(const ExportModel& model) {
  std::set<Scheme> schemes;
  for (const ExportLinear& linear : model.linears) schemes.insert(scheme_of(linear));
  const auto asymmetric = std::count_if(schemes.begin(), schemes.end(),
                                        [](const Scheme& scheme) { return !scheme.symmetric; });
  std::vector<std::string> notes;
  if (asymmetric > 0 && schemes.size() == 1)
    notes.push_back(
        "zero points: transformers loads it with CompressedTensorsConfig(dequantize=True) alone");
  if (asymmetric > 0 && schemes.size() > 1)
    notes.push_back(
        "several schemes with zero points: transformers 5.24 cannot load it, the package "
        "compressed-tensors decodes each linear; --symmetric makes it load");
  return notes;
}

/// Codes as the format packs them: bit i b of a row begins code i, lowest bits first, whole words.
/// @param code  code(i, j) of rows x columns
template <class Code>
std::vector<std::uint32_t> packed_words(index_t rows, index_t columns, int bits, const Code& code) {
  const index_t words = words_of(columns, bits);
  std::vector<std::uint32_t> out(std::size_t(rows * words));
  host_parallel_for(rows, [&](index_t i) {
    BitWriter writer(reinterpret_cast<std::byte*>(out.data() + i * words));
    for (index_t j = 0; j < columns; ++j) writer.put(std::uint32_t(code(i, j)), bits);
    writer.finish();
  });
  return out;
}

/// The tensors of a linear: weight_packed (out, in b / 32), weight_scale (out, groups),
/// weight_shape (2), weight_zero_point (out b / 32, groups). A code q of the format is signed,
/// w = (q - z) s, and is stored as q + 2^(b-1), that is without a sign.
inline std::vector<ExportTensor> tensors(const ExportLinear& linear) {
  const Scheme scheme = scheme_of(linear);
  const index_t groups = linear.groups();
  const int bits = scheme.bits;
  std::vector<ExportTensor> out;
  // Where zeros are stored codes are as they are; else they move so that zero is at 2^(b-1).
  out.push_back({{linear.tensor + "_packed", "I32", {linear.rows, words_of(linear.columns, bits)}},
                 [=](const ExportCodes& codes) {
                   return bytes_of_values(
                       packed_words(codes.rows, codes.columns, bits, [&](index_t i, index_t j) {
                         const int code = codes.code(i, j);
                         if (!scheme.symmetric) return code;
                         const index_t g = codes.of_column[std::size_t(j)];
                         return code - codes.zero(g, i) + (1 << (bits - 1));
                       }));
                 }});
  out.push_back({{linear.tensor + "_scale", dtype_name(linear.dtype), {linear.rows, groups}},
                 [=, dtype = linear.dtype](const ExportCodes& codes) {
                   std::vector<float> scales;
                   scales.reserve(codes.scales.size());
                   for (index_t i = 0; i < codes.rows; ++i)
                     for (index_t g = 0; g < groups; ++g)
                       scales.push_back(half_to_float(codes.scale(g, i)));
                   return encode_floats(scales, dtype);
                 }});
  out.push_back({{linear.tensor + "_shape", "I64", {2}}, [=](const ExportCodes& codes) {
                   return bytes_of_values(std::vector<std::int64_t>{codes.rows, codes.columns});
                 }});
  if (!scheme.symmetric)
    out.push_back({{linear.tensor + "_zero_point", "I32", {words_of(linear.rows, bits), groups}},
                   [=](const ExportCodes& codes) {
                     // Packed along the rows: words of one group below each other.
                     const std::vector<std::uint32_t> by_group =
                         packed_words(groups, codes.rows, bits,
                                      [&](index_t g, index_t i) { return codes.zero(g, i); });
                     const index_t height = words_of(codes.rows, bits);
                     std::vector<std::uint32_t> stored(by_group.size());
                     for (index_t g = 0; g < groups; ++g)
                       for (index_t k = 0; k < height; ++k)
                         stored[std::size_t(k * groups + g)] =
                             by_group[std::size_t(g * height + k)];
                     return bytes_of_values(stored);
                   }});
  return out;
}

/// The quantization_config of config.json.
inline nlohmann::ordered_json config_of(const ExportSource& source) {
  std::map<Scheme, std::vector<std::string>> schemes;
  std::set<std::string> quantized;
  for (const ExportLinear& linear : source.model.linears) {
    schemes[scheme_of(linear)].push_back(linear.module());
    quantized.insert(linear.tensor);
  }
  nlohmann::ordered_json groups = nlohmann::ordered_json::object();
  for (const auto& [scheme, modules] : schemes) {
    nlohmann::ordered_json targets = nlohmann::ordered_json::array();
    for (const std::string& module : modules) targets.push_back("re:" + module_pattern(module));
    nlohmann::ordered_json weights{{"num_bits", scheme.bits},
                                   {"type", "int"},
                                   {"symmetric", scheme.symmetric},
                                   {"strategy", scheme.group_size == 0 ? "channel" : "group"},
                                   {"group_size", nullptr},
                                   {"dynamic", false},
                                   {"actorder", nullptr}};
    if (scheme.group_size != 0) weights["group_size"] = scheme.group_size;
    if (source.model.act_order && scheme.group_size != 0) weights["actorder"] = "weight";
    groups["group_" + std::to_string(groups.size())] = {{"targets", std::move(targets)},
                                                        {"weights", std::move(weights)},
                                                        {"input_activations", nullptr},
                                                        {"output_activations", nullptr},
                                                        {"format", "pack-quantized"}};
  }
  // What is a matrix and stays dense. Tables of embeddings do no harm here: no target names them.
  nlohmann::ordered_json ignore = nlohmann::ordered_json::array({"lm_head"});
  for (const PackedEntry& entry : source.file.linears())
    if (!quantized.contains(entry.tensor))
      ignore.push_back("re:" + module_pattern(ExportLinear{.tensor = entry.tensor}.module()));
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"global_compression_ratio", nullptr},
          {"config_groups", std::move(groups)},
          {"ignore", std::move(ignore)},
          {"kv_cache_scheme", nullptr}};
}

inline void write(const ExportSource& source, const std::filesystem::path& folder) {
  write_export_tensors(folder / Checkpoint::single_name, source, tensors);
  nlohmann::ordered_json config = source.model.config;
  config["quantization_config"] = config_of(source);
  write_export_json(folder / "config.json", config);
}

}  // namespace detail::compressed_tensors

/// compressed-tensors 0.20, `pack-quantized`: any width per linear, groups that divide the inputs.
/// @hideinitializer
inline constexpr ExportFormat compressed_tensors_format{
    .name = "compressed-tensors",
    .title = "compressed-tensors, pack-quantized (vLLM, transformers)",
    .model_refusal = detail::compressed_tensors::model_refusal,
    .linear_refusal = detail::compressed_tensors::linear_refusal,
    .bits_per_weight = detail::compressed_tensors::bits_per_weight,
    .notes = detail::compressed_tensors::notes,
    .scale_digits = detail::compressed_tensors::digits_of,
    .side_files = true,
    .fuses = true,
    .rounds_embeddings = false,
    .write = detail::compressed_tensors::write};

}  // namespace pare
