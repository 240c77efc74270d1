// Instructions of Hopper's tensor cores and of its bulk copies. They are declared only in code compiled for
// sm_90a; kernels that use them are empty elsewhere and are never launched there.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "pare/core/matrix.hpp"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PARE_SM90A
#endif

namespace pare::inline PARE_TARGET::backend::cuda::wgmma {

// Places in shared memory are bytes from its start in 32 bits, as instructions take them.

#if defined(PARE_SM90A)

/// Makes a barrier whose phases end after `arrivals`, and after the bytes that were announced.
__device__ inline void make_barrier(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Shows new barriers to the copy engine.
__device__ inline void show_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives and announces bytes.
__device__ inline void expect(unsigned barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Waits for the end of a phase, 0 and 1 in turn.
__device__ inline void wait(unsigned barrier, unsigned phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ended;\n"
      "bra again;\n"
      "ended:\n"
      "}" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

/// Copies bytes, a multiple of 16, that the barrier counts.
__device__ inline void copy(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
      : "memory");
}
/// Copies bytes, a multiple of 16, from shared memory.
__device__ inline void copy_back(float* to, unsigned from, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(
                   __cvta_generic_to_global(to)),
               "r"(from), "r"(bytes)
               : "memory");
}
/// Adds numbers in shared memory to those in `to`.
__device__ inline void add_back(float* to, unsigned from, unsigned bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                   __cvta_generic_to_global(to)),
               "r"(from), "r"(bytes)
               : "memory");
}
__device__ inline void end_of_writes() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until what this thread copies or adds back has been read.
__device__ inline void wait_for_reads() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/// Waits until what this thread copies or adds back has been written.
__device__ inline void wait_for_writes() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
__device__ inline void store_pair(unsigned to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}
/// Shows this thread's stores to shared memory to the copy engine.
__device__ inline void show_stores() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Registers that each thread of four warps has from here on.
template <int Many>
__device__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Many));
}
template <int Many>
__device__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Many));
}

/// Before the first product of a group: registers are as they should be.
__device__ inline void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void end_of_group() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits for all groups of products but the last `Pending`.
template <int Pending>
__device__ void wait_for_groups() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/// Where an operand lies: rows of 128 bytes, whose 16-byte pieces are where 128-byte swizzling puts them.
/// @param step  bytes to the next such panel of columns, where the numbers that are summed over are in one
///              column; of no meaning where they lie beside each other
__device__ inline std::uint64_t operand(unsigned at, unsigned step = 16) {
  constexpr std::uint64_t eight_rows = 1024 >> 4, swizzled = 1;
  return std::uint64_t((at & 0x3ffff) >> 4) | std::uint64_t(step >> 4) << 16 | eight_rows << 32 |
         swizzled << 62;
}

#define PARE_PLACES_32                                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, "                                                                                      \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PARE_PLACES_64                                                                           \
  PARE_PLACES_32                                                                                 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PARE_PLACES_96                                                                           \
  PARE_PLACES_64                                                                                 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PARE_SUMS_8(i)                                                                        \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), \
      "+f"(c[i + 6]), "+f"(c[i + 7])
#define PARE_SUMS_32(i) PARE_SUMS_8(i), PARE_SUMS_8(i + 8), PARE_SUMS_8(i + 16), PARE_SUMS_8(i + 24)

/// c (64, 2 Sums) += a (64, 16) b (2 Sums, 16)^T by four warps, sums in float; without `add` the sums begin
/// at 0. Lane l of warp w has rows 16 w + l / 4 and 8 more, columns 8 j + 2 (l % 4) and the next: c[4 j],
/// c[4 j + 1] of the upper row, c[4 j + 2], c[4 j + 3] of the lower one.
template <int Sums>
__device__ void multiply_add(float (&c)[Sums], std::uint64_t a, std::uint64_t b, int add) {
  static_assert(Sums == 32 || Sums == 64 || Sums == 96);
  if constexpr (Sums == 32)
    asm volatile(
        "{.reg .pred add; setp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" PARE_PLACES_32
        "}, %32, %33, add, 1, 1, 0, 0;}"
        : PARE_SUMS_32(0)
        : "l"(a), "l"(b), "r"(add)
        : "memory");
  else if constexpr (Sums == 64)
    asm volatile(
        "{.reg .pred add; setp.ne.b32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" PARE_PLACES_64
        "}, %64, %65, add, 1, 1, 0, 0;}"
        : PARE_SUMS_32(0), PARE_SUMS_32(32)
        : "l"(a), "l"(b), "r"(add)
        : "memory");
  else
    asm volatile(
        "{.reg .pred add; setp.ne.b32 add, %98, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 {" PARE_PLACES_96
        "}, %96, %97, add, 1, 1, 0, 0;}"
        : PARE_SUMS_32(0), PARE_SUMS_32(32), PARE_SUMS_32(64)
        : "l"(a), "l"(b), "r"(add)
        : "memory");
}

#undef PARE_PLACES_32
#undef PARE_PLACES_64
#undef PARE_PLACES_96
#undef PARE_SUMS_8
#undef PARE_SUMS_32

/// Keeps what reads the sums behind the wait before it.
template <int Sums>
__device__ void settle(float (&c)[Sums]) {
#pragma unroll
  for (int i = 0; i < Sums; ++i) asm volatile("" : "+f"(c[i])::"memory");
}
template <int Tiles, int Sums>
__device__ void settle(float (&c)[Tiles][Sums]) {
#pragma unroll
  for (int i = 0; i < Tiles; ++i) settle(c[i]);
}

#endif

}  // namespace pare::backend::cuda::wgmma
