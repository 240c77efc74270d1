// Safetensors files: a reader that trusts nothing, an atomic writer, and a rewriter that replaces
// the bytes of chosen tensors. POSIX files, little-endian hosts.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
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
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/storage/file.hpp"

namespace pare {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// Bytes of one element of the safetensors type `dtype` ("F16", "I64", ...); 0 if unknown.
inline int element_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

/// The float type called `dtype` in safetensors; nothing for integer and unknown types.
inline std::optional<DType> float_dtype(std::string_view dtype) {
  if (dtype == "F16") return DType::f16;
  if (dtype == "BF16") return DType::bf16;
  if (dtype == "F32") return DType::f32;
  if (dtype == "F64") return DType::f64;
  return std::nullopt;
}

/// The safetensors name of a float type.
inline std::string dtype_name(DType type) {
  constexpr const char* names[] = {"F16", "BF16", "F32", "F64"};
  return names[static_cast<int>(type)];
}

namespace detail {

/// Bytes of a tensor; nothing if the dtype is unknown, a side is negative or the size overflows.
inline std::optional<std::uint64_t> tensor_bytes(std::string_view dtype,
                                                 const std::vector<std::int64_t>& shape) {
  constexpr auto limit = std::uint64_t(std::numeric_limits<std::int64_t>::max());
  auto bytes = std::uint64_t(element_bytes(dtype));
  if (bytes == 0) return std::nullopt;
  for (const std::int64_t side : shape) {
    if (side < 0 || (side > 0 && bytes > limit / std::uint64_t(side))) return std::nullopt;
    bytes *= std::uint64_t(side);
  }
  return bytes;
}

template <class Stored, class F>
void convert_from(std::span<const std::byte> bytes, float* out, F convert) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(Stored); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = convert(stored);
  }
}

template <class Stored, class F>
void convert_to(std::span<const float> values, std::byte* out, F convert) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Stored stored = convert(values[i]);
    std::memcpy(out + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

}  // namespace detail

/// Converts stored numbers of type `type` to float. `out` has room for one float per element.
inline void decode_floats(std::span<const std::byte> bytes, DType type, float* out) {
  switch (type) {
    case DType::f16: return detail::convert_from<std::uint16_t>(bytes, out, half_to_float);
    case DType::bf16: return detail::convert_from<std::uint16_t>(bytes, out, bfloat_to_float);
    case DType::f32: return detail::convert_from<float>(bytes, out, [](float v) { return v; });
    case DType::f64:
      return detail::convert_from<double>(bytes, out, [](double v) { return float(v); });
  }
}

/// The bytes of `values` stored as `type`, rounded to nearest even.
inline std::vector<std::byte> encode_floats(std::span<const float> values, DType type) {
  std::vector<std::byte> out(values.size() * std::size_t(dtype_bytes(type)));
  switch (type) {
    case DType::f16: detail::convert_to<std::uint16_t>(values, out.data(), float_to_half); break;
    case DType::bf16: detail::convert_to<std::uint16_t>(values, out.data(), float_to_bfloat); break;
    case DType::f32:
      detail::convert_to<float>(values, out.data(), [](float v) { return v; });
      break;
    case DType::f64:
      detail::convert_to<double>(values, out.data(), [](float v) { return double(v); });
      break;
  }
  return out;
}

/// What the header of a safetensors file says of one tensor.
struct TensorInfo {
  std::string name;
  std::string dtype;  ///< one of F16 BF16 F32 F64 I64 I32 I16 I8 U8 BOOL
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< first byte, counted from the start of the data section
  std::uint64_t end = 0;    ///< one past the last byte
};

/// One tensor to be written; `bytes` are its elements in row-major order, little-endian.
struct TensorData {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};

/// A safetensors file open for reading. The header is read and checked as a whole on opening;
/// tensors are read one by one, each call on its own, so threads may share an object.
class SafetensorsFile {
 public:
  /// Largest header accepted, in bytes (the limit of the reference implementation).
  static constexpr std::uint64_t header_limit = 100'000'000;

