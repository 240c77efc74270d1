// The factor U of an inverse Hessian: a Cholesky factorisation and a triangular inverse of products.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "pare/backend/cuda/direct_product.cuh"
#include "pare/backend/cuda/factor_tiles.cuh"
#include "pare/backend/cuda/product.cuh"
#include "pare/backend/cuda/tuning.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Side of the diagonal blocks that are inverted in shared memory.
inline constexpr int inverse_base = 64;
/// Columns of a triangle that one product takes: narrower skips more zeros, but fills the device
/// less.
inline constexpr index_t inverse_strip = 1024;

/// Powers of two that bring the diagonal of A to 1 .. 4 when rows and columns are multiplied with them;
/// 1 where it is not positive and finite.
template <class T>
__global__ void balance_kernel(MatrixView<const T> A, T* scale) {
  const index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= A.rows) return;
  const T a = A(j, j);
  scale[j] = a > T(0) && isfinite(a) ? ldexp(T(1), -int(floor(T(ilogb(a)) / 2))) : T(1);
}

/// Turns A by half a turn, A(i, j) <-> A(n-1-i, n-1-j).
/// @param scale  (n), may be null: what rows and columns are multiplied with
/// @param info   becomes 0
template <class T>
__global__ void turn(MatrixView<T> A, const T* scale, int* info) {
  const index_t n = A.rows, i = blockIdx.y;  // the upper half of the rows
  const index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i == 0 && j == 0) *info = 0;
  const index_t mirrored = n - 1 - i, k = n - 1 - j;
  if (j >= n || (i == mirrored && j > k)) return;
  T mine = A(i, j), other = A(mirrored, k);
  if (scale != nullptr) {
    mine = mine * scale[i] * scale[j];  // the product of two scales may overflow
    other = other * scale[mirrored] * scale[k];
  }
  A(i, j) = other;
  A(mirrored, k) = mine;
}

/// Side of the tiles that are transposed in shared memory.
inline constexpr int transposed_tile = 32;

/// Mirrors the upper triangle on the other diagonal, A(i, j) <-> A(n-1-j, n-1-i), and sets what lies
/// below the diagonal to zero. A block of threads per tile.
/// @param scale  (n), may be null: what columns are multiplied with afterwards
/// @param info   becomes 1 where an entry of the diagonal is then not finite and positive
template <class T>
__global__ void flip_upper(MatrixView<T> A, const T* scale, int* info) {
  __shared__ T tile[transposed_tile][transposed_tile + 1];   // one more against bank conflicts
  __shared__ T other[transposed_tile][transposed_tile + 1];  // (column, row) of the tile
  const index_t n = A.rows, row = index_t(blockIdx.y) * transposed_tile;
  const index_t col = index_t(blockIdx.x) * transposed_tile;
  if (row + col > n - 1) return;
  const int l = int(threadIdx.x);
  // Of two places that change numbers, the one nearer to the upper left has the thread.
  const auto mine = [&](index_t i, index_t j) { return i < n && j < n && i + j <= n - 1; };
  const auto store = [&](index_t i, index_t j, T x) {
    x = i > j ? T(0) : scale == nullptr ? x : x * scale[j];
    if (i == j && !(x > T(0) && isfinite(x))) *info = 1;
    A(i, j) = x;
  };
  for (int k = int(threadIdx.y); k < transposed_tile; k += int(blockDim.y)) {
    if (mine(row + k, col + l)) tile[k][l] = A(row + k, col + l);
    if (mine(row + l, col + k)) other[k][l] = A(n - 1 - col - k, n - 1 - row - l);
  }
  __syncthreads();
  for (int k = int(threadIdx.y); k < transposed_tile; k += int(blockDim.y)) {
    if (const index_t i = row + k, j = col + l; mine(i, j)) store(i, j, other[l][k]);
    if (const index_t i = row + l, j = col + k; mine(i, j)) store(n - 1 - j, n - 1 - i, tile[l][k]);
  }
}

/// Inverts the upper triangular diagonal blocks of R, a block of threads each, a thread per column.
/// What lies below the diagonal of a block becomes zero.
template <class T>
__global__ void __launch_bounds__(inverse_base) invert_diagonal_blocks(MatrixView<T> R) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& r = *reinterpret_cast<T(*)[inverse_base][inverse_base]>(memory);
  auto& x = *reinterpret_cast<T(*)[inverse_base][inverse_base]>(memory + sizeof(r));
  const index_t begin = index_t(blockIdx.x) * inverse_base;
  const int n = int(min(index_t(inverse_base), R.rows - begin)), j = threadIdx.x;
  for (int i = 0; i < n; ++i) {
    r[i][j] = i <= j && j < n ? R(begin + i, begin + j) : T(0);
    x[i][j] = 0;
  }
  __syncthreads();
  if (j >= n) return;
  // Column j of R X = I, from the bottom.
  for (int i = j; i >= 0; --i) {
    T sum = i == j ? T(1) : T(0);
#pragma unroll 8
    for (int k = i + 1; k <= j; ++k) sum -= r[i][k] * x[k][j];
    x[i][j] = sum / r[i][i];
  }
  for (int i = 0; i < n; ++i) R(begin + i, begin + j) = x[i][j];
}

