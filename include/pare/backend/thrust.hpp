// The Thrust backend on the host systems; thrust_tbb.hpp adds TBB.
#pragma once

#include "pare/core/config.hpp"  // first: it tells Thrust that there is no CUDA compiler

#include <thrust/binary_search.h>
#include <thrust/copy.h>
#include <thrust/for_each.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/omp/execution_policy.h>
#include <thrust/transform_reduce.h>

#include <limits>
#include <string_view>

#include "pare/backend/eigen_kernels.hpp"
#include "pare/backend/host_model.hpp"
#include "pare/backend/host_numeric.hpp"
#include "pare/backend/system.hpp"

namespace pare::inline PARE_TARGET::backend {

/// A host system: the backend's `name` and the execution policy, `policy()`.
template <class System>
struct HostSystem;
/// The sequential system.
template <>
struct HostSystem<system::cpp> {
  /// What reports and messages call the backend.
  static constexpr std::string_view name = "thrust-cpp";
  /// Execution policy of every Thrust algorithm.
  static auto policy() { return ::thrust::cpp::par; }
};
/// The threads of OpenMP.
template <>
struct HostSystem<system::omp> {
  /// What reports and messages call the backend.
  static constexpr std::string_view name = "thrust-omp";
  /// Execution policy of every Thrust algorithm.
  static auto policy() { return ::thrust::omp::par; }
};

/// Tasks by thrust::for_each.
template <class System>
struct ThrustTasks {
  /// Calls f(i) once for every i in [0, n), in any order. f must not throw.
  template <class F>
  static void run(index_t n, const F& f) {
    const ::thrust::counting_iterator<index_t> first(0);
    ::thrust::for_each(HostSystem<System>::policy(), first, first + n,
                       [&f](index_t i) { run_one(f, i); });
  }

 private:
  /// Not inlined: TBB has several places to call a body from, and copies of f in each of them would
  /// round differently where the compiler fuses a multiplication and an addition in one only.
  template <class F>
  PARE_NOINLINE static void run_one(const F& f, index_t i) {
    const detail::SingleThread guard;  // Eigen would start OpenMP threads under cpp and TBB
    f(i);
  }
};

/// Thrust on a host system. Sorts, scans, reductions and element-wise work are Thrust algorithms
/// under the system's execution policy; what a task does to blocks of matrices is Eigen's.
/// Reductions that round run within a task, so results do not depend on the number of threads.
template <class System>
  requires requires { HostSystem<System>::policy(); }
struct Thrust<System> : HostMemory,
                        HostNumericOps<EigenTasks<ThrustTasks<System>>, EigenKernels>,
                        HostModelOps<EigenTasks<ThrustTasks<System>>, EigenKernels> {
  /// What reports and messages call it.
  static constexpr std::string_view name = HostSystem<System>::name;

  /// See pare::Backend; by a reduction.
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    const index_t none = std::numeric_limits<index_t>::max();
    const ::thrust::counting_iterator<index_t> first(0);
    const index_t found = ::thrust::transform_reduce(
        HostSystem<System>::policy(), first, first + A.rows,
        [A, none](index_t r) {
          const index_t c = host_detail::first_non_finite(A.row(r), A.cols);
          return c < 0 ? none : r * A.cols + c;
        },
        none, ::thrust::minimum<index_t>());
    return found == none ? -1 : found;
  }

  /// Sorts the scores for the k-th smallest and counts ties before each row by a scan.
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    const auto policy = HostSystem<System>::policy();
    // Of this call: while TBB waits, the thread may begin another call.
    Matrix<T> scores, sorted;  // (out, block)
    Matrix<index_t> ties;      // (1, out)
    scores.resize(W.rows, W.cols);
    sorted.resize(W.rows, W.cols);
    ties.resize(1, W.rows);
    Thrust::for_each_element(W.rows, W.cols, [&](index_t r, index_t c) {
      mask(r, c) = 0;
      scores(r, c) = std::abs(W(r, c)) / d(0, c);
    });
    if (k == 0) return;

    ::thrust::copy(policy, scores.data(), scores.data() + scores.size(), sorted.data());
    T* const end = sorted.data() + sorted.size();
    ::thrust::sort(policy, sorted.data(), end);
    const T threshold = sorted.data()[k - 1];
    const index_t below =
        ::thrust::lower_bound(policy, sorted.data(), end, threshold) - sorted.data();
    Thrust::for_each_row(W.rows, [&](index_t r) {
      index_t equal = 0;
      for (index_t c = 0; c < W.cols; ++c) equal += scores(r, c) == threshold;
      ties(0, r) = equal;
    });
    ::thrust::exclusive_scan(policy, ties.data(), ties.data() + ties.size(), ties.data());
    Thrust::for_each_row(W.rows, [&](index_t r) {
      index_t left = k - below - ties(0, r);  // ties still to be taken
      for (index_t c = 0; c < W.cols; ++c)
        if (scores(r, c) < threshold || (scores(r, c) == threshold && left-- > 0)) mask(r, c) = 1;
    });
  }
};

}  // namespace pare::backend
