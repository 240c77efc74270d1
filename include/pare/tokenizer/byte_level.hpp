// Bytes as characters, which byte-level tokenizers spell their vocabularies with.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "pare/tokenizer/text_pattern.hpp"
#include "pare/tokenizer/utf8.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Whether a byte stands for itself as a character.
inline bool byte_prints(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

/// The character (in UTF-8) that stands for each byte: itself if it prints, otherwise one from
/// U+0100 on.
inline std::array<std::string, 256> byte_symbols() {
  std::array<std::string, 256> symbols;
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const unsigned code = byte_prints(b) ? b : next++;
    if (code >= 0x80) {
      symbols[b] += static_cast<char>(0xc0 | (code >> 6));
      symbols[b] += static_cast<char>(0x80 | (code & 0x3f));
    } else {
      symbols[b] += static_cast<char>(code);
    }
  }
  return symbols;
}

/// Spells bytes as characters and back. Immutable.
class ByteSpelling {
 public:
  ByteSpelling() {
    bytes_.fill(-1);
    for (std::size_t b = 0; b < 256; ++b) bytes_[code(symbols_[b])] = int(b);
  }

  /// Whether every byte of a text stands for itself.
  static bool plain(std::string_view text) {
    for (const char c : text)
      if (c < 0x21 || c > 0x7e) return false;
    return true;
  }

  /// Appends the characters for the bytes of a text: at most twice as many bytes.
  void spell(std::string_view text, std::string& spelled) const {
    for (const char c : text) spelled += symbols_[static_cast<unsigned char>(c)];
  }

  /// The bytes that a text of such characters stands for; nothing where one of it stands for none.
  std::optional<std::string> bytes(std::string_view spelled) const {
    std::string text;
    for (std::size_t i = 0, length = 0; i < spelled.size(); i += length) {
      length = utf8_length(spelled[i]);
      const std::string_view character = spelled.substr(i, length);
      if (character.size() > 2) return std::nullopt;
      const std::size_t code = this->code(character);
      if (code >= bytes_.size() || bytes_[code] < 0) return std::nullopt;
      text += static_cast<char>(bytes_[code]);
    }
    return text;
  }

 private:
  /// The number of a character of one or two bytes.
  static std::size_t code(std::string_view character) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
    return character.size() < 2 ? byte(0) : std::size_t(byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
  }

  std::array<std::string, 256> symbols_ = byte_symbols();
  std::array<int, 0x180> bytes_;
};

/// The pattern of GPT-2 that cuts a text into the pieces that merges never cross.
inline TextPattern byte_level_pattern() {
  return {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", true};
}

}  // namespace detail

}  // namespace pare
