// GGUF version 3, the file of llama.cpp: fields and tensors.
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
#include "pare/storage/export/gguf_blocks.hpp"
#include "pare/storage/output_file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

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
