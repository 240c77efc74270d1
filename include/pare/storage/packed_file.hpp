// Packed model files: a safetensors container in which linears are packed; docs/format.md.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/channel.hpp"
#include "pare/core/error.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/core/text.hpp"
#include "pare/core/xxh64.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/packed_rows.hpp"
#include "pare/storage/safetensors.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// The newest version; a file in which no linear has groups or rotated inputs is of version 1.
inline constexpr int packed_version = 2;
/// Where the description of the linears stands in the file's metadata.
inline constexpr const char* packed_key = "pare.packed";
/// What a packed linear's tensors are called, behind its own name and in the order of a checksum.
inline constexpr const char* packed_parts[] = {".codes", ".mask", ".scales", ".zeros", ".widths"};

/// The parts of a packed linear in the order of packed_parts.
inline std::array<std::span<const std::byte>, 5> part_bytes(const PackedLinear& packed) {
  const auto widths = std::span(packed.layout.widths);
  return {std::span(packed.codes), std::span(packed.mask), std::as_bytes(std::span(packed.scales)),
          std::as_bytes(std::span(packed.zeros)),
          std::as_bytes(widths.size() > 1 ? widths : widths.first(0))};
}

}  // namespace detail

/// FNV-1a over the bytes of a linear's tensors: codes, mask, scales, zeros, widths.
inline std::uint64_t checksum(const PackedLinear& packed) {
  Fingerprint fingerprint;
  for (const auto& part : detail::part_bytes(packed)) fingerprint.add(part);
  return fingerprint.value();
}

/// What a packed file says of one linear before its data is read.
struct PackedEntry {
  std::string tensor;              ///< name of the weight in the checkpoint
  PackedLayout layout;             ///< without widths where they differ by channel
  bool widths_by_channel = false;  ///< these are in the data
  /// What the checkpoint stores the weight in.
  DType dtype = DType::f32;
  /// How pruned weights are told.
  PackedMask kind = PackedMask::none;
  bool transposed = false;  ///< the checkpoint stores the weight as (in, out)
  /// Of the inputs; see PackedLinear::rotation.
  std::optional<kernels::HadamardRotation> rotation = {};
  std::uint64_t checksum = 0;  ///< of the packed data
  std::uint64_t original = 0;  ///< FNV-1a of the dense weight's bytes in the checkpoint

  /// Shape of the dense weight in the checkpoint.
  std::vector<std::int64_t> stored_shape() const {
    if (transposed) return {layout.columns, layout.rows};
    return {layout.rows, layout.columns};
  }
};

