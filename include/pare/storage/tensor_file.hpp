// What files of tensors have in common: element types, the table of tensors, reading one of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"

namespace pare::inline PARE_TARGET {

static_assert(std::endian::native == std::endian::little, "tensors in files are little-endian");

/// Bits of one element of the safetensors type `dtype` ("F16", "I64", "F4", ...); 0 if unknown.
inline int element_bits(std::string_view dtype) {
  struct Kind {
    std::string_view name;
    int bits;
  };
  static constexpr Kind kinds[] = {{"F16", 16},        {"BF16", 16},   {"F32", 32},
                                   {"F64", 64},        {"I64", 64},    {"I32", 32},
                                   {"I16", 16},        {"I8", 8},      {"U8", 8},
                                   {"BOOL", 8},        {"U16", 16},    {"U32", 32},
                                   {"U64", 64},        {"C64", 64},    {"F8_E4M3", 8},
                                   {"F8_E5M2", 8},     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
                                   {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6},
                                   {"F4", 4}};
  for (const Kind& kind : kinds)
    if (kind.name == dtype) return kind.bits;
  return 0;
}

/// Bytes of one element of the safetensors type `dtype`; 0 if it is unknown or not of whole bytes.
inline int element_bytes(std::string_view dtype) {
  const int bits = element_bits(dtype);
  return bits % 8 == 0 ? bits / 8 : 0;
}

/// A type of an element for messages: one that is not known may be any text.
inline std::string dtype_text(const std::string& dtype) {
  return element_bits(dtype) > 0 ? dtype : detail::quoted_name(dtype);
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

/// "(4, 3)": the shape of a tensor.
inline std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "(";
  for (const std::int64_t side : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(side);
  return out + ")";
}

namespace detail {

/// Bytes of a tensor; nothing if the dtype is unknown, a side is negative, the size overflows or is
/// no whole number of bytes.
inline std::optional<std::uint64_t> tensor_bytes(std::string_view dtype,
                                                 const std::vector<std::int64_t>& shape) {
  constexpr auto limit = std::uint64_t(std::numeric_limits<std::int64_t>::max());
  const int element = element_bits(dtype);
  if (element == 0) return std::nullopt;
  // What is not of whole bytes is counted in bits: no such file is that large.
  const bool whole = element % 8 == 0;
  auto size = std::uint64_t(whole ? element / 8 : element);
  for (const std::int64_t side : shape) {
    if (side < 0 || (side > 0 && size > limit / std::uint64_t(side))) return std::nullopt;
    size *= std::uint64_t(side);
  }
  if (!whole && size % 8 != 0) return std::nullopt;
  return whole ? size : size / 8;
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
    case DType::f16:
      return detail::convert_from<std::uint16_t>(bytes, out, half_to_float);
    case DType::bf16:
      return detail::convert_from<std::uint16_t>(bytes, out, bfloat_to_float);
    case DType::f32:
      return detail::convert_from<float>(bytes, out, [](float v) { return v; });
    case DType::f64:
      return detail::convert_from<double>(bytes, out, [](double v) { return float(v); });
  }
}

/// The bytes of `values` stored as `type`, rounded to nearest even.
inline std::vector<std::byte> encode_floats(std::span<const float> values, DType type) {
  std::vector<std::byte> out(values.size() * std::size_t(dtype_bytes(type)));
  switch (type) {
    case DType::f16:
      detail::convert_to<std::uint16_t>(values, out.data(), float_to_half);
      break;
    case DType::bf16:
      detail::convert_to<std::uint16_t>(values, out.data(), float_to_bfloat);
      break;
    case DType::f32:
      detail::convert_to<float>(values, out.data(), [](float v) { return v; });
      break;
    case DType::f64:
      detail::convert_to<double>(values, out.data(), [](float v) { return double(v); });
      break;
  }
  return out;
}

/// What a file says of one tensor. Its elements are in row-major order, little-endian.
struct TensorInfo {
  /// Name in the file.
  std::string name;
  std::string dtype;  ///< F16, BF16, F32, F64, I64, ... or one that this program does not know
  /// Sides, outermost first.
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< first byte, counted from TensorFile::data_offset()
  std::uint64_t end = 0;    ///< one past the last byte
};

/// A file of tensors open for reading, whatever its format: SafetensorsFile and PytorchFile fill
/// the table when they open it. Tensors are read one by one, each call on its own, so threads may
/// share an object.
class TensorFile {
 public:
  /// The path it was opened by.
  const std::filesystem::path& path() const { return file_.path(); }
  /// Every tensor, in the order of the data. Several may lie on the same bytes of a PytorchFile.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Position in the file from which the tensors' bytes are counted.
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

  /// The bytes of one of tensors() where the file is mapped; see InputFile for how long they are
  /// there. Throws io_error if the file was cut since it was opened.
  std::span<const std::byte> bytes(const TensorInfo& info) const {
    return file_.bytes(data_offset_ + info.begin, info.end - info.begin);
  }

  /// Gives back the memory that the bytes of one of tensors() take; they can be read again.
  void release(const TensorInfo& info) const {
    file_.release(data_offset_ + info.begin, info.end - info.begin);
  }

  /// The bytes of a tensor as stored. Throws format_error (no such tensor) or io_error.
  std::vector<std::byte> read_bytes(std::string_view name) const {
    const TensorInfo& info = at(name);
    const auto stored = bytes(info);
    std::vector<std::byte> copy(stored.begin(), stored.end());
    release(info);
    return copy;
  }

  /// A float tensor as (rows, cols); one of rank 1 as (1, n). Throws format_error if there is no
  /// such tensor or if its dtype or rank is another, io_error if it cannot be read.
  Matrix<float> read_float(std::string_view name) const {
    const TensorInfo& info = at(name);
    const auto type = float_dtype(info.dtype);
    if (!type)
      throw bad_tensor(name, "has dtype " + dtype_text(info.dtype) +
                                 "; expected one of F16, BF16, "
                                 "F32, F64");
    const std::size_t rank = info.shape.size();
    if (rank != 1 && rank != 2)
      throw bad_tensor(name, "has rank " + std::to_string(rank) + "; expected 1 or 2");
    const auto stored = bytes(info);
    Matrix<float> values;
    values.resize(rank == 1 ? 1 : index_t(info.shape[0]), index_t(info.shape[rank - 1]));
    decode_floats(stored, *type, values.data());
    release(info);
    return values;
  }

 protected:
  /// Opens the file; who derives fills the table. Throws io_error.
  explicit TensorFile(const std::filesystem::path& path) : file_(path), name_(path.string()) {}

  /// The error that a tensor of this file is not as it must be.
  format_error bad_tensor(std::string_view name, const std::string& what) const {
    return format_error(name_ + ": tensor " + detail::quoted_name(name) + " " + what);
  }

  /// Sorts the table and makes the names known, once all tensors are in it.
  void index_tensors() {
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (!index_.emplace(tensors_[i].name, i).second)
        throw bad_tensor(tensors_[i].name, "occurs twice");
  }

  /// The mapped bytes.
  detail::InputFile file_;
  /// The path, for messages.
  std::string name_;
  /// See data_offset().
  std::uint64_t data_offset_ = 0;
  /// See tensors().
  std::vector<TensorInfo> tensors_;

 private:
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace pare
