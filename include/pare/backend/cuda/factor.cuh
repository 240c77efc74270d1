// The factor U of an inverse Hessian: one potrf of cuSOLVER and one triangular inverse of products.
#pragma once

#include <algorithm>

#include "pare/backend/cuda/product.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Side of the diagonal blocks that are inverted in shared memory.
inline constexpr int inverse_base = 64;
/// Columns of a triangle that one product takes: narrower skips more zeros, but fills the device
/// less.
inline constexpr index_t inverse_strip = 1024;

/// Turns A by half a turn, A(i, j) <-> A(n-1-i, n-1-j). With Upper, what ends below the diagonal is
/// set to zero.
template <bool Upper, class T>
__global__ void turn(MatrixView<T> A) {
  const index_t n = A.rows, i = blockIdx.y;  // the upper half of the rows
  const index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const index_t mirrored = n - 1 - i;
  if (j >= n || (i == mirrored && j > n - 1 - j)) return;
  const T mine = A(i, j), other = A(mirrored, n - 1 - j);
  A(i, j) = !Upper || j >= i ? other : T(0);
  A(mirrored, n - 1 - j) = !Upper || j <= i ? mine : T(0);
}

/// Side of the tiles that are transposed in shared memory.
inline constexpr int transposed_tile = 32;

/// Moves what lies on and above the diagonal below it, A(j, i) = A(i, j), and leaves zeros above.
/// A block of threads per tile on or above the diagonal.
template <class T>
__global__ void lower_from_upper(MatrixView<T> A) {
  __shared__ T tile[transposed_tile][transposed_tile + 1];  // one more against bank conflicts
  if (blockIdx.x < blockIdx.y) return;
  const index_t row = index_t(blockIdx.y) * transposed_tile;
  const index_t col = index_t(blockIdx.x) * transposed_tile;
  const index_t n = A.rows;
  const int l = int(threadIdx.x);
  for (int k = int(threadIdx.y); k < transposed_tile; k += int(blockDim.y)) {
    if (row + k >= n || col + l >= n) continue;
    tile[k][l] = A(row + k, col + l);
    if (row != col) A(row + k, col + l) = T(0);
  }
  __syncthreads();
  for (int k = int(threadIdx.y); k < transposed_tile; k += int(blockDim.y)) {
    if (col + k >= n || row + l >= n) continue;
    A(col + k, row + l) = row != col || k >= l ? tile[l][k] : T(0);
  }
}

template <class T>
void move_below(MatrixView<T> A) {
  const unsigned tiles = unsigned((A.rows + transposed_tile - 1) / transposed_tile);
  lower_from_upper<<<dim3(tiles, tiles), dim3(transposed_tile, 8), 0, stream()>>>(A);
  check_launch("lower_from_upper");
}

/// Inverts the lower triangular diagonal blocks of L, a block of threads each, a thread per column.
template <class T>
__global__ void __launch_bounds__(inverse_base) invert_diagonal_blocks(MatrixView<T> L) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& l = *reinterpret_cast<T(*)[inverse_base][inverse_base]>(memory);
  auto& x = *reinterpret_cast<T(*)[inverse_base][inverse_base]>(memory + sizeof(l));
  const index_t begin = index_t(blockIdx.x) * inverse_base;
  const int n = int(min(index_t(inverse_base), L.rows - begin)), j = threadIdx.x;
  for (int i = 0; i < n; ++i) {
    l[i][j] = j < n ? L(begin + i, begin + j) : T(0);
    x[i][j] = 0;
  }
  __syncthreads();
  if (j >= n) return;
  // Column j of L X = I, from the top.
  for (int i = j; i < n; ++i) {
    T sum = i == j ? T(1) : T(0);
#pragma unroll 8
    for (int k = j; k < i; ++k) sum -= l[i][k] * x[k][j];
    x[i][j] = sum / l[i][i];
  }
  for (int i = 0; i < n; ++i) L(begin + i, begin + j) = x[i][j];
}

/// With A and C already inverted, B of [A 0; B C] becomes -C B A; for `count` such matrices of one
/// shape that lie `step` elements apart.
/// @param scratch  room for count products of B's shape
template <class T>
void invert_below(MatrixView<T> A, MatrixView<T> B, MatrixView<T> C, index_t step, index_t count,
                  T* scratch) {
  const index_t height = B.rows, width = B.cols;
  const MatrixView<T> product(scratch, height, width);
  // product = B A. A is lower triangular: columns from c on take rows from c on.
  for (index_t c = 0; c < width; c += inverse_strip) {
    const index_t strip = std::min(inverse_strip, width - c);
    gemm_batched(T(1), MatrixView<const T>(B.columns(c, width - c)), step,
                 MatrixView<const T>(A.block(c, c, width - c, strip)), step, T(0),
                 product.columns(c, strip), height * width, count);
  }
  // B = -C product, likewise.
  for (index_t r = 0; r < height; r += inverse_strip) {
    const index_t strip = std::min(inverse_strip, height - r);
    gemm_batched(T(-1), MatrixView<const T>(C.block(r, 0, strip, r + strip)), step,
                 MatrixView<const T>(product.block(0, 0, r + strip, width)), height * width, T(0),
                 B.block(r, 0, strip, width), step, count);
  }
}

