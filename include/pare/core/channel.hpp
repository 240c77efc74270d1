// What a channel of a linear is.
#pragma once

#include <cstdint>
#include <string_view>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// A channel is an output channel (row of W) or an input channel (column of W).
enum class ChannelAxis : std::uint8_t { output, input };

/// "output" or "input".
constexpr std::string_view to_string(ChannelAxis axis) {
  return axis == ChannelAxis::output ? "output" : "input";
}

}  // namespace pare
