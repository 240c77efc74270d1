// Writes packed model files, and dense ones from them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/text.hpp"
#include "pare/storage/packed_file.hpp"

namespace pare::inline PARE_TARGET {

/// The linears of a model that are packed, by the name of the weight in the checkpoint.
using PackedLinears = std::map<std::string, PackedLinear>;

namespace detail {

/// Bytes that elements of a tensor are aligned to; streams of codes and masks are words.
inline int alignment_of(const TensorInfo& info) {
  return info.name.ends_with(".codes") || info.name.ends_with(".mask") ? 4
                                                                       : element_bytes(info.dtype);
}

/// Shapes of a linear's tensors, empty ones left out.
inline std::vector<TensorInfo> part_infos(const std::string& tensor, const PackedLinear& packed) {
  const auto bytes = part_bytes(packed);
  const std::vector<std::int64_t> grids{packed.layout.grids(), packed.layout.rows};
  std::vector<TensorInfo> infos;
  for (std::size_t p = 0; p < bytes.size(); ++p) {
    // Without codes a linear would have no tensor at all when everything is pruned.
    if (bytes[p].empty() && p > 0) continue;
    const bool grid = p == 2 || p == 3;
    infos.push_back({tensor + packed_parts[p], p == 2 ? "F16" : "U8",
                     grid ? grids : std::vector<std::int64_t>{std::int64_t(bytes[p].size())}});
  }
  return infos;
}

}  // namespace detail

/// A packed linear as a file takes it: in memory or in another file.
struct PackedParts {
  nlohmann::ordered_json entry;          ///< what is said of it, but for the original's fingerprint
  std::vector<TensorInfo> infos;         ///< its tensors, without offsets
  const PackedLinear* packed = nullptr;  ///< where their bytes are, or
  const TensorFile* file = nullptr;      ///< the file that holds them

  /// The bytes of one of `infos`.
  std::span<const std::byte> bytes(const TensorInfo& info) const {
    if (file != nullptr) return file->bytes(file->at(info.name));
    std::size_t p = 0;
    while (!info.name.ends_with(detail::packed_parts[p])) ++p;
    return detail::part_bytes(*packed)[p];
  }
};

/// Valid as long as the linear.
inline PackedParts parts_of(const std::string& tensor, const PackedLinear& packed) {
  return {detail::entry_json(tensor, packed), detail::part_infos(tensor, packed), &packed, nullptr};
}

/// The metadata by which parts_in finds packed linears among a file's tensors.
inline std::map<std::string, std::string> parts_metadata(const PackedLinears& linears) {
  nlohmann::ordered_json entries = nlohmann::ordered_json::array();
  for (const auto& [tensor, packed] : linears)
    entries.push_back(detail::entry_json(tensor, packed));
  return {{detail::packed_key, entries.dump()}};
}

/// The packed linears of a file with parts_metadata, by the names of their weights. Valid as long
/// as the file, which was written by this program and is trusted.
inline std::map<std::string, PackedParts> parts_in(const SafetensorsFile& file) {
  std::map<std::string, PackedParts> all;
  const auto found = file.metadata().find(detail::packed_key);
  if (found == file.metadata().end()) return all;
  for (auto& entry : nlohmann::ordered_json::parse(found->second)) {
    const std::string tensor = entry.at("tensor");
    PackedParts& parts = all[tensor];
    for (const char* suffix : detail::packed_parts)
      if (const TensorInfo* info = file.find(tensor + suffix)) parts.infos.push_back(*info);
    parts.entry = std::move(entry);
    parts.file = &file;
  }
  return all;
}

/// Writes a packed file: the tensors of `source`, byte for byte, but for those in `linears`.
/// Elements lie at multiples of their size: tensors of wide elements come first. One tensor is held
/// at a time.
/// @param path     the file to write
/// @param source   the dense checkpoint
/// @param linears  what takes the place of its weights, by tensor
/// @param skip     tensors of `source` that are left out
/// @throws argument_error when `source` lacks one of the linears or has it in another shape or
///         dtype; io_error
inline void write_packed(const std::filesystem::path& path, const Checkpoint& source,
                         const std::map<std::string, PackedParts>& linears,
                         const std::set<std::string>& skip = {}) {
  struct Piece {
    TensorInfo info;
    const TensorFile* file = nullptr;    ///< of the source, or
    const PackedParts* parts = nullptr;  ///< what takes the place of a tensor of it
  };
  std::vector<Piece> pieces;
  nlohmann::ordered_json entries = nlohmann::ordered_json::array();
  nlohmann::ordered_json checksums = nlohmann::ordered_json::object();
  for (const auto& file : source.files())
    for (const TensorInfo& info : file.tensors()) {
      if (skip.contains(info.name) || !source.reads(file, info.name)) continue;
      const auto found = linears.find(info.name);
      if (found == linears.end()) {
        pieces.push_back({info, &file});
        checksums[info.name] = hex_text(xxh64(file.bytes(info)));
        file.release(info);
        continue;
      }
      const PackedParts& parts = found->second;
      std::vector<std::int64_t> shape = parts.entry.at("shape");
      if (parts.entry.value("transposed", false)) std::swap(shape[0], shape[1]);
      if (shape != info.shape || parts.entry.at("dtype") != info.dtype)
        throw argument_error(path.string() + ": tensor " + detail::quoted_name(info.name) +
                             ": has another shape or dtype in the checkpoint");
      for (const TensorInfo& part : parts.infos) pieces.push_back({part, nullptr, &parts});
      entries.push_back(parts.entry);
      entries.back()["original"] = hex_text(fingerprint(file.bytes(info)));
      file.release(info);
    }
  if (entries.size() != linears.size())
    throw argument_error(path.string() + ": the checkpoint has " + std::to_string(entries.size()) +
                         " of " + std::to_string(linears.size()) + " packed linears");
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return detail::alignment_of(a.info) > detail::alignment_of(b.info);
  });

  const nlohmann::ordered_json description{{"version", detail::version_of_entries(entries)},
                                           {"linears", std::move(entries)},
                                           {"checksums", std::move(checksums)}};
  std::vector<TensorInfo> infos;
  infos.reserve(pieces.size());
  for (const Piece& piece : pieces) infos.push_back(piece.info);
  TensorLocation mapped;  // what was written last
  write_safetensors(path, infos, {{"format", "pt"}, {detail::packed_key, description.dump()}},
                    [&](std::size_t i) -> std::span<const std::byte> {
                      const Piece& piece = pieces[i];
                      if (mapped.file != nullptr) mapped.file->release(*mapped.info);
                      mapped = {};
                      if (piece.parts == nullptr)
                        mapped = {piece.file, piece.file->find(piece.info.name)};
                      else if (piece.parts->file != nullptr)
                        mapped = {piece.parts->file, piece.parts->file->find(piece.info.name)};
                      if (mapped.file != nullptr) return mapped.file->bytes(*mapped.info);
                      return piece.parts->bytes(piece.info);
                    });
}

