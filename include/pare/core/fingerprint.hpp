// FNV-1a, the fingerprint of weights, texts and files. It finds damage and mistakes, not malice.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

/// FNV-1a with 64 bits over bytes given in pieces. Source: Fowler, Noll and Vo, 1991.
class Fingerprint {
 public:
  /// The next bytes.
  void add(std::span<const std::byte> bytes) {
    std::uint64_t hash = hash_;
    for (const std::byte b : bytes) hash = (hash ^ std::uint64_t(b)) * 0x100000001b3u;
    hash_ = hash;
  }
  /// The bytes of `count` numbers.
  template <class T>
  void add(const T* values, std::size_t count) {
    add(std::as_bytes(std::span(values, count)));
  }
  /// Of all bytes so far.
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// The fingerprint of some bytes.
inline std::uint64_t fingerprint(std::span<const std::byte> bytes) {
  Fingerprint whole;
  whole.add(bytes);
  return whole.value();
}

/// The fingerprint of a text.
inline std::uint64_t fingerprint(std::string_view text) {
  return fingerprint(std::as_bytes(std::span(text.data(), text.size())));
}

/// 16 hexadecimal digits.
inline std::string hex_text(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

/// What hex_text() gave `digits` for. Throws format_error that begins with `who`.
inline std::uint64_t hash_of_hex(const std::string& digits, const std::string& who) {
  std::uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  std::from_chars(digits.data(), end, value, 16);
  if (digits != hex_text(value)) throw format_error(who + ": expected 16 hexadecimal digits");
  return value;
}

}  // namespace pare