namespace detail {

inline const char* mask_name(PackedMask kind) {
  return kind == PackedMask::none ? "none" : kind == PackedMask::bits ? "bits" : "groups";
}

/// What a file says of a packed linear, but for the original's fingerprint.
inline nlohmann::ordered_json entry_json(const std::string& tensor, const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  nlohmann::ordered_json json{{"tensor", tensor},
                              {"shape", {layout.rows, layout.columns}},
                              {"dtype", dtype_name(packed.dtype)},
                              {"axis", to_string(layout.axis)},
                              {"bits", nullptr},
                              {"mask", mask_name(packed.kind)}};
  if (layout.widths.size() == 1) json["bits"] = layout.widths.front();
  if (layout.widths.size() > 1) json["bits"] = "channel";
  if (layout.group_size != 0) json["group_size"] = layout.group_size;
  if (packed.kind == PackedMask::n_of_m) {
    json["zeros"] = layout.pattern.zeros;
    json["group"] = layout.pattern.of;
  }
  if (packed.transposed) json["transposed"] = true;
  if (packed.rotation) json["rotation_seed"] = packed.rotation->seed;
  json["checksum"] = hex_text(checksum(packed));
  return json;
}

/// A checksum in a file. `who` begins messages.
inline std::uint64_t hash_of_json(const nlohmann::json& json, const std::string& who) {
  return hash_of_hex(json.is_string() ? json.get<std::string>() : "", who);
}

/// The version of a file with these entries: the oldest that holds them.
inline int version_of_entries(const nlohmann::ordered_json& entries) {
  return std::any_of(entries.begin(), entries.end(),
                     [](const auto& entry) {
                       return entry.contains("group_size") || entry.contains("rotation_seed");
                     })
             ? 2
             : 1;
}

/// Reads one entry.
/// @param version  of the file
/// @param who      begins messages
inline PackedEntry entry_of_json(const nlohmann::json& json, int version, const std::string& who) {
  const auto fail = [&](const std::string& what) { throw format_error(who + ": " + what); };
  if (!json.is_object()) fail("a linear is not described by an object");
  const auto member = [&](const char* key) -> const nlohmann::json& {
    const auto found = json.find(key);
    if (found == json.end()) fail(std::string("a linear has no ") + key);
    return *found;
  };
  const auto text = [&](const char* key) {
    const nlohmann::json& value = member(key);
    if (!value.is_string()) fail(std::string(key) + ": expected a text");
    return value.get<std::string>();
  };
  const auto number = [&](const nlohmann::json& value, const char* key, std::int64_t low,
                          std::int64_t high) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < std::uint64_t(low) ||
        value.get<std::uint64_t>() > std::uint64_t(high))
      fail(std::string(key) + ": expected a whole number from " + std::to_string(low) + " to " +
           std::to_string(high));
    return value.get<std::int64_t>();
  };
  const auto hash = [&](const char* key) { return hash_of_json(member(key), who + ": " + key); };

  PackedEntry entry;
  entry.tensor = text("tensor");
  PackedLayout& layout = entry.layout;
  const nlohmann::json& shape = member("shape");
  if (!shape.is_array() || shape.size() != 2) fail("shape: expected two numbers");
  constexpr std::int64_t side = std::int64_t{1} << 24;  // far above every real model
  layout.rows = number(shape[0], "shape", 1, side);
  layout.columns = number(shape[1], "shape", 1, side);
  const std::optional<DType> dtype = float_dtype(text("dtype"));
  if (!dtype) fail("dtype: expected F16, BF16, F32 or F64");
  entry.dtype = *dtype;
  const std::string axis = text("axis");
  if (axis != "output" && axis != "input") fail("axis: expected output or input");
  layout.axis = axis == "output" ? ChannelAxis::output : ChannelAxis::input;
  const nlohmann::json& bits = member("bits");
  if (bits.is_null())
    layout.value_bits = 8 * dtype_bytes(entry.dtype);
  else if (bits == "channel")
    entry.widths_by_channel = true;
  else
    layout.widths = {std::uint8_t(number(bits, "bits", min_bits, max_bits))};
  if (const auto size = json.find("group_size"); version >= 2 && size != json.end()) {
    if (bits.is_null()) fail("group_size: expected none without bits");
    layout.group_size = number(*size, "group_size", 1, std::numeric_limits<std::int64_t>::max());
  }
  const std::string mask = text("mask");
  if (mask == "groups") {
    entry.kind = PackedMask::n_of_m;
    const int of = int(number(member("group"), "group", 2, longest_indexed_of));
    layout.pattern = n_of_m(int(number(member("zeros"), "zeros", 1, of - 1)), of);
    if (packed_mask_kind(layout.pattern) != PackedMask::n_of_m)
      fail("zeros, group: expected an index of at most 32 bits");
    if (layout.columns % of != 0)
      fail("group: expected a divisor of " + std::to_string(layout.columns));
  } else if (mask == "bits") {
    entry.kind = PackedMask::bits;
    layout.pattern = unstructured(0);  // the file does not say the share
  } else if (mask != "none") {
    fail("mask: expected none, bits or groups");
  }
  if (const auto transposed = json.find("transposed"); transposed != json.end()) {
    if (!transposed->is_boolean()) fail("transposed: expected true or false");
    entry.transposed = transposed->get<bool>();
  }
  if (const auto seed = json.find("rotation_seed"); version >= 2 && seed != json.end())
    entry.rotation = kernels::HadamardRotation{
        std::uint64_t(number(*seed, "rotation_seed", 0, std::numeric_limits<std::int64_t>::max()))};
  entry.checksum = hash("checksum");
  entry.original = hash("original");
  return entry;
}

}  // namespace detail

/// A packed model file open for reading. Nothing in it is trusted.
class PackedFile {
 public:
  /// Name of the file in its folder.
  static constexpr const char* name = "packed.safetensors";

