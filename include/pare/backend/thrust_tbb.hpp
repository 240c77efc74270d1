// The Thrust backend on TBB.
#pragma once

#include "pare/backend/thrust.hpp"

#include <thrust/system/tbb/execution_policy.h>

namespace pare::inline PARE_TARGET::backend {

/// The threads of TBB.
template <>
struct HostSystem<system::tbb> {
  /// What reports and messages call the backend.
  static constexpr std::string_view name = "thrust-tbb";
  /// Execution policy of every Thrust algorithm.
  static auto policy() { return ::thrust::tbb::par; }
};

}  // namespace pare::backend
