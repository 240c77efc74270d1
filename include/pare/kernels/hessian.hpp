// What calibration and factorisation do to H and to moments.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "pare/kernels/reduction.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// diagonal(0, order[j]) = scale * matrix(j, j).
template <class T, class U = double>
struct TakeDiagonal {
  MatrixView<const T> matrix;  // (n, n)
  MatrixView<U> diagonal;      // (1, n)
  /// The factor.
  double scale = 1;
  /// Where each element goes, (n); null: as they come.
  const index_t* order = nullptr;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t j) const {
    diagonal(0, order != nullptr ? order[j] : j) = U(scale * double(matrix(j, j)));
  }
};

/// Chan's update of (mean |x|, mean x, M2) of n tokens by those of m tokens.
struct MergeMoments {
  MatrixView<double> into;        // (3, in)
  MatrixView<const double> from;  // (3, in)
  double n, m;                    ///< tokens

  /// Updates one column.
  PARE_HOST_DEVICE void operator()(index_t j) const {
    const double share = m / (n + m);
    const double delta = from(1, j) - into(1, j);
    into(0, j) += (from(0, j) - into(0, j)) * share;
    into(1, j) += delta * share;
    into(2, j) += from(2, j) + delta * delta * n * share;
  }
};

/// The first column of each row left of the diagonal where H is not symmetric to rounding; -1 where
/// the diagonal of the row is negative.
template <class T>
struct AsymmetricColumn {
  /// The first column that is wrong.
  struct partial {
    /// Past every column: none.
    std::int64_t column = std::numeric_limits<std::int64_t>::max();

    /// Takes in that of other columns.
    PARE_HOST_DEVICE void merge(const partial& other) {
      column = other.column < column ? other.column : column;
    }
  };

  MatrixView<const T> H;           // (n, n)
  MatrixView<std::int64_t> first;  // (1, n); a number >= n: there is none

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return H.cols; }
  /// Compares one element with its mirror image.
  PARE_HOST_DEVICE void add(index_t r, index_t c, partial& wrong) const {
    if (c == r && H(r, r) < T(0)) wrong.merge({-1});
    if (c < r && !symmetric(r, c)) wrong.merge({c});
  }
  /// Writes the first wrong column of row r.
  PARE_HOST_DEVICE void finish(index_t r, const partial& wrong) const {
    first(0, r) = wrong.column;
  }

 private:
  PARE_HOST_DEVICE bool symmetric(index_t r, index_t c) const {
    const double limit = 1e-3 * std::sqrt(double(H(r, r)) * double(H(c, c))) + 1e-30;
    return !(std::abs(double(H(r, c)) - double(H(c, r))) > limit);
  }
};

/// out = H + damping, rows and columns permuted, dead inputs set to 1.
template <class T>
struct DampedHessian {
  MatrixView<const T> gram;  // (in, in)
  MatrixView<T> out;         // (in, in)
  const index_t* order;      ///< (in)
  const double* diagonal;    ///< (in), by input
  double scale, added;       ///< H = scale * gram, damping

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    const index_t i = order[r], j = order[c];
    out(r, c) = i == j ? T(diagonal[i] + added) : T(scale * double(gram(i, j)));
  }
};

/// out = (X - dense)^T in T.
template <class S, class T>
struct NegativeDrift {
  MatrixView<const S> dense, X;  // (tokens, in)
  MatrixView<T> out;             // (in, tokens)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t j, index_t t) const {
    out(j, t) = T(X(t, j)) - T(dense(t, j));
  }
};

}  // namespace pare::kernels