  /// Whether a folder holds a packed model and no dense one.
  static bool is_in(const std::filesystem::path& folder) {
    std::error_code ignored;
    for (const char* dense : {Checkpoint::single_name, Checkpoint::index_name,
                              Checkpoint::pytorch_name, Checkpoint::pytorch_index_name})
      if (std::filesystem::exists(folder / dense, ignored)) return false;
    return std::filesystem::exists(folder / name, ignored);
  }

  /// Opens `folder`/packed.safetensors. Throws io_error if it cannot be read, format_error if it
  /// breaks the format.
  explicit PackedFile(const std::filesystem::path& folder)
      : file_(folder / name), who_((folder / name).string()) {
    const auto found = file_.metadata().find(detail::packed_key);
    if (found == file_.metadata().end())
      throw format_error(who_ + ": its metadata has no " + detail::packed_key);
    const std::string who = who_ + ": " + detail::packed_key;
    const nlohmann::json json = detail::parse_json_object(who, found->second);
    const auto version = json.find("version");
    if (version == json.end() || (*version != 1 && *version != detail::packed_version))
      throw format_error(who + ": version: expected 1 or " +
                         std::to_string(detail::packed_version) + ", got " +
                         (version == json.end() ? "none" : version->dump()));
    const auto linears = json.find("linears");
    if (linears == json.end() || !linears->is_array())
      throw format_error(who + ": linears: expected an array");
    for (const nlohmann::json& linear : *linears) {
      PackedEntry entry = detail::entry_of_json(linear, version->get<int>(), who);
      if (!index_.emplace(entry.tensor, linears_.size()).second || file_.find(entry.tensor))
        throw format_error(who + ": tensor " + detail::quoted_name(entry.tensor) +
                           " is there twice");
      for (const char* part : detail::packed_parts) parts_.insert(entry.tensor + part);
      linears_.push_back(std::move(entry));
    }
    if (const auto checksums = json.find("checksums"); checksums != json.end())
      read_checksums(*checksums, who + ": checksums");
  }

  /// The safetensors file below.
  const SafetensorsFile& file() const { return file_; }
  /// The packed linears, in the order of the file's description.
  const std::vector<PackedEntry>& linears() const { return linears_; }

  /// What is said of the weight called `tensor`; null when it is not packed.
  const PackedEntry* find(std::string_view tensor) const {
    const auto found = index_.find(tensor);
    return found == index_.end() ? nullptr : &linears_[found->second];
  }

  /// Whether a tensor of the file belongs to a packed linear.
  bool is_part(std::string_view tensor) const { return parts_.contains(tensor); }

  /// Whether the file has a checksum for every tensor. Files of version 0.1.0 have them for packed
  /// linears alone, so that damage of the other tensors cannot be told.
  bool checks_every_tensor() const { return checksums_.has_value(); }

  /// Throws format_error unless a tensor that belongs to no packed linear is as it was written.
  /// @param tensor  its name; argument_error for any other tensor
  /// @param bytes   of it, as they are there
  void require_intact(std::string_view tensor, std::span<const std::byte> bytes) const {
    if (!checksums_) return;
    const auto recorded = checksums_->find(tensor);
    if (recorded == checksums_->end())
      throw argument_error(who_ + ": tensor " + detail::quoted_name(tensor) +
                           ": expected one that is there and not packed");
    const std::uint64_t expected = recorded->second, found = xxh64(bytes);
    if (found != expected)
      throw format_error(who_ + ": tensor " + detail::quoted_name(tensor) + ": expected checksum " +
                         hex_text(expected) + ", got " + hex_text(found) +
                         ": the data was changed");
  }