/// The same for linears in memory.
inline void write_packed(const std::filesystem::path& path, const Checkpoint& source,
                         const PackedLinears& linears, const std::set<std::string>& skip = {}) {
  std::map<std::string, PackedParts> parts;
  for (const auto& [tensor, packed] : linears) parts.emplace(tensor, parts_of(tensor, packed));
  write_packed(path, source, parts, skip);
}

/// Writes a dense checkpoint: every packed linear as the weights it stands for in the checkpoint's
/// type, everything else byte for byte. One tensor is held at a time.
inline void write_unpacked(const std::filesystem::path& path, const PackedFile& source) {
  std::vector<TensorInfo> infos;
  for (const TensorInfo& info : source.file().tensors()) {
    if (!source.is_part(info.name)) {
      infos.push_back(info);
    } else if (info.name.ends_with(detail::packed_parts[0])) {
      const std::string tensor =
          info.name.substr(0, info.name.size() - std::string_view(detail::packed_parts[0]).size());
      const PackedEntry& entry = *source.find(tensor);
      infos.push_back({tensor, dtype_name(entry.dtype), entry.stored_shape()});
    }
  }
  std::vector<std::byte> bytes;
  write_safetensors(path, infos, {{"format", "pt"}}, [&](std::size_t i) {
    const PackedEntry* entry = source.find(infos[i].name);
    if (entry == nullptr) {
      bytes = source.file().read_bytes(infos[i].name);
      source.require_intact(infos[i].name, bytes);
    } else {
      const PackedLinear packed = source.read(*entry);
      Matrix<float> weights(entry->layout.rows, entry->layout.columns);
      unpack_rows(packed, 0, weights.view());
      rotate_back(packed, weights.view());
      for (index_t k = 0; packed.rotation && k < weights.size(); ++k)
        if (!std::isfinite(round_to(packed.dtype, weights.data()[k])))
          throw format_error(source.file().path().string() + ": tensor " +
                             detail::quoted_name(infos[i].name) + ": expected numbers within " +
                             dtype_name(packed.dtype) + " after rotating back, got " +
                             std::to_string(weights.data()[k]));
      if (entry->transposed) {
        Matrix<float> stored(weights.cols(), weights.rows());
        for (index_t r = 0; r < weights.rows(); ++r)
          for (index_t c = 0; c < weights.cols(); ++c) stored(c, r) = weights(r, c);
        weights = std::move(stored);
      }
      bytes = encode_floats({weights.data(), std::size_t(weights.size())}, entry->dtype);
    }
    return std::span<const std::byte>(bytes);
  });
}

}  // namespace pare