  /// Opens `path`. Throws io_error if it cannot be read, format_error if its content breaks a rule
  /// of the format; the message begins with the path and names the tensor.
  explicit SafetensorsFile(const std::filesystem::path& path)
      : file_(path), name_(path.string()) {
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

  const std::filesystem::path& path() const { return file_.path(); }
  /// Every tensor, in the order of the data.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// The header's `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Position of the data section in the file, in bytes.
  std::uint64_t data_offset() const { return data_offset_; }
  /// The bytes of the file, for copying.
  const detail::InputFile& file() const { return file_; }

  /// The tensor called `name`, or null.
  const TensorInfo* find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  /// The tensor called `name`. Throws format_error if there is none.
  const TensorInfo& at(std::string_view name) const {
    if (const TensorInfo* info = find(name)) return *info;
    throw format_error(name_ + ": there is no tensor " + detail::quoted_name(name));
  }

  /// The bytes of a tensor as stored. Throws format_error (no such tensor) or io_error.
  std::vector<std::byte> read_bytes(std::string_view name) const {
    const TensorInfo& info = at(name);
    std::vector<std::byte> bytes(info.end - info.begin);
    file_.read(data_offset_ + info.begin, bytes);
    return bytes;
  }

  /// A float tensor as (rows, cols); one of rank 1 as (1, n). Throws format_error if there is no
  /// such tensor or if its dtype or rank is another, io_error if it cannot be read.
  Matrix<float> read_float(std::string_view name) const {
    const TensorInfo& info = at(name);
    const auto type = float_dtype(info.dtype);
    if (!type) throw bad_tensor(name, "has dtype " + info.dtype + "; expected one of F16, BF16, "
                                      "F32, F64");
    const std::size_t rank = info.shape.size();
    if (rank != 1 && rank != 2)
      throw bad_tensor(name, "has rank " + std::to_string(rank) + "; expected 1 or 2");
    Matrix<float> values;
    values.resize(rank == 1 ? 1 : index_t(info.shape[0]), index_t(info.shape[rank - 1]));
    float* out = values.data();
    file_.read_pieces(data_offset_ + info.begin, info.end - info.begin,
                      [&](std::span<const std::byte> piece) {
                        decode_floats(piece, *type, out);
                        out += piece.size() / std::size_t(dtype_bytes(*type));
                      });
    return values;
  }

 private:
  format_error bad_tensor(std::string_view name, const std::string& what) const {
    return format_error(name_ + ": tensor " + detail::quoted_name(name) + " " + what);
  }

  void read_header(const nlohmann::json& header) {
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__")
        read_metadata(entry);
      else
        tensors_.push_back(read_entry(name, entry));
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::uint64_t covered = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const TensorInfo& t = tensors_[i];
      if (t.begin != covered)
        throw bad_tensor(t.name, std::string(t.begin < covered ? "overlaps the one before it"
                                                               : "comes after a hole") +
                                     ": begins at data byte " + std::to_string(t.begin) +
                                     ", expected " + std::to_string(covered));
      covered = t.end;
      index_.emplace(t.name, i);
    }
    if (covered != file_.size() - data_offset_)
      throw format_error(name_ + ": " + std::to_string(file_.size() - data_offset_ - covered) +
                         " extra bytes after the last tensor");
  }

  void read_metadata(const nlohmann::json& entry) {
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
    if (element_bytes(info.dtype) == 0)
      throw bad_tensor(name, "has dtype " + detail::quoted_name(info.dtype) + "; expected one of "
                             "F16, BF16, F32, F64, I64, I32, I16, I8, U8, BOOL");
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
    const auto bytes = detail::tensor_bytes(info.dtype, info.shape);
    if (!bytes) throw bad_tensor(name, "has a shape whose size overflows");
    if (*bytes != info.end - info.begin)
      throw bad_tensor(name, "needs " + std::to_string(*bytes) + " bytes for its shape but has " +
                                 std::to_string(info.end - info.begin));
    return info;
  }

