// What a format of another program is: what it can hold, and how a packed model is written in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/export/linear.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/output_file.hpp"
#include "pare/storage/packed_file.hpp"
#include "pare/storage/safetensors.hpp"

namespace pare::inline PARE_TARGET {

/// A model that is exported, before or after it is compressed.
struct ExportModel {
  std::filesystem::path folder;       ///< config.json and the tokenizer
  nlohmann::ordered_json config;      ///< that config.json
  std::vector<ExportLinear> linears;  ///< those that are quantized
  bool act_order = false;             ///< inputs were visited by falling diag(H)
  bool small_embeddings = false;      ///< embeddings and head are rounded to blocks of 8 bits
};

/// A packed model that is exported.
struct ExportSource {
  const PackedFile& file;    ///< its weights
  const ExportModel& model;  ///< made from it
};

/// A format that other programs read. A program's own format is one of these, too.
struct ExportFormat {
  /// What it is called on a command line.
  std::string_view name;
  /// What it is, for a person: "GGUF, of llama.cpp".
  std::string_view title;
  /// Why the model as a whole cannot be written, with what to write instead; none when it can.
  std::optional<std::string> (*model_refusal)(const ExportModel&);
  /// The same of one linear.
  std::optional<std::string> (*linear_refusal)(const ExportLinear&);
  /// Bits that the file takes for a weight of a linear that it can hold.
  double (*bits_per_weight)(const ExportLinear&);
  /// What whoever loads the model should know.
  std::vector<std::string> (*notes)(const ExportModel&);
  /// Significant bits that scales of a linear may have at most, so that the format holds it, and in
  /// as few bits as it can.
  int (*scale_digits)(const ExportLinear&);
  /// Whether the folder's other files (tokenizer.json, ...) go along.
  bool side_files;
  /// Whether programs that load it make one linear of q, k and v, and of gate and up.
  bool fuses;
  /// Whether embeddings and head may be rounded.
  bool rounds_embeddings;
  /// Writes the model's files into an existing folder.
  void (*write)(const ExportSource&, const std::filesystem::path& folder);
};

namespace detail {

/// Why no format can hold a linear whose inputs are rotated when it runs.
inline const std::optional<std::string> rotated_refusal =
    "its inputs are rotated when it runs, which the format does not say; write --rotate folded";

}  // namespace detail

/// Why a format cannot hold a model: all reasons at once, linears with the same reason together.
/// @return  a line for each reason, "2 linears, the first model.layers.0.fc1: REASON"; empty when
///          it can hold it
inline std::vector<std::string> export_refusals(const ExportFormat& format,
                                                const ExportModel& model) {
  std::vector<std::string> refusals;
  if (auto refusal = format.model_refusal(model)) refusals.push_back(std::move(*refusal));
  if (model.small_embeddings && !format.rounds_embeddings)
    refusals.emplace_back(
        "embeddings stay in the checkpoint's type in this format; leave --embeddings out");
  struct Group {
    std::size_t count = 0;
    std::string first = {};
  };
  std::vector<std::string> reasons;  // in the order of the linears
  std::map<std::string, Group> groups;
  for (const ExportLinear& linear : model.linears)
    if (const auto reason =
            linear.rotated ? detail::rotated_refusal : format.linear_refusal(linear)) {
      Group& group = groups[*reason];
      if (group.count++ == 0) {
        group.first = linear.module();
        reasons.push_back(*reason);
      }
    }
  for (const std::string& reason : reasons) {
    const Group& group = groups[reason];
    refusals.push_back((group.count == 1
                            ? group.first
                            : std::to_string(group.count) + " linears, the first " + group.first) +
                       ": " + reason);
  }
  return refusals;
}

/// Throws argument_error with all reasons why a format cannot hold a model, if there are any.
inline void require_no_refusals(const ExportFormat& format,
                                const std::vector<std::string>& refusals) {
  if (refusals.empty()) return;
  std::string text = std::string(format.name) + " cannot hold this model:";
  for (const std::string& refusal : refusals) text += "\n  " + refusal;
  throw argument_error(text);
}

namespace detail {

/// config.json of a model folder. Throws format_error for one that is none.
inline nlohmann::ordered_json export_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  const std::string text = read_whole_file(path);
  parse_json_object(path.string(), text);  // the checks of a hostile file
  return nlohmann::ordered_json::parse(text);
}

}  // namespace detail

/// What a packed model is to a format.
/// @param file    its weights
/// @param folder  with packed.safetensors and config.json
/// @throws as PackedFile; format_error for a config.json that is none
inline ExportModel export_model(const PackedFile& file, const std::filesystem::path& folder) {
  return {.folder = folder,
          .config = detail::export_config(folder),
          .linears = export_linears(file)};
}

