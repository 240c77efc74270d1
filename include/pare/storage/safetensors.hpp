// Safetensors files: a reader that trusts nothing, an atomic writer, and a rewriter that replaces
// the bytes of chosen tensors. POSIX files, little-endian hosts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/output_file.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

/// One tensor to be written; `bytes` are its elements in row-major order, little-endian.
struct TensorData {
  /// Name in the file.
  std::string name;
  /// Element type: F16, BF16, F32, F64, I64, ...
  std::string dtype;
  /// Sides, outermost first.
  std::vector<std::int64_t> shape;
  /// Row-major, little-endian.
  std::vector<std::byte> bytes;
};

/// A safetensors file open for reading. The header is read and checked as a whole on opening.
class SafetensorsFile : public TensorFile {
 public:
  /// Largest header accepted, in bytes (the limit of the reference implementation).
  static constexpr std::uint64_t header_limit = 100'000'000;

  /// Opens `path`. Throws io_error if it cannot be read, format_error if its content breaks a rule
  /// of the format; the message begins with the path and names the tensor.
  explicit SafetensorsFile(const std::filesystem::path& path) : TensorFile(path) {
    if (const auto what =
            detail::foreign_content(file_.text(0, std::min<std::uint64_t>(file_.size(), 64))))
      throw format_error(name_ + ": " + *what);
    if (file_.size() < 8)
      throw format_error(name_ + ": too short for a safetensors file: " +
                         std::to_string(file_.size()) + " bytes, expected at least 8");
    std::uint64_t header_bytes = 0;
    file_.read(0, std::as_writable_bytes(std::span(&header_bytes, 1)));
    if (header_bytes > file_.size() - 8)
      throw format_error(name_ + ": header length " + std::to_string(header_bytes) +
                         " is larger than the rest of the file, " +
                         std::to_string(file_.size() - 8) + " bytes");
    if (header_bytes > header_limit)
      throw format_error(name_ + ": header length " + std::to_string(header_bytes) +
                         " exceeds the limit of " + std::to_string(header_limit) + " bytes");
    std::string header(header_bytes, '\0');
    file_.read(8, std::as_writable_bytes(std::span(header)));
    data_offset_ = 8 + header_bytes;
    if (!header.starts_with('{'))
      throw format_error(name_ + ": the header does not begin with '{'");
    read_header(detail::parse_json_object(name_, header));
  }

  /// The header's `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  void read_header(const nlohmann::json& header) {
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__")
        read_metadata(entry);
      else
        tensors_.push_back(read_entry(name, entry));
    }
    index_tensors();
    std::uint64_t covered = 0;
    for (const TensorInfo& t : tensors_) {
      if (t.begin != covered)
        throw bad_tensor(t.name, std::string(t.begin < covered ? "overlaps the one before it"
                                                               : "comes after a hole") +
                                     ": begins at data byte " + std::to_string(t.begin) +
                                     ", expected " + std::to_string(covered));
      covered = t.end;
    }
    if (covered != file_.size() - data_offset_)
      throw format_error(name_ + ": " + std::to_string(file_.size() - data_offset_ - covered) +
                         " extra bytes after the last tensor");
  }

  void read_metadata(const nlohmann::json& entry) {
    if (entry.is_null()) return;
    if (!entry.is_object()) throw format_error(name_ + ": __metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string())
        throw format_error(name_ + ": __metadata__ entry " + detail::quoted_name(key) +
                           " is not a string");
      metadata_[key] = value.get<std::string>();
    }
  }

  TensorInfo read_entry(const std::string& name, const nlohmann::json& entry) const {
    constexpr auto largest = std::uint64_t(std::numeric_limits<std::int64_t>::max());
    const auto member = [&](const char* key) -> const nlohmann::json& {
      const auto found = entry.find(key);
      if (found == entry.end()) throw bad_tensor(name, std::string("has no ") + key);
      return *found;
    };
    const auto integer = [&](const nlohmann::json& value, const char* key) {
      if (!value.is_number_unsigned() || value.get<std::uint64_t>() > largest)
        throw bad_tensor(name, std::string("has a ") + key +
                                   " entry that is not an integer from 0 to 2^63-1");
      return value.get<std::uint64_t>();
    };
    if (!entry.is_object()) throw bad_tensor(name, "is not described by an object");

    TensorInfo info;
    info.name = name;
    const auto& dtype = member("dtype");
    if (!dtype.is_string()) throw bad_tensor(name, "has a dtype that is not a string");
    info.dtype = dtype.get<std::string>();
    const auto& shape = member("shape");
    if (!shape.is_array()) throw bad_tensor(name, "has a shape that is not an array");
    for (const auto& side : shape) info.shape.push_back(std::int64_t(integer(side, "shape")));
    const auto& offsets = member("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2)
      throw bad_tensor(name, "has data_offsets that are not two integers");
    info.begin = integer(offsets[0], "data_offsets");
    info.end = integer(offsets[1], "data_offsets");

    if (info.begin > info.end)
      throw bad_tensor(name, "ends at data byte " + std::to_string(info.end) +
                                 ", before it begins at " + std::to_string(info.begin));
    if (info.end > file_.size() - data_offset_)
      throw bad_tensor(name, "ends at data byte " + std::to_string(info.end) +
                                 " but the file holds only " +
                                 std::to_string(file_.size() - data_offset_) + " bytes of data");
    // Of a type that came after this program only the reader of such tensors knows the size.
    if (element_bits(info.dtype) == 0) return info;
    const auto bytes = detail::tensor_bytes(info.dtype, info.shape);
    if (!bytes) throw bad_tensor(name, "has a shape whose size overflows or is no whole byte");
    if (*bytes != info.end - info.begin)
      throw bad_tensor(name, "needs " + std::to_string(*bytes) + " bytes for its shape but has " +
                                 std::to_string(info.end - info.begin));
    return info;
  }

  std::map<std::string, std::string> metadata_;
};