  /// Reads one linear and checks everything that reading its rows relies on, that every weight is
  /// finite, and the checksum. Throws format_error naming the tensor, what was expected and what is
  /// there, io_error.
  PackedLinear read(const PackedEntry& entry) const {
    PackedLinear packed;
    packed.layout = entry.layout;
    packed.dtype = entry.dtype;
    packed.kind = entry.kind;
    packed.transposed = entry.transposed;
    packed.rotation = entry.rotation;
    PackedLayout& layout = packed.layout;
    if (entry.widths_by_channel) {
      const auto bytes = part(entry, ".widths", "U8", {layout.channels()});
      for (const std::byte b : bytes) layout.widths.push_back(std::uint8_t(b));
      if (layout.widths.size() < 2)
        throw format_error(who(entry) + ".widths: expected at least 2 channels, got 1");
      for (std::size_t c = 0; c < layout.widths.size(); ++c)
        if (layout.widths[c] < min_bits || layout.widths[c] > max_bits)
          throw format_error(who(entry) + ".widths: expected widths within 2..8, got " +
                             std::to_string(layout.widths[c]) + " for channel " +
                             std::to_string(c));
    }
    packed.codes = part(entry, ".codes", "U8", {});
    if (entry.kind != PackedMask::none) packed.mask = part(entry, ".mask", "U8", {});
    if (layout.quantized()) {
      const std::vector<std::int64_t> grids{layout.grids(), layout.rows};
      const auto scales = part(entry, ".scales", "F16", grids);
      packed.scales.resize(scales.size() / 2);
      std::memcpy(packed.scales.data(), scales.data(), scales.size());
      for (const std::byte b : part(entry, ".zeros", "U8", grids))
        packed.zeros.push_back(std::uint8_t(b));
    }
    index_rows(packed, who(entry));
    require_finite_rows(packed, entry);
    if (const std::uint64_t found = checksum(packed); found != entry.checksum)
      throw format_error(who(entry) + ": expected checksum " + hex_text(entry.checksum) + ", got " +
                         hex_text(found) + ": the data was changed");
    return packed;
  }

 private:
  std::string who(const PackedEntry& entry) const {
    return who_ + ": tensor " + detail::quoted_name(entry.tensor);
  }

  /// Every tensor outside the packed linears must have one, and no other.
  void read_checksums(const nlohmann::json& json, const std::string& who) {
    if (!json.is_object()) throw format_error(who + ": expected an object");
    checksums_.emplace();
    for (const auto& [tensor, value] : json.items()) {
      const std::string entry = who + ": tensor " + detail::quoted_name(tensor);
      if (file_.find(tensor) == nullptr || is_part(tensor))
        throw format_error(entry + ": expected one that is there and not packed");
      checksums_->emplace(tensor, detail::hash_of_json(value, entry));
    }
    for (const TensorInfo& info : file_.tensors())
      if (!is_part(info.name) && !checksums_->contains(info.name))
        throw format_error(who + ": there is none for tensor " + detail::quoted_name(info.name));
  }

  /// @param shape  empty: any of rank 1
  std::vector<std::byte> part(const PackedEntry& entry, const char* suffix,
                              const std::string& dtype,
                              const std::vector<std::int64_t>& shape) const {
    const TensorInfo* info = file_.find(entry.tensor + suffix);
    if (info == nullptr) throw format_error(who(entry) + ": there is no " + suffix);
    if (info->dtype != dtype)
      throw format_error(who(entry) + suffix + ": expected dtype " + dtype + ", got " +
                         info->dtype);
    if (shape.empty() ? info->shape.size() != 1 : info->shape != shape)
      throw format_error(who(entry) + suffix + ": expected shape " +
                         (shape.empty() ? "(bytes)" : shape_text(shape)) + ", got " +
                         shape_text(info->shape));
    return file_.read_bytes(info->name);
  }

  void require_finite_rows(const PackedLinear& packed, const PackedEntry& entry) const {
    if (detail::has_finite_grids(packed)) return;
    const PackedLayout& layout = packed.layout;
    // A mask may take a tenth of a bit per weight: of wide rows only few are unpacked at a time.
    const index_t block = std::clamp<index_t>((index_t{1} << 20) / layout.columns, 1, 64);
    Matrix<float> rows;
    for (index_t first = 0; first < layout.rows; first += block) {
      rows.resize(std::min(block, layout.rows - first), layout.columns);
      unpack_rows(packed, first, rows.view());
      for (index_t k = 0; k < rows.size(); ++k)
        if (!std::isfinite(rows.data()[k]))
          throw non_finite_error(who(entry) + ": expected finite numbers, got NaN or infinity at " +
                                     shape_text(first + k / layout.columns, k % layout.columns),
                                 first + k / layout.columns, k % layout.columns);
    }
  }

  SafetensorsFile file_;
  std::string who_;
  std::vector<PackedEntry> linears_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::set<std::string, std::less<>> parts_;
  /// XXH64 of every tensor outside packed linears; none in a file that has no checksums of them.
  std::optional<std::map<std::string, std::uint64_t, std::less<>>> checksums_;
};

}  // namespace pare