  detail::InputFile file_;
  std::string name_;
  std::uint64_t data_offset_ = 0;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

/// Gives the bytes of tensor number i; they need to stay until the next call only.
using TensorSource = std::function<std::span<const std::byte>(std::size_t i)>;

/// Writes the tensors in the order given, held one at a time; their offsets are not read. The file
/// appears complete or not at all. Throws argument_error for tensors that make no file (shape
/// against bytes, unknown dtype, a name used twice or not UTF-8) and io_error if it cannot be
/// written.
inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<TensorInfo>& tensors,
                              const std::map<std::string, std::string>& metadata,
                              const TensorSource& bytes_of) {
  using nlohmann::json;
  std::string header;
  std::vector<std::uint64_t> lengths;
  const auto who = [&](const TensorInfo& t) {
    return path.string() + ": tensor " + detail::quoted_name(t.name);
  };
  try {
    if (!metadata.empty()) header = "\"__metadata__\":" + json(metadata).dump();
    std::set<std::string_view> names{"__metadata__"};
    std::uint64_t offset = 0;
    for (const TensorInfo& t : tensors) {
      if (!names.insert(t.name).second)
        throw argument_error(who(t) + ": the name is reserved or used twice");
      const auto bytes = detail::tensor_bytes(t.dtype, t.shape);
      if (!bytes)
        throw argument_error(who(t) + ": dtype " + detail::quoted_name(t.dtype) +
                             " is unknown or a side is negative or too large");
      if (!header.empty()) header += ',';
      header += json(t.name).dump() + ":{\"dtype\":\"" + t.dtype + "\",\"shape\":" +
                json(t.shape).dump() + ",\"data_offsets\":[" + std::to_string(offset) + ',' +
                std::to_string(offset + *bytes) + "]}";
      offset += *bytes;
      lengths.push_back(*bytes);
    }
  } catch (const json::exception&) {
    throw argument_error(path.string() + ": a name or a metadata text is not valid UTF-8");
  }
  header = '{' + header + '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > SafetensorsFile::header_limit)
    throw argument_error(path.string() + ": the header would take " +
                         std::to_string(header.size()) + " bytes, more than a reader accepts");

  detail::AtomicFile out(path);
  const std::uint64_t header_bytes = header.size();
  out.write(std::as_bytes(std::span(&header_bytes, 1)));
  out.write(std::as_bytes(std::span(header)));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::span<const std::byte> bytes = bytes_of(i);
    if (bytes.size() != lengths[i])
      throw argument_error(who(tensors[i]) + ": expected " + std::to_string(lengths[i]) +
                           " bytes for its shape, got " + std::to_string(bytes.size()));
    out.write(bytes);
  }
  out.commit();
}

/// The same for tensors in memory.
inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<TensorData>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorInfo> infos;
  for (const TensorData& t : tensors) infos.push_back({t.name, t.dtype, t.shape});
  write_safetensors(path, infos, metadata, [&](std::size_t i) {
    return std::span<const std::byte>(tensors[i].bytes);
  });
}

/// New bytes for a tensor, or nothing to keep the old ones.
using TensorReplacement = std::function<std::optional<std::vector<std::byte>>(const TensorInfo&)>;

/// Writes `source` to `path` with the same header, the data of each tensor being what `replace`
/// returns for it. Holds one tensor at a time; `path` may be the source itself. Throws
/// argument_error if a replacement has another length, io_error if reading or writing fails.
inline void copy_safetensors(const SafetensorsFile& source, const std::filesystem::path& path,
                             const TensorReplacement& replace) {
  detail::AtomicFile out(path);
  const auto copy = [&](std::uint64_t position, std::uint64_t length) {
    source.file().read_pieces(position, length,
                              [&](std::span<const std::byte> piece) { out.write(piece); });
  };
  copy(0, source.data_offset());
  for (const TensorInfo& info : source.tensors()) {
    const std::uint64_t length = info.end - info.begin;
    if (const auto bytes = replace(info)) {
      if (bytes->size() != length)
        throw argument_error(path.string() + ": tensor " + detail::quoted_name(info.name) +
                             ": expected " + std::to_string(length) +
                             " bytes as replacement, got " + std::to_string(bytes->size()));
      out.write(*bytes);
    } else {
      copy(source.data_offset() + info.begin, length);
    }
  }
  out.commit();
}

}  // namespace pare
