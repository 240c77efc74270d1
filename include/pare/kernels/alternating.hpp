// What the search for a mask does to elements and rows; see docs/mathematics.md.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "pare/kernels/reduction.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// out = the damped H of unit diagonal, and `shift` on the diagonal; in visit order.
template <class T>
struct NormalizedHessian {
  MatrixView<const T> gram;  // (in, in)
  MatrixView<T> out;         // (in, in)
  const index_t* order;      ///< (in)
  const double* root;        ///< (in), square root of the damped diagonal times unit, by position
  double scale, unit;        ///< H = scale * gram
  double shift;              ///< added to the diagonal

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const double h = scale * double(gram(order[r], order[c]));
    out(r, c) = r == c ? T(1 + shift) : T(h * (unit / root[r]) * (unit / root[c]));
  }
};

/// The largest magnitude of every row of from(r, order[p]) * root[p].
template <class T>
struct LargestWeight {
  /// The largest magnitude.
  using partial = Largest<double>;

  MatrixView<const T> from;  // (out, in)
  const index_t* order;      ///< (in)
  const double* root;        ///< (in), by position
  MatrixView<double> out;    // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return from.cols; }
  /// Takes in one weight.
  PARE_HOST_DEVICE void add(index_t r, index_t p, partial& largest) const {
    largest.add(std::abs(double(from(r, order[p])) * root[p]));
  }
  /// Writes that of row r.
  PARE_HOST_DEVICE void finish(index_t r, const partial& largest) const {
    out(0, r) = largest.value;
  }
};

/// out(r, p) = from(r, order[p]) * root[p]: weights in units in which H has unit diagonal.
template <class T>
struct NormalizeWeights {
  MatrixView<const T> from;  // (out, in)
  MatrixView<T> out;         // (out, in), in visit order
  const index_t* order;      ///< (in)
  const double* root;        ///< (in), by position

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const {
    out(r, p) = T(double(from(r, order[p])) * root[p]);
  }
};

/// Back again: to(r, order[p]) = from(r, p) / root[p], exact zeros where the mask prunes.
template <class T>
struct RestoreWeights {
  MatrixView<const T> from;             // (out, in), in visit order
  MatrixView<const std::uint8_t> mask;  // (out, in), in visit order
  MatrixView<T> to;                     // (out, in)
  const index_t* order;                 ///< (in)
  const double* root;                   ///< (in), by position

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const {
    to(r, order[p]) = mask(r, p) != 0 ? T(0) : T(double(from(r, p)) / root[p]);
  }
};

// The state of the search is S = B + V / rho and its mask: Z is S where the mask leaves a weight,
// and V after the update is rho S where it prunes one.

/// out = rho (Z - X) - V, which times inv(A + rho) is B - X.
template <class T>
struct AlternatingRight {
  MatrixView<const T> X, S;             // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in), 1 = pruned
  MatrixView<T> out;                    // (out, in)
  T rho, before;                        ///< penalty of this step and of the last

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const T s = S(r, c), x = X(r, c);
    out(r, c) = mask(r, c) != 0 ? -rho * x - before * s : rho * (s - x);
  }
};

/// S = B + V / rho, with B - X given.
template <class T>
struct AlternatingTarget {
  MatrixView<const T> X, step;          // (out, in): X and B - X
  MatrixView<const std::uint8_t> mask;  // (out, in), of the last step
  MatrixView<T> S;                      // (out, in)
  T ratio;                              ///< penalty of the last step over that of this one

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    S(r, c) = X(r, c) + step(r, c) + (mask(r, c) != 0 ? ratio * S(r, c) : T(0));
  }
};

/// Marks the `zeros` smallest |S| of every `of` neighbours; what is given is marked first.
template <class T>
struct ChooseRuns {
  MatrixView<const T> S;                 // (out, in)
  MatrixView<const std::uint8_t> given;  // (out, in), or empty
  MatrixView<std::uint8_t> mask;         // (out, in)
  int zeros, of;                         ///< n:m

