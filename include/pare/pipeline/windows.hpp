// Calibration text as token windows.
#pragma once

#include <cstdint>
#include <vector>

#include "pare/core/config.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// Calibration text as token windows.
struct CalibrationWindows {
  std::vector<std::int32_t> ids;  ///< (windows * seqlen), window by window
  /// Tokens of a window.
  index_t seqlen = 0;

  /// Number of windows.
  index_t count() const { return seqlen > 0 ? index_t(ids.size()) / seqlen : 0; }
};

}  // namespace pare
