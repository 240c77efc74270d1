// What stands around every text, and what a model has in front of one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// Ids around every text.
struct TextFrame {
  /// Whether the tokenizer says what stands around a text, be it nothing.
  bool given = false;
  /// Ids in front of a text.
  std::vector<std::int32_t> before;
  /// Ids after it.
  std::vector<std::int32_t> after;
  /// Memberwise.
  bool operator==(const TextFrame&) const = default;
};

}  // namespace pare