/// New bytes for a tensor, or nothing to keep the old ones.
using TensorReplacement = std::function<std::optional<std::vector<std::byte>>(const TensorInfo&)>;

namespace detail {

/// What stands in front of the data of `tensors`, which follows in their order: length and header.
/// Throws argument_error, as write_safetensors.
inline std::string safetensors_start(const std::filesystem::path& path,
                                     const std::vector<TensorInfo>& tensors,
                                     const std::map<std::string, std::string>& metadata) {
  using nlohmann::json;
  std::string header;
  try {
    if (!metadata.empty()) header = "\"__metadata__\":" + json(metadata).dump();
    std::set<std::string_view> names{"__metadata__"};
    std::uint64_t offset = 0;
    for (const TensorInfo& t : tensors) {
      const std::string who = path.string() + ": tensor " + quoted_name(t.name);
      if (!names.insert(t.name).second)
        throw argument_error(who + ": the name is reserved or used twice");
      const auto bytes = element_bits(t.dtype) == 0 ? std::optional(t.end - t.begin)
                                                    : tensor_bytes(t.dtype, t.shape);
      if (!bytes)
        throw argument_error(who + ": a side is negative or too large, or the size of dtype " +
                             quoted_name(t.dtype) + " is no whole number of bytes");
      if (*bytes != t.end - t.begin)
        throw argument_error(who + ": expected " + std::to_string(*bytes) +
                             " bytes for its shape, got " + std::to_string(t.end - t.begin));
      if (!header.empty()) header += ',';
      header += json(t.name).dump() + ":{\"dtype\":" + json(t.dtype).dump() +
                ",\"shape\":" + json(t.shape).dump() + ",\"data_offsets\":[" +
                std::to_string(offset) + ',' + std::to_string(offset + *bytes) + "]}";
      offset += *bytes;
    }
  } catch (const json::exception&) {
    throw argument_error(path.string() + ": a name or a metadata text is not valid UTF-8");
  }
  header = '{' + header + '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > SafetensorsFile::header_limit)
    throw argument_error(path.string() + ": the header would take " +
                         std::to_string(header.size()) + " bytes, more than a reader accepts");
  const std::uint64_t header_bytes = header.size();
  std::string start(sizeof header_bytes, '\0');
  std::memcpy(start.data(), &header_bytes, sizeof header_bytes);
  return start + header;
}

/// Appends the bytes of one tensor of `source`, or those that replace them. Throws argument_error
/// if these are more or fewer.
inline void write_tensor(OutputFile& out, const std::filesystem::path& path,
                         const TensorFile& source, const TensorInfo& info,
                         const TensorReplacement& replace) {
  const std::uint64_t length = info.end - info.begin;
  const auto bytes = replace(info);
  if (bytes && bytes->size() != length)
    throw argument_error(path.string() + ": tensor " + quoted_name(info.name) + ": expected " +
                         std::to_string(length) + " bytes as replacement, got " +
                         std::to_string(bytes->size()));
  out.write(bytes ? std::span<const std::byte>(*bytes) : source.bytes(info));
  if (!bytes) source.release(info);
}

}  // namespace detail

