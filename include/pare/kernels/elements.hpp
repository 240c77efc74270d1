// Functions of one element: fill, convert, add, move.
#pragma once

#include <cstdint>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// A function of one element that hosts run faster by rows: row(r, cols) does what f(r, c) does for
/// every c < cols, to rounding. A backend need not know of it.
template <class F>
concept HasRowForm = requires(const F f) {
  f.row(index_t{}, index_t{});
};

/// A = 0.
template <class U>
struct SetZero {
  MatrixView<U> A;  // (n, m)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { A(r, c) = U(0); }
};

/// A = I.
template <class T>
struct SetIdentity {
  MatrixView<T> A;  // (n, n)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { A(r, c) = r == c ? T(1) : T(0); }
};

/// to = from, rounded to nearest.
template <class From, class To>
struct ConvertElement {
  MatrixView<const From> from;  // (n, m)
  MatrixView<To> to;            // (n, m)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    to(r, c) = To(compute_scalar<To>(from(r, c)));
  }
};

/// Rounds a weight to the type the checkpoint stores and to S, which the model holds.
template <class T, class S>
struct RoundStored {
  MatrixView<T> weights;  // (out, in)
  /// What the checkpoint stores.
  DType dtype;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    weights(r, c) = T(S(compute_scalar<S>(round_to(dtype, float(weights(r, c))))));
  }
};

/// into += from.
template <class T>
struct AddElement {
  MatrixView<T> into;        // (n, m)
  MatrixView<const T> from;  // (n, m)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { into(r, c) += from(r, c); }
};

/// A *= 2, which rounds nothing.
template <class T>
struct DoubleElement {
  MatrixView<T> A;  // (n, m)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { A(r, c) *= T(2); }
};

/// to = scale * from.
template <class T>
struct ScaledCopy {
  MatrixView<const T> from;  // (n, m)
  MatrixView<T> to;          // (n, m)
  double scale;              ///< the factor

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    to(r, c) = T(scale * double(from(r, c)));
  }
};

/// to = from^T.
template <class T>
struct TransposeElement {
  MatrixView<const T> from;  // (n, m)
  MatrixView<T> to;          // (m, n)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { to(r, c) = from(c, r); }
};

/// to = (from + from^T) / 2, symmetric to the bit.
template <class T>
struct MeanOfTransposes {
  MatrixView<const T> from;  // (n, n)
  MatrixView<T> to;          // (n, n)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    to(r, c) = (from(r, c) + from(c, r)) / T(2);
  }
};

/// to(r, p) = from(r, order[p]).
template <class T>
struct GatherColumns {
  MatrixView<const T> from;  // (out, in)
  MatrixView<T> to;          // (out, in)
  const index_t* order;      ///< (in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const { to(r, p) = from(r, order[p]); }
};

/// out = weights, zero where the input is dead.
template <class T>
struct LiveWeights {
  MatrixView<const T> weights;  // (out, in)
  MatrixView<T> out;            // (out, in)
  const std::uint8_t* dead;     ///< (in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    out(r, c) = dead[c] != 0 ? T(0) : weights(r, c);
  }
};

/// to(r, order[p]) = from(r, p).
template <class T>
struct ScatterColumns {
  MatrixView<const T> from;  // (out, in)
  MatrixView<T> to;          // (out, in)
  const index_t* order;      ///< (in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const { to(r, order[p]) = from(r, p); }
};

/// to(r, p) = scale * from(r, order[p]).
template <class T>
struct GatherScaled {
  MatrixView<const T> from;  // (rows, n)
  MatrixView<T> to;          // (rows, n)
  const index_t* order;      ///< (n)
  /// The factor.
  double scale;

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const {
    to(r, p) = T(scale * double(from(r, order[p])));
  }
};

/// into(r, order[p]) += from(r, p).
template <class T>
struct ScatterAdd {
  MatrixView<const T> from;  // (rows, n)
  MatrixView<T> into;        // (rows, n)
  const index_t* order;      ///< (n)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const { into(r, order[p]) += from(r, p); }
};

}  // namespace pare::kernels