namespace detail {

/// A tensor that an export writes in place of a linear.
struct ExportTensor {
  TensorInfo info;  ///< name, type and shape
  /// Its bytes.
  std::function<std::vector<std::byte>(const ExportCodes&)> bytes;
};

template <class T>
std::vector<std::byte> bytes_of_values(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

/// The dense weight of a packed linear as a checkpoint stores it.
inline std::vector<std::byte> dense_bytes(const PackedLinear& packed) {
  Matrix<float> weights(packed.layout.rows, packed.layout.columns);
  unpack_rows(packed, 0, weights.view());
  rotate_back(packed, weights.view());
  if (packed.transposed) {
    Matrix<float> stored(weights.cols(), weights.rows());
    for (index_t r = 0; r < weights.rows(); ++r)
      for (index_t c = 0; c < weights.cols(); ++c) stored(c, r) = weights(r, c);
    weights = std::move(stored);
  }
  return encode_floats({weights.data(), std::size_t(weights.size())}, packed.dtype);
}

/// Writes model.safetensors: what `tensors_of` gives in place of every quantized linear, all else
/// dense. One tensor is held at a time; those of wide elements come first, so that each lies at a
/// multiple of their size.
inline void write_export_tensors(
    const std::filesystem::path& path, const ExportSource& source,
    const std::function<std::vector<ExportTensor>(const ExportLinear&)>& tensors_of) {
  struct Portion {
    TensorInfo info;
    const PackedEntry* entry = nullptr;                                    // of a linear
    std::function<std::vector<std::byte>(const ExportCodes&)> bytes = {};  // empty: dense
  };
  std::vector<Portion> portions;
  std::map<std::string, const ExportLinear*> quantized;
  for (const ExportLinear& linear : source.model.linears) quantized[linear.tensor] = &linear;
  for (const TensorInfo& info : source.file.file().tensors())
    if (!source.file.is_part(info.name)) portions.push_back({info});
  for (const PackedEntry& entry : source.file.linears()) {
    const auto found = quantized.find(entry.tensor);
    if (found == quantized.end()) {
      portions.push_back({{entry.tensor, dtype_name(entry.dtype), entry.stored_shape()}, &entry});
      continue;
    }
    for (ExportTensor& tensor : tensors_of(*found->second))
      portions.push_back({std::move(tensor.info), &entry, std::move(tensor.bytes)});
  }
  std::stable_sort(portions.begin(), portions.end(), [](const Portion& a, const Portion& b) {
    return element_bytes(a.info.dtype) > element_bytes(b.info.dtype);
  });
  std::vector<TensorInfo> infos;
  infos.reserve(portions.size());
  for (const Portion& portion : portions) infos.push_back(portion.info);
  std::vector<std::byte> bytes;
  write_safetensors(path, infos, {{"format", "pt"}}, [&](std::size_t i) {
    const Portion& portion = portions[i];
    if (portion.entry == nullptr) {
      bytes = source.file.file().read_bytes(portion.info.name);
      source.file.require_intact(portion.info.name, bytes);
    } else {
      const PackedLinear packed = source.file.read(*portion.entry);
      bytes = portion.bytes ? portion.bytes(export_codes(packed)) : dense_bytes(packed);
    }
    return std::span<const std::byte>(bytes);
  });
}

/// Writes a JSON file as programs of Hugging Face do.
inline void write_export_json(const std::filesystem::path& path,
                              const nlohmann::ordered_json& json) {
  const std::string text = json.dump(2) + "\n";
  OutputFile out(path);
  out.write(std::as_bytes(std::span(text)));
  out.commit();
}

/// A module's name as a regular expression of Python's that matches it whatever stands in front.
inline std::string module_pattern(const std::string& module) {
  std::string pattern = "(.*[.])?";
  for (const char c : module) pattern += c == '.' ? std::string("[.]") : std::string(1, c);
  return pattern + "$";
}

/// "2, 3, 4".
inline std::string numbers_text(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text;
}

/// Why no format that has one width and grids of neighbouring inputs can hold a linear.
inline std::optional<std::string> uniform_refusal(const ExportLinear& linear) {
  if (linear.widths_by_input)
    return "inputs have several widths (" + numbers_text(linear.widths) +
           " bits); write --axis output, or a width for the linear";
  if (linear.widths.size() > 1 && !linear.widened)
    return "rows have several widths (" + numbers_text(linear.widths) +
           " bits); add --widen to store them at the widest, or write a width for the linear";
  return std::nullopt;
}

}  // namespace detail
}  // namespace pare
