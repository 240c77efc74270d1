// The randomised Hadamard transform: signs, then a fast Walsh-Hadamard transform of every block.
#pragma once

#include <cmath>
#include <cstdint>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/random.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// The largest power of two that divides n.
PARE_HOST_DEVICE constexpr index_t power_of_two_in(index_t n) { return n & -n; }

/// The largest block of a HadamardRotation: what a GPU holds in the memory of one multiprocessor.
inline constexpr index_t largest_block = 32768;

/// x = H x for the Hadamard matrix H (n, n) of Sylvester's kind, entries 1 and -1, in place, with
/// n log2 n additions.
/// @param x  (n)
/// @param n  a power of two
template <class T>
PARE_HOST_DEVICE void hadamard(T* x, index_t n) {
  index_t half = 1;
  // Two stages at a time: half the passes over x.
  for (; 4 * half <= n; half *= 4)
    for (index_t begin = 0; begin < n; begin += 4 * half) {
      T* PARE_RESTRICT a = x + begin;
      T* PARE_RESTRICT b = a + half;
      T* PARE_RESTRICT c = b + half;
      T* PARE_RESTRICT d = c + half;
      for (index_t i = 0; i < half; ++i) {
        const T p = a[i] + b[i], q = a[i] - b[i], r = c[i] + d[i], s = c[i] - d[i];
        a[i] = p + r;
        b[i] = q + s;
        c[i] = p - r;
        d[i] = q - s;
      }
    }
  if (half == n) return;
  for (index_t i = 0; i < half; ++i) {
    const T p = x[i], q = x[half + i];
    x[i] = p + q;
    x[half + i] = p - q;
  }
}

/// R = blockdiag(H, ..., H) D / sqrt(block): D are random signs, H Hadamard matrices (block, block)
/// and block the largest power of two that divides the width, 32768 at most. R is orthogonal and a
/// seed says it.
struct HadamardRotation {
  /// Which signs.
  std::uint64_t seed = 0;

  /// Columns that are mixed with one another, of `width`.
  PARE_HOST_DEVICE static constexpr index_t block(index_t width) {
    const index_t block = power_of_two_in(width);
    return block < largest_block ? block : largest_block;
  }

  /// Signs of 64 columns: bit c is set where column 64 word + c is negated.
  PARE_HOST_DEVICE std::uint64_t signs(index_t word) const {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15ull;
    const std::uint64_t key = FillNormal<float>::mix(seed + golden);
    return FillNormal<float>::mix(key + golden * std::uint64_t(word + 1));
  }
  /// 1 or -1 for a column.
  PARE_HOST_DEVICE int sign(index_t column) const {
    return (signs(column / 64) >> (column % 64) & 1) != 0 ? -1 : 1;
  }
  /// Memberwise.
  bool operator==(const HadamardRotation&) const = default;
};

/// A block of a row of Y = the same of X R^T, or of X R where it is turned back; Y may be X. For
/// types that are computed with: the stages run in Y.
template <class T>
struct RotateBlock {
  MatrixView<const T> X;      // (rows, cols)
  MatrixView<T> Y;            // (rows, cols)
  HadamardRotation rotation;  ///< R
  bool back = false;          ///< by R^T rather than R

  /// Blocks of all rows.
  index_t count() const { return X.rows * (X.cols / HadamardRotation::block(X.cols)); }

  /// Writes block number `task`, the blocks of a row one after the other.
  PARE_HOST_DEVICE void operator()(index_t task) const {
    const index_t block = HadamardRotation::block(X.cols), blocks = X.cols / block;
    const index_t row = task / blocks, first = task % blocks * block;
    const T* x = X.row(row) + first;
    T* y = Y.row(row) + first;
    const T scale = T(1) / T(std::sqrt(T(block)));
    if (back) {
      for (index_t i = 0; i < block; ++i) y[i] = x[i];
      hadamard(y, block);
      apply_signs(y, y, first, block, scale);
    } else {
      apply_signs(x, y, first, block, scale);
      hadamard(y, block);
    }
  }

 private:
  PARE_HOST_DEVICE void apply_signs(const T* x, T* y, index_t first, index_t count, T scale) const {
    for (index_t i = 0; i < count;) {
      std::uint64_t bits = rotation.signs((first + i) / 64) >> ((first + i) % 64);
      const index_t end = i + 64 - (first + i) % 64;
      for (; i < count && i < end; ++i, bits >>= 1)
        y[i] = (bits & 1) != 0 ? -scale * x[i] : scale * x[i];
    }
  }
};

}  // namespace pare::kernels