/// Sets what lies below the diagonal to zero.
template <class T>
__global__ void clear_below(MatrixView<T> A) {
  const index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (index_t i = blockIdx.y; i < A.rows; i += gridDim.y)
    if (j < i) A(i, j) = T(0);
}

/// X = -A B C for `count` such products whose matrices lie step and step_b (of B) elements apart.
/// @param A        (height, height), upper triangular, zeros below
/// @param B        (height, width); may be X
/// @param C        (width, width), upper triangular, zeros below
/// @param scratch  room for count products of X's shape
template <class T>
void invert_beside(MatrixView<const T> A, MatrixView<const T> B, index_t step_b,
                   MatrixView<const T> C, MatrixView<T> X, index_t step, index_t count,
                   T* scratch) {
  const index_t height = X.rows, width = X.cols, step_p = height * width;
  const MatrixView<T> product(scratch, height, width);
  if constexpr (std::is_same_v<T, float>) {
    if (splits(height, width, width)) {
      for (index_t i = 0; i < count; ++i) {
        split_product(1, {B, Lines::rows}, {C, Lines::columns}, 0, product, Terms::alike,
                      Zeros::below_right);
        split_product(-1, {A, Lines::rows}, {product, Lines::columns}, 0, X, Terms::alike,
                      Zeros::below_left);
        A.data += step;
        B.data += step_b;
        C.data += step;
        X.data += step;
      }
      return;
    }
    if (directs()) {
      direct_product(1, {B, Lines::rows}, step_b, C, step, 0, product, step_p, count,
                     Zeros::below_right);
      direct_product(-1, {A, Lines::rows}, step, product, step_p, 0, X, step, count,
                     Zeros::below_left);
      return;
    }
  }
  // product = B C. C is upper triangular: columns up to c take rows up to c.
  for (index_t c = 0; c < width; c += inverse_strip) {
    const index_t strip = std::min(inverse_strip, width - c);
    gemm_batched(T(1), B.columns(0, c + strip), step_b, C.block(0, c, c + strip, strip), step, T(0),
                 product.columns(c, strip), step_p, count);
  }
  // X = -A product, likewise.
  for (index_t r = 0; r < height; r += inverse_strip) {
    const index_t strip = std::min(inverse_strip, height - r);
    gemm_batched(T(-1), A.block(r, r, strip, height - r), step,
                 MatrixView<const T>(product.block(r, 0, height - r, width)), step_p, T(0),
                 X.block(r, 0, strip, width), step, count);
  }
}

/// Makes X the inverse of an upper triangle from inverses of blocks on its diagonal. Blocks double in
/// size level by level; all of a level are done together.
/// @param X     holds the inverses, zeros below them; what lies below those of
///              split_depth is not read where directs(), and must be zero otherwise
/// @param R     (n, n), the triangle beside those blocks; may be X
/// @param done  side of the blocks
template <class T>
void join_inverses(MatrixView<T> X, MatrixView<const T> R, index_t done) {
  const index_t n = X.rows;
  DeviceMatrix<T> scratch;
  for (index_t side = done; side < n; side *= 2) {
    const index_t pairs = n / (2 * side), begin = pairs * 2 * side, tail = n - begin - side;
    scratch.resize(1, std::max(pairs * side * side, tail * side));
    const auto join = [&](index_t at, index_t width, index_t count) {
      const index_t next = at + side;
      invert_beside(MatrixView<const T>(X.block(at, at, side, side)),
                    R.block(at, next, side, width), 2 * side * (R.stride + 1),
                    MatrixView<const T>(X.block(next, next, width, width)),
                    X.block(at, next, side, width), 2 * side * (X.stride + 1), count,
                    scratch.data());
    };
    if (pairs > 0) join(0, side, pairs);
    if (tail > 0) join(begin, tail, 1);
  }
}

