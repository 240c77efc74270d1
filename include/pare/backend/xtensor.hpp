// The xtensor backend: host memory, all cores, xtensor-blas on OpenBLAS.
#pragma once

#include <mutex>

#include "pare/backend/host_model.hpp"
#include "pare/backend/host_numeric.hpp"
#include "pare/backend/host_select.hpp"
#include "pare/backend/xtensor_kernels.hpp"

extern "C" {
int openblas_get_num_threads(void);
void openblas_set_num_threads(int);
int openblas_get_parallel(void);
}

namespace pare::inline PARE_TARGET::backend {

namespace host_detail {

/// While one lives, OpenBLAS starts no threads of its own: they would compete with ours, and the
/// digits of a product would depend on their number. The setting is the process's, so the last one
/// restores it. OpenBLAS built with OpenMP sees our parallel regions by itself.
class SingleThreadBlas {
 public:
  SingleThreadBlas() {
    const std::lock_guard lock(mutex_);
    if (alive_++ > 0 || !has_own_threads()) return;
    before_ = openblas_get_num_threads();
    openblas_set_num_threads(1);
  }
  ~SingleThreadBlas() {
    const std::lock_guard lock(mutex_);
    if (--alive_ == 0 && has_own_threads()) openblas_set_num_threads(before_);
  }
  SingleThreadBlas(const SingleThreadBlas&) = delete;
  SingleThreadBlas& operator=(const SingleThreadBlas&) = delete;

 private:
  static bool has_own_threads() { return openblas_get_parallel() == 1; }

  static inline std::mutex mutex_;
  static inline int alive_ = 0, before_ = 1;
};

}  // namespace host_detail

/// Tasks on the threads of OpenMP that call OpenBLAS.
struct BlasTasks {
  /// Calls f(i) once for every i in [0, n), several at a time. f must not throw.
  template <class F>
  static void run(index_t n, const F& f) {
    const host_detail::SingleThreadBlas guard;
    OpenMPTasks::run(n, f);
  }
};

/// Uses every core that OpenMP gives it; results do not depend on how many that are.
struct Xtensor : HostMemory,
                 HostNumericOps<BlasTasks, XtensorKernels>,
                 HostModelOps<BlasTasks, XtensorKernels> {
  /// What reports and messages call it.
  static constexpr std::string_view name = "xtensor";

  /// See pare::Backend; by radix.
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    host_detail::radix_select(W, d, k, mask);
  }
};

}  // namespace pare::backend