/// Writes the tensors in the order given. The file appears complete or not at all. Throws
/// argument_error for tensors that make no file (shape against bytes, unknown dtype, a name used
/// twice or not UTF-8) and io_error if it cannot be written.
inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<TensorData>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorInfo> infos;
  infos.reserve(tensors.size());
  for (const TensorData& t : tensors) {
    if (element_bits(t.dtype) == 0)
      throw argument_error(path.string() + ": tensor " + detail::quoted_name(t.name) + ": dtype " +
                           detail::quoted_name(t.dtype) + " is unknown");
    infos.push_back({t.name, t.dtype, t.shape, 0, t.bytes.size()});
  }
  const std::string start = detail::safetensors_start(path, infos, metadata);
  detail::OutputFile out(path);
  out.write(std::as_bytes(std::span(start)));
  for (const TensorData& t : tensors) out.write(t.bytes);
  out.commit();
}

/// Writes `tensors`, which are some of `source`, in the order given; the data of each is what
/// `replace` returns for it. Holds one tensor at a time. Throws as write_safetensors and
/// copy_safetensors.
inline void write_safetensors(const std::filesystem::path& path, const TensorFile& source,
                              const std::vector<TensorInfo>& tensors,
                              const TensorReplacement& replace,
                              const std::map<std::string, std::string>& metadata = {}) {
  const std::string start = detail::safetensors_start(path, tensors, metadata);
  detail::OutputFile out(path);
  out.write(std::as_bytes(std::span(start)));
  for (const TensorInfo& info : tensors) detail::write_tensor(out, path, source, info, replace);
  out.commit();
}

/// Gives the bytes of tensor number i; they need to stay until the next call only.
using TensorSource = std::function<std::span<const std::byte>(std::size_t i)>;

/// Writes tensors of the given names, types and shapes in the order given, held one at a time; of
/// their offsets only the length of a tensor of unknown type is read. Throws as the first,
/// argument_error also for bytes that do not fit a shape.
/// @param path      the file to write
/// @param tensors   names, types and shapes
/// @param metadata  texts for the header's __metadata__
/// @param bytes_of  gives the bytes of each tensor
/// @param written   is given all bytes of the file, in order; may be empty
inline void write_safetensors(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                              const std::map<std::string, std::string>& metadata,
                              const TensorSource& bytes_of,
                              const std::function<void(std::span<const std::byte>)>& written = {}) {
  for (TensorInfo& t : tensors) {
    t.end = detail::tensor_bytes(t.dtype, t.shape).value_or(t.end - t.begin);
    t.begin = 0;
  }
  const std::string start = detail::safetensors_start(path, tensors, metadata);
  detail::OutputFile out(path);
  const auto write = [&](std::span<const std::byte> bytes) {
    out.write(bytes);
    if (written) written(bytes);
  };
  write(std::as_bytes(std::span(start)));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::span<const std::byte> bytes = bytes_of(i);
    if (bytes.size() != tensors[i].end)
      throw argument_error(path.string() + ": tensor " + detail::quoted_name(tensors[i].name) +
                           ": expected " + std::to_string(tensors[i].end) +
                           " bytes for its shape, got " + std::to_string(bytes.size()));
    write(bytes);
  }
  out.commit();
}

/// Writes `source` to `path` with the same header, the data of each tensor being what `replace`
/// returns for it. Holds one tensor at a time; `path` may be the source itself. Throws
/// argument_error if a replacement has another length, io_error if reading or writing fails.
inline void copy_safetensors(const SafetensorsFile& source, const std::filesystem::path& path,
                             const TensorReplacement& replace) {
  detail::OutputFile out(path);
  out.write(source.file().bytes(0, source.data_offset()));
  for (const TensorInfo& info : source.tensors())
    detail::write_tensor(out, path, source, info, replace);
  out.commit();
}

}  // namespace pare