/// Overwrites the upper triangular R with its inverse, zeros below.
template <class T>
void invert_upper(MatrixView<T> R) {
  const index_t n = R.rows;
  constexpr index_t most_blocks = 65535;  // of a grid's second dimension
  clear_below<<<dim3(unsigned((n + 255) / 256), unsigned(std::min(n, most_blocks))), 256, 0,
                stream()>>>(R);
  check_launch("clear_below");
  constexpr std::size_t shared = 2 * sizeof(T) * inverse_base * inverse_base;
  allow_shared(invert_diagonal_blocks<T>, int(shared));
  invert_diagonal_blocks<<<unsigned((n + inverse_base - 1) / inverse_base), inverse_base, shared,
                           stream()>>>(R);
  check_launch("invert_diagonal_blocks");
  join_inverses(R, MatrixView<const T>(R), inverse_base);
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

/// Overwrites the symmetric A = R^T R, of which only the upper triangle is read, with inverse(R). What
/// lies below the diagonal is unspecified.
///
/// The factorisation goes from left to right by panels whose inverses make products of the triangular
/// solves.
/// @param panel  columns of a panel, factored and inverted in one launch
/// @param info   one number in device memory, becomes 1 where A is not positive definite
inline void factor_by_panels(MatrixView<float> A, index_t panel, int* info) {
  const index_t n = A.rows;
  DeviceMatrix<float> beside(std::min(panel, n), std::max<index_t>(n - panel, 0));
  for (index_t p = 0; p < n; p += panel) {
    const index_t here = std::min(panel, n - p), next = p + here, rest = n - next;
    const MatrixView<float> diagonal = A.block(p, p, here, here);
    factor_tiles(diagonal, info);
    if (rest == 0) break;
    const MatrixView<float> R = A.block(p, next, here, rest),
                            after = A.block(next, next, rest, rest);
    const MatrixView<float> room = beside.view().block(0, 0, here, rest);
    if (splits(rest, rest, here)) {
      split_product(1, {diagonal, Lines::columns}, {R, Lines::columns}, 0, room);
      split_gram(-1, room, after);
    } else {
      direct_product(1, {diagonal, Lines::columns}, R, 0, room);
      direct_product(-1, {room, Lines::columns}, room, 1, after);
    }
    DeviceMemory::copy(MatrixView<const float>(room), R);
  }
  join_inverses(A, MatrixView<const float>(A), panel);
}

/// Whether a factorisation succeeded, on its way to the host.
struct Factored {
  Download<int> info;  // (1, 1), not 0 where the matrix is not positive definite
  /// Waits for the copy.
  bool get() { return info.get()(0, 0) == 0; }
};

/// Begins to overwrite the symmetric A, of at least one row, with the upper triangular U of
/// inv(A) = U^T U, zeros below.
/// @param panel  columns of the panels by which a float matrix is factored, which needs directs() and shared
///               memory for factor_tiles(); 0: by cuSOLVER
/// @return get() gives false when A is not positive definite
template <class T>
Factored start_inverse_factor(MatrixView<T> A, index_t panel) {
  const index_t n = A.rows;
  const bool balanced = std::is_same_v<T, float> && directs();
  const unsigned wide = unsigned((n + 255) / 256);
  // Halves of 16 bits have little range: the diagonal is brought near 1 and the factor is scaled back,
  // both by powers of two.
  DeviceMatrix<T> scale(1, balanced ? n : 0);
  if (balanced) {
    balance_kernel<<<wide, 256, 0, stream()>>>(MatrixView<const T>(A), scale.data());
    check_launch("balance_kernel");
  }
  // A = R R^T with R upper is the Cholesky factorisation of A turned by half a turn.
  DeviceMatrix<int> info(1, 1);
  turn<<<dim3(wide, unsigned((n + 1) / 2)), 256, 0, stream()>>>(A, std::as_const(scale).data(),
                                                                info.data());
  check_launch("turn");
  if constexpr (std::is_same_v<T, float>)
    if (panel > 0) factor_by_panels(A, panel, info.data());
  if (panel == 0) {
    // Column-major lower, which is row-major upper, takes potrf half the time of the other.
    constexpr auto uplo = CUBLAS_FILL_MODE_LOWER;
    const cusolverDnHandle_t solver = Context::get().solver;
    DeviceMatrix<T> buffer(1, potrf_buffer(solver, uplo, A));
    potrf(solver, uplo, A, buffer, info.data());
    buffer = {};
    invert_upper(A);
  }
  // The row-major upper inverse is the transpose of the lower triangle of which U is half a turn.
  const unsigned tiles = unsigned((n + transposed_tile - 1) / transposed_tile);
  flip_upper<<<dim3(tiles, tiles), dim3(transposed_tile, 8), 0, stream()>>>(
      A, std::as_const(scale).data(), info.data());
  check_launch("flip_upper");
  return {Download<int>(info.view())};
}

/// The same, but waits for the outcome: false when A is not positive definite.
template <class T>
bool inverse_factor(MatrixView<T> A, index_t panel) {
  return A.rows == 0 || start_inverse_factor(A, panel).get();
}

/// The factorisation of a Backend.
struct Factorization {
  template <class T>
  static Factored start_inverse_factor(MatrixView<T> A) {
    const Context& context = Context::get();
    index_t panel = 0;
    // One block of threads of a launch factors, the others update.
    if (std::is_same_v<T, float> && directs() && context.shared_bytes >= factor_tiles_bytes &&
        context.multiprocessors > 1)
      with_tuning(context.compute_capability,
                  [&]<class Tuning>(Tuning) { panel = Tuning::factor_panel; });
    return cuda::start_inverse_factor(A, panel);
  }
  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    return A.rows == 0 || start_inverse_factor(A).get();
  }
};

}  // namespace pare::backend::cuda
