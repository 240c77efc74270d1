// What differs between compilers.
#pragma once

// One message, and then an end: a missing file ends a compilation, an #error does not.
#if __cplusplus < 202002L
#error \
    "pare: compiled as C++17 or older: concepts and designated initialisers need C++20; write -std=c++20"
#include <compilation ends here>
#elif !defined(__cpp_exceptions) && !defined(__EXCEPTIONS)
#error "pare: compiled with -fno-exceptions: errors are thrown; leave the flag out"
#include <compilation ends here>
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0
#error \
    "pare: compiled with -ffast-math or -ffinite-math-only: NaN could not be told from a number; add -fno-finite-math-only"
#include <compilation ends here>
#endif

#include "pare/core/target.hpp"

#if defined(__CUDACC__)
#define PARE_HOST_DEVICE __host__ __device__
#else
#define PARE_HOST_DEVICE
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PARE_RESTRICT __restrict__
#define PARE_INLINE inline __attribute__((always_inline))
#define PARE_NOINLINE __attribute__((noinline))
#else
#define PARE_RESTRICT
#define PARE_INLINE inline
#define PARE_NOINLINE
#endif

// Thrust takes CUDA for granted; without its compiler that needs headers no one may have.
#if !defined(__CUDACC__) && !defined(THRUST_DEVICE_SYSTEM)
#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_CPP
#endif

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <string_view>

namespace pare::inline PARE_TARGET::detail {

/// The name of a class as its author wrote it, without namespaces.
template <class T>
std::string_view class_name() {
#if defined(__GNUC__) || defined(__clang__)
  // "... [with T = {anonymous}::Own; ...]" or "... [T = (anonymous namespace)::Own]"
  std::string_view name = __PRETTY_FUNCTION__;
  name.remove_prefix(name.find("T = ") + 4);
  name = name.substr(0, name.find_first_of(";]"));
  const auto colons = name.substr(0, name.find('<')).rfind("::");
  return colons == name.npos ? name : name.substr(colons + 2);
#else
  return "own class";
#endif
}

/// Number of threads a host backend may ask for; it may get fewer. 1 when the program is built
/// without OpenMP.
inline int max_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// While it lives, OpenMP regions that this thread opens have one thread.
class SingleThread {
 public:
#if defined(_OPENMP)
  SingleThread() { omp_set_num_threads(1); }
  ~SingleThread() { omp_set_num_threads(before_); }
#else
  SingleThread() {}
#endif
  SingleThread(const SingleThread&) = delete;
  SingleThread& operator=(const SingleThread&) = delete;

 private:
#if defined(_OPENMP)
  int before_ = omp_get_max_threads();
#endif
};

/// Calls f(i) once for every i in [0, n), on as many threads as OpenMP gives. An exception thrown
/// by f must not leave it. Libraries that would split the work of f over threads themselves (Eigen,
/// OpenBLAS) are told that there is one: they cannot tell a region that was given one thread, by
/// OMP_THREAD_LIMIT or inside a region of the caller, from no region.
template <class Index, class F>
void host_parallel_for(Index n, const F& f) {
#if defined(_OPENMP)
#pragma omp parallel
  {
    const SingleThread guard;
#pragma omp for schedule(dynamic, 1)
    for (Index i = 0; i < n; ++i) f(i);
  }
#else
  for (Index i = 0; i < n; ++i) f(i);
#endif
}

}  // namespace pare::detail
