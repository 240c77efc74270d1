// Linked into a GPU test beside a file that includes the same headers: what both define does not link
// unless it is inline or a template.
#include "pare/backend/cuda/packed_product.cuh"
#include "pare/backend/cuda/thrust_cuda.cuh"
