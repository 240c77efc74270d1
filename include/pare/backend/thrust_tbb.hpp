// The Thrust backend on TBB.
#pragma once

#include "pare/backend/thrust.hpp"

#include <thrust/system/tbb/execution_policy.h>

namespace pare::backend {

template <>
struct HostSystem<system::tbb> {
  static constexpr std::string_view name = "thrust-tbb";
  static auto policy() { return ::thrust::tbb::par; }
};

}  // namespace pare::backend
