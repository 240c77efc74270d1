// GGUF version 3, the file of llama.cpp: fields, tensors, and blocks of 32 weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/storage/export/linear.hpp"
#include "pare/storage/output_file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

/// How a tensor's weights are stored.
struct Kind {
  std::uint32_t id;  // of ggml_type
  const char* name;
  index_t weights;  // of a block
  index_t bytes;    // of a block
  bool operator==(const Kind& other) const { return id == other.id; }
};

inline constexpr Kind f32{0, "F32", 1, 4}, f16{1, "F16", 1, 2}, bf16{30, "BF16", 1, 2};
// scale (code - 8), and scale code + minimum
inline constexpr Kind q4_0{2, "Q4_0", 32, 18}, q4_1{3, "Q4_1", 32, 20};
// scale (code - 16), and scale code + minimum
inline constexpr Kind q5_0{6, "Q5_0", 32, 22}, q5_1{7, "Q5_1", 32, 24};
// scale code, with a sign
inline constexpr Kind q8_0{8, "Q8_0", 32, 34};

/// What holds the values of a dense weight exactly.
inline Kind kind_of(DType dtype) {
  return dtype == DType::f16 ? f16 : dtype == DType::bf16 ? bf16 : f32;
}

/// The smallest kind of blocks in which every value of a linear is exact; none where no kind is.
inline std::optional<Kind> block_kind(const ExportLinear& linear) {
  const bool whole_blocks = linear.columns % q4_0.weights == 0 &&
                            (linear.groups() == 1 || linear.group_size % q4_0.weights == 0);
  if (linear.widths_by_input || !whole_blocks) return std::nullopt;
  const auto within = [&](int low, int high) {
    return linear.lowest >= low && linear.highest <= high;
  };
  if (within(-8, 7)) return q4_0;
  if (linear.width() <= 4 && linear.exact_minima) return q4_1;
  if (within(-16, 15)) return q5_0;
  if (linear.width() <= 5 && linear.exact_minima) return q5_1;
  if (within(-128, 127)) return q8_0;
  return std::nullopt;
}

inline void put_half(std::uint16_t half, std::byte*& out) {
  std::memcpy(out, &half, sizeof half);
  out += sizeof half;
}

/// Writes a block of 32 weights of a row, all on one grid.
/// @param first  input that it begins with
/// @param out    (kind.bytes)
inline void write_block(const Kind& kind, const ExportCodes& codes, index_t row, index_t first,
                        std::byte* out) {
  const index_t g = codes.of_column[std::size_t(first)];
  const std::uint16_t scale = codes.scale(g, row);
  const int zero = codes.zero(g, row);
  put_half(scale, out);
  const bool minimum = kind == q4_1 || kind == q5_1;
  if (minimum) put_half(float_to_half(-half_to_float(scale) * float(zero)), out);
  const int center = kind == q4_0 ? 8 : kind == q5_0 ? 16 : 0;
  const auto value = [&](index_t k) {
    const int code = codes.code(row, first + k);
    return unsigned(minimum ? code : code - zero + center);
  };
  if (kind == q8_0) {
    for (index_t k = 0; k < kind.weights; ++k) out[k] = std::byte(value(k) & 0xffu);
    return;
  }
  if (kind == q5_0 || kind == q5_1) {
    std::uint32_t high = 0;
    for (index_t k = 0; k < kind.weights; ++k) high |= (value(k) >> 4 & 1u) << k;
    std::memcpy(out, &high, sizeof high);
    out += sizeof high;
  }
  const index_t half = kind.weights / 2;
  for (index_t k = 0; k < half; ++k)
    out[k] = std::byte((value(k) & 0xfu) | (value(k + half) & 0xfu) << 4);
}

/// The blocks of a linear.
/// @param order  the row of the linear that each stored row is, (out)
inline std::vector<std::byte> blocks_of(const Kind& kind, const ExportCodes& codes,
                                        const std::vector<index_t>& order) {
  const index_t blocks = codes.columns / kind.weights;
  std::vector<std::byte> bytes(std::size_t(codes.rows * blocks * kind.bytes));
  host_parallel_for(codes.rows, [&](index_t i) {
    for (index_t b = 0; b < blocks; ++b)
      write_block(kind, codes, order[std::size_t(i)], b * kind.weights,
                  bytes.data() + (i * blocks + b) * kind.bytes);
  });
  return bytes;
}

