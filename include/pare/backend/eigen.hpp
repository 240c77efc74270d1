// The Eigen backend: host memory, all cores, Eigen's products.
#pragma once

#include "pare/backend/eigen_kernels.hpp"
#include "pare/backend/host_model.hpp"
#include "pare/backend/host_numeric.hpp"
#include "pare/backend/host_select.hpp"

namespace pare::inline PARE_TARGET::backend {

/// Uses every core that OpenMP gives it; results do not depend on how many that are.
struct Eigen : HostMemory,
               HostNumericOps<EigenTasks<OpenMPTasks>, EigenKernels>,
               HostModelOps<EigenTasks<OpenMPTasks>, EigenKernels> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "eigen";

  /// See pare::Backend; by radix.
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    host_detail::radix_select(W, d, k, mask);
  }
};

}  // namespace pare::backend
