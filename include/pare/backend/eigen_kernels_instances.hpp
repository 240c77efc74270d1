// Compiles Eigen's kernels for float and double. One source file of a program includes this header;
// the others are compiled with PARE_EXTERN_KERNELS and spare the time.
#pragma once

#include "pare/backend/eigen_kernels.hpp"
#if defined(PARE_HIGHWAY)
#include "pare/backend/packed_product.hpp"
#endif

namespace pare::inline PARE_TARGET::backend {

PARE_EIGEN_KERNELS(, float)
PARE_EIGEN_KERNELS(, double)

#if defined(PARE_HIGHWAY)
namespace host_detail {
/// Declared in host_packed.hpp.
void multiply_packed(const PackedLinear& packed, std::span<const float> x, std::span<float> y);
void multiply_packed(const PackedLinear& packed, std::span<const float> x, std::span<float> y) {
  packed_product(packed, x, y);
}
bool multiplies_fast(const PackedLinear& packed);
bool multiplies_fast(const PackedLinear& packed) { return pare::detail::has_fast_product(packed); }
}  // namespace host_detail
#endif

}  // namespace pare::backend