  /// Marks one run.
  PARE_HOST_DEVICE void operator()(index_t r, index_t run) const {
    const index_t first = run * of;
    const auto forced = [&](int at) { return given.rows > 0 && given(r, first + at) != 0; };
    const auto score = [&](int at) { return forced(at) ? T(-1) : std::abs(S(r, first + at)); };
    for (int at = 0; at < of; ++at)
      mask(r, first + at) = forced(at) || among_smallest(score, at, of, zeros);
  }
};

/// Weights on which two masks differ, by row.
struct CountChanges {
  /// Weights that differ.
  using partial = Sums<std::int64_t, 1>;

  MatrixView<const std::uint8_t> mask, before;  // (out, in)
  MatrixView<std::int64_t> counts;              // (1, out)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return mask.cols; }
  /// Compares one weight.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& counted) const {
    counted[0] += (mask(i, j) != 0) != (before(i, j) != 0);
  }
  /// Writes the count of row i.
  PARE_HOST_DEVICE void finish(index_t i, const partial& counted) const {
    counts(0, i) = counted[0];
  }
};

/// |x| as a whole number that orders as |x| does.
template <class T>
PARE_HOST_DEVICE PARE_INLINE std::int64_t magnitude_key(T x) {
  std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t> bits;
  const T magnitude = std::abs(x);
  std::memcpy(&bits, &magnitude, sizeof bits);
  return bits;
}
/// The highest bit of such numbers.
template <class T>
inline constexpr int magnitude_bits = sizeof(T) == 4 ? 30 : 62;

/// One step of the search for the k-th smallest |S| of every row: a bit of its key is set where
/// fewer than k keys are below that. After the last bit the threshold is the key.
template <class T>
struct RaiseThreshold {
  /// Keys below the threshold with its new bit.
  using partial = Sums<std::int64_t, 1>;

  MatrixView<const T> S;                 // (out, in)
  MatrixView<const std::uint8_t> given;  // (out, in), weights that do not count; or empty
  MatrixView<const std::int64_t> k;      // (1, out)
  MatrixView<std::int64_t> threshold;    // (1, out)
  std::int64_t bit;                      ///< a power of two

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return S.cols; }
  /// Counts one number.
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& counted) const {
    const bool counts = given.rows == 0 || given(i, j) == 0;
    counted[0] += counts && magnitude_key(S(i, j)) < threshold(0, i) + bit;
  }
  /// Sets the bit of row i, or not.
  PARE_HOST_DEVICE void finish(index_t i, const partial& counted) const {
    if (counted[0] < k(0, i)) threshold(0, i) += bit;
  }
};

/// Marks what is given and the k smallest |S| of the others in a row, by their k-th smallest key;
/// ties go to the lower column.
template <class T>
struct MarkBelow {
  MatrixView<const T> S;                        // (out, in)
  MatrixView<const std::uint8_t> given;         // (out, in), or empty
  MatrixView<const std::int64_t> k, threshold;  // (1, out)
  MatrixView<std::uint8_t> mask;                // (out, in)

  /// Marks one row.
  PARE_HOST_DEVICE void operator()(index_t i) const {
    std::int64_t left = k(0, i);
    for (int pass = 0; pass < 2; ++pass)  // those below first, then ties
      for (index_t j = 0; j < S.cols; ++j) {
        const bool forced = given.rows > 0 && given(i, j) != 0;
        const std::int64_t key = magnitude_key(S(i, j));
        if (pass == 0) {
          const bool below = !forced && key < threshold(0, i) && left > 0;
          mask(i, j) = forced || below;
          left -= below;
        } else if (!forced && key == threshold(0, i) && left > 0) {
          mask(i, j) = 1;
          --left;
        }
      }
  }
};

}  // namespace pare::kernels
