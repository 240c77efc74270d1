// Instructions that GPUs have from sm_80 on: copies to shared memory beside the arithmetic, and products on
// the tensor cores.
#pragma once

#include <cuda_fp16.h>

#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

// Places in shared memory are bytes from its start in 32 bits, as instructions take them.

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
/// Copies 16 bytes to shared memory; ends with a wait_for_copies.
__device__ inline void copy_to_shared(unsigned to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/// The same, or zeros.
__device__ inline void copy_to_shared(unsigned to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all copies but those of the last `Pending` groups.
template <int Pending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Four matrices of 8 x 8 numbers; lane l names row l % 8 of matrix l / 8.
__device__ inline void load_matrices(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
/// The same, each matrix transposed.
__device__ inline void load_transposed(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}

/// c (16, 8) += a (16, 16) b (16, 8), sums in float.
template <class N>
__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<N, __half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// c (16, 8) += a (16, 8) b (8, 8) of numbers whose first 11 bits count, sums in float.
__device__ inline void multiply_add_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
// What has them is never launched there.
__device__ inline void copy_to_shared(unsigned, const void*) {}
__device__ inline void copy_to_shared(unsigned, const void*, bool) {}
__device__ inline void end_of_copies() {}
template <int>
__device__ void wait_for_copies() {}
__device__ inline void load_matrices(unsigned (&)[4], unsigned) {}
__device__ inline void load_transposed(unsigned (&)[4], unsigned) {}
template <class N>
__device__ void multiply_add(float (&)[4], const unsigned (&)[4], unsigned, unsigned) {}
__device__ inline void multiply_add_tf32(float (&)[4], const unsigned (&)[4], unsigned, unsigned) {}
#endif

}  // namespace pare::backend::cuda