/// Bytes in the order of the file.
class Bytes {
 public:
  template <class T>
  void number(T value) {
    const auto at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void text(std::string_view text) {
    number(std::uint64_t(text.size()));
    const auto bytes = std::as_bytes(std::span(text));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void append(const Bytes& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  }
  void pad(std::size_t multiple) {
    bytes_.resize((bytes_.size() + multiple - 1) / multiple * multiple);
  }
  std::span<const std::byte> all() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// What a file says beside its tensors.
class Fields {
 public:
  void set(std::string_view key, std::string_view value) {
    begin(key, type_of<std::string>());
    bytes_.text(value);
  }
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, const std::string& value) { set(key, std::string_view(value)); }
  template <class T>
  void set(std::string_view key, T value) {
    begin(key, type_of<T>());
    bytes_.number(value);
  }
  template <class T>
  void set(std::string_view key, const std::vector<T>& values) {
    begin(key, 9);
    bytes_.number(type_of<T>());
    bytes_.number(std::uint64_t(values.size()));
    for (const T& value : values) {
      if constexpr (std::is_same_v<T, std::string>)
        bytes_.text(value);
      else
        bytes_.number(value);
    }
  }
  std::uint64_t count() const { return count_; }
  const Bytes& bytes() const { return bytes_; }

 private:
  template <class T>
  static constexpr std::uint32_t type_of() {
    if constexpr (std::is_same_v<T, std::uint8_t>) return 7;  // a truth value
    if constexpr (std::is_same_v<T, bool>) return 7;
    if constexpr (std::is_same_v<T, std::uint32_t>) return 4;
    if constexpr (std::is_same_v<T, std::int32_t>) return 5;
    if constexpr (std::is_same_v<T, float>) return 6;
    if constexpr (std::is_same_v<T, std::string>) return 8;
  }
  void begin(std::string_view key, std::uint32_t type) {
    bytes_.text(key);
    bytes_.number(type);
    ++count_;
  }
  Bytes bytes_;
  std::uint64_t count_ = 0;
};

/// A tensor of a file.
struct Tensor {
  std::string name;
  std::vector<index_t> shape;  // outermost first, as a checkpoint has it
  Kind kind;
  std::function<std::vector<std::byte>()> bytes;

  std::uint64_t size() const {
    index_t weights = 1;
    for (const index_t side : shape) weights *= side;
    return std::uint64_t(weights / kind.weights * kind.bytes);
  }
};

/// Tensors begin at multiples of it.
inline constexpr std::size_t alignment = 32;

/// Writes a file. Holds one tensor at a time.
inline void write_file(const std::filesystem::path& path, const Fields& fields,
                       const std::vector<Tensor>& tensors) {
  Bytes head;
  for (const char c : {'G', 'G', 'U', 'F'}) head.number(c);
  head.number(std::uint32_t{3});
  head.number(std::uint64_t(tensors.size()));
  head.number(fields.count());
  head.append(fields.bytes());
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    head.text(tensor.name);
    head.number(std::uint32_t(tensor.shape.size()));
    for (auto side = tensor.shape.rbegin(); side != tensor.shape.rend(); ++side)
      head.number(std::uint64_t(*side));
    head.number(tensor.kind.id);
    head.number(offset);
    offset += (tensor.size() + alignment - 1) / alignment * alignment;
  }
  head.pad(alignment);
  OutputFile out(path);
  out.write(head.all());
  for (const Tensor& tensor : tensors) {
    std::vector<std::byte> bytes = tensor.bytes();
    if (bytes.size() != tensor.size())
      throw format_error(path.string() + ": " + tensor.name + ": expected " +
                         std::to_string(tensor.size()) + " bytes, got " +
                         std::to_string(bytes.size()));
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    out.write(bytes);
  }
  out.commit();
}

}  // namespace detail::gguf
}  // namespace pare