/// Overwrites the lower triangular L with its inverse. Zeros are expected above the diagonal.
/// Blocks double in size level by level; all of a level are done together.
template <class T>
void invert_lower(MatrixView<T> L) {
  const index_t n = L.rows;
  constexpr std::size_t shared = 2 * sizeof(T) * inverse_base * inverse_base;
  check(cudaFuncSetAttribute(invert_diagonal_blocks<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(shared)),
        "cudaFuncSetAttribute");
  invert_diagonal_blocks<<<unsigned((n + inverse_base - 1) / inverse_base), inverse_base, shared,
                           stream()>>>(L);
  check_launch("invert_diagonal_blocks");
  DeviceMatrix<T> scratch;
  for (index_t side = inverse_base; side < n; side *= 2) {
    const index_t pairs = n / (2 * side), begin = pairs * 2 * side, tail = n - begin - side;
    scratch.resize(1, std::max(pairs * side * side, tail * side));
    const auto invert = [&](index_t at, index_t height, index_t count) {
      invert_below(L.block(at, at, side, side), L.block(at + side, at, height, side),
                   L.block(at + side, at + side, height, height), 2 * side * (L.stride + 1), count,
                   scratch.data());
    };
    if (pairs > 0) invert(0, side, pairs);
    if (tail > 0) invert(begin, tail, 1);
  }
}

inline int potrf_buffer(cusolverDnHandle_t solver, cublasFillMode_t uplo, MatrixView<float> A) {
  int size = 0;
  check(cusolverDnSpotrf_bufferSize(solver, uplo, int(A.rows), A.data, int(A.stride), &size),
        "cusolverDnSpotrf_bufferSize");
  return size;
}
inline int potrf_buffer(cusolverDnHandle_t solver, cublasFillMode_t uplo, MatrixView<double> A) {
  int size = 0;
  check(cusolverDnDpotrf_bufferSize(solver, uplo, int(A.rows), A.data, int(A.stride), &size),
        "cusolverDnDpotrf_bufferSize");
  return size;
}
inline void potrf(cusolverDnHandle_t solver, cublasFillMode_t uplo, MatrixView<float> A,
                  DeviceMatrix<float>& buffer, int* info) {
  check(cusolverDnSpotrf(solver, uplo, int(A.rows), A.data, int(A.stride), buffer.data(),
                         int(buffer.size()), info),
        "cusolverDnSpotrf");
}
inline void potrf(cusolverDnHandle_t solver, cublasFillMode_t uplo, MatrixView<double> A,
                  DeviceMatrix<double>& buffer, int* info) {
  check(cusolverDnDpotrf(solver, uplo, int(A.rows), A.data, int(A.stride), buffer.data(),
                         int(buffer.size()), info),
        "cusolverDnDpotrf");
}

/// Makes `info` non-zero when an entry of the diagonal is not finite and positive. One block.
template <class T>
__global__ void check_diagonal(MatrixView<const T> U, int* info) {
  int bad = 0;
  for (index_t j = threadIdx.x; j < U.rows; j += blockDim.x)
    bad |= !(U(j, j) > T(0)) || !isfinite(U(j, j));
  if (__syncthreads_or(bad) != 0 && threadIdx.x == 0) *info = 1;
}

/// The factorisation of a Backend.
struct Factorization {
  /// A = R R^T with R upper is the Cholesky factorisation of A turned by half a turn.
  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    const index_t n = A.rows;
    if (n == 0) return true;
    const unsigned wide = unsigned((n + 255) / 256);
    const dim3 half(wide, unsigned((n + 1) / 2));
    turn<false><<<half, 256, 0, stream()>>>(A);
    check_launch("turn");
    const cusolverDnHandle_t solver = Context::get().solver;
    // Column-major lower, which is row-major upper, takes potrf half the time of the other.
    constexpr auto uplo = CUBLAS_FILL_MODE_LOWER;
    DeviceMatrix<T> buffer(1, potrf_buffer(solver, uplo, A));
    DeviceMatrix<int> info(1, 1);
    potrf(solver, uplo, A, buffer, info.data());
    buffer = {};
    move_below(A);
    invert_lower(A);
    turn<true><<<half, 256, 0, stream()>>>(A);
    check_launch("turn");
    check_diagonal<<<1, 256, 0, stream()>>>(MatrixView<const T>(A), info.data());
    check_launch("check_diagonal");
    return DeviceMemory::to_host(MatrixView<const int>(info.view()))(0, 0) == 0;
  }
};

}  // namespace pare::backend::cuda
