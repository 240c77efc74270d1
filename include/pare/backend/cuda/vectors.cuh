// Element-wise work on 16 bytes at a time: with 2 bytes per access a GPU does not reach its bandwidth.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "pare/backend/cuda/context.cuh"
#include "pare/backend/cuda/storage.cuh"
#include "pare/kernels/activations.hpp"

namespace pare::inline PARE_TARGET::backend::cuda {

/// Neighbouring numbers that are moved in one access.
template <class N, int Size = 16 / int(sizeof(N))>
struct alignas(Size * sizeof(N)) Vector {
  static constexpr int size = Size;
  N at[Size];
};

template <class V, class N>
__device__ V load_vector(const N* from) {
  return *reinterpret_cast<const V*>(from);
}
template <class N, int Size>
__device__ void store_vector(N* to, const Vector<N, Size>& vector) {
  *reinterpret_cast<Vector<N, Size>*>(to) = vector;
}

/// Whether every row of a matrix is whole vectors of 16 bytes.
template <class N>
bool whole_vectors(MatrixView<N> A) {
  constexpr index_t each = Vector<std::remove_const_t<N>>::size;
  return A.cols % each == 0 && (A.rows < 2 || A.stride % each == 0) &&
         reinterpret_cast<std::uintptr_t>(A.data) % 16 == 0;
}

/// f of every number, rounded as it is stored; f takes and returns numbers as they are computed with.
template <class F, class N, int Size, class... Others>
__device__ Vector<N, Size> map_vector(const F& f, const Vector<N, Size>& first,
                                      const Others&... others) {
  Vector<N, Size> y;
#pragma unroll
  for (int i = 0; i < Size; ++i) y.at[i] = narrow<N>(f(widen(first.at[i]), widen(others.at[i])...));
  return y;
}

/// out = f(in...) of vectors V, a thread for each. `out` may be one of `in`.
template <class V, class N, class F, class... In>
__global__ void map_kernel(MatrixView<N> out, F f, In... in) {
  const index_t c = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * V::size;
  if (c >= out.cols) return;
  for (index_t r = blockIdx.y; r < out.rows; r += gridDim.y)
    store_vector(out.row(r) + c, f(load_vector<V>(in.row(r) + c)...));
}

/// out = f(in...), element by element; all have one shape. `out` may be one of `in`.
/// @param f  takes and returns a Vector
template <class N, class F, class... In>
void map_elements(MatrixView<N> out, const F& f, In... in) {
  const index_t rows = out.rows, cols = out.cols;
  if (rows == 0 || cols == 0) return;
  const auto launch = [&]<class V>(V, auto to, auto... from) {
    constexpr index_t threads = 256, columns = threads * V::size;
    const dim3 blocks(unsigned((to.cols + columns - 1) / columns),
                      unsigned(std::min<index_t>(to.rows, 65535)));
    map_kernel<V><<<blocks, threads, 0, stream()>>>(to, f, from...);
    check_launch("map_kernel");
  };
  if (!(whole_vectors(out) && ... && whole_vectors(in)))
    launch(Vector<N, 1>{}, out, MatrixView<const N>(in)...);
  else if (out.stride == cols && ((in.stride == cols) && ...))
    // Rows that touch are one long row, which leaves no thread of a block idle.
    launch(Vector<N>{}, MatrixView<N>(out.data, 1, rows * cols),
           MatrixView<const N>(in.data, 1, rows * cols)...);
  else
    launch(Vector<N>{}, out, MatrixView<const N>(in)...);
}

/// kernels::Activate of a vector.
struct ActivateVector {
  kernels::Activation kind;
  template <class V>
  __device__ V operator()(const V& x) const {
    V y;
    kernels::with_activation<kernels::LibraryMath>(kind, [&](auto f) { y = map_vector(f, x); });
    return y;
  }
};

/// kernels::GatedProduct of vectors.
struct GateVector {
  kernels::Activation kind;
  template <class V>
  __device__ V operator()(const V& gate, const V& up) const {
    V y;
    kernels::with_activation<kernels::LibraryMath>(kind, [&](auto f) {
      y = map_vector([&](auto g, auto u) { return f(g) * u; }, gate, up);
    });
    return y;
  }
};

/// The sum of vectors; of one, itself.
struct AddVectors {
  template <class V>
  __device__ V operator()(const V& a) const {
    return a;
  }
  template <class V>
  __device__ V operator()(const V& a, const V& b) const {
    return map_vector([](auto x, auto y) { return x + y; }, a, b);
  }
};

/// kernels::RotatePairs, a thread for the same vector of pairs in all heads of a token: its angles are
/// read once.
template <class S, class N>
__global__ void rotate_pairs_kernel(kernels::RotatePairs<S> f, MatrixView<N> X, int heads) {
  constexpr int each = Vector<N>::size;
  const auto chunks = unsigned(f.half) / each;
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  const index_t t = at / chunks, i = index_t(at % chunks) * each;
  if (t >= X.rows) return;
  const index_t position = unsigned(t) % unsigned(f.seqlen);
  wide<N> cosine[each], sine[each];
#pragma unroll
  for (int e = 0; e < each; ++e) {
    cosine[e] = f.cosines(position, i + e);
    sine[e] = f.sines(position, i + e);
  }
  N* low = X.row(t) + i;
#pragma unroll 4
  for (int h = 0; h < heads; ++h, low += f.head_step) {
    auto a = load_vector<Vector<N>>(low), b = load_vector<Vector<N>>(low + f.half);
#pragma unroll
    for (int e = 0; e < each; ++e) {
      const auto x = widen(a.at[e]), y = widen(b.at[e]);
      a.at[e] = narrow<N>(x * cosine[e] - y * sine[e]);
      b.at[e] = narrow<N>(y * cosine[e] + x * sine[e]);
    }
    store_vector(low, a);
    store_vector(low + f.half, b);
  }
}

/// Runs f over all elements by vectors of 16 bytes; false where it has no such form.
template <class F>
bool vector_elements(index_t, index_t, const F&) {
  return false;
}
template <class S>
bool vector_elements(index_t, index_t, const kernels::Activate<S>& f) {
  map_elements(native(f.X), ActivateVector{f.kind}, native(f.X));
  return true;
}
template <class S>
bool vector_elements(index_t, index_t, const kernels::GatedProduct<S>& f) {
  map_elements(native(f.out), GateVector{f.kind}, native(f.gate), native(f.up));
  return true;
}
template <class S>
bool vector_elements(index_t rows, index_t pairs, const kernels::RotatePairs<S>& f) {
  using N = device_scalar<S>;
  constexpr index_t each = Vector<N>::size;
  const auto X = native(f.X);
  const index_t threads_needed = rows * (f.half / each);
  if (f.half % each != 0 || f.head_step % each != 0 || X.stride % each != 0 ||
      reinterpret_cast<std::uintptr_t>(X.data) % 16 != 0 ||
      threads_needed > std::numeric_limits<std::int32_t>::max())
    return false;
  constexpr index_t threads = 128;
  const auto blocks = unsigned((threads_needed + threads - 1) / threads);
  rotate_pairs_kernel<<<blocks, threads, 0, stream()>>>(f, X, int(pairs / f.half));
  check_launch("rotate_pairs_kernel");
  return true;
}

}  // namespace pare::backend::cuda
