// What calibration and factorisation do to H and to moments.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// diagonal(0, j) = scale * matrix(j, j).
template <class T>
struct TakeDiagonal {
  MatrixView<const T> matrix;   // (n, n)
  MatrixView<double> diagonal;  // (1, n)
  /// The factor.
  double scale = 1;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t j) const {
    diagonal(0, j) = scale * double(matrix(j, j));
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
