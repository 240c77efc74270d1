// Functions of one element for masks that a caller gives.
#pragma once

#include <cstdint>
#include <limits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// to = 1 where a weight is zero, else 0.
template <class T>
struct MarkZeros {
  MatrixView<const T> weights;  // (out, in)
  MatrixView<std::uint8_t> to;  // (out, in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { to(r, c) = weights(r, c) == T(0); }
};

/// to(r, p) = 1 where from(r, order[p]) marks a weight, else 0.
struct GatherMarks {
  MatrixView<const std::uint8_t> from;  // (out, in)
  MatrixView<std::uint8_t> to;          // (out, in)
  const index_t* order;                 ///< (in)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t p) const {
    to(r, p) = from(r, order[p]) != 0;
  }
};

/// to = from where nothing is marked, the largest number where a weight is: it is chosen last.
template <class T>
struct HideMarked {
  MatrixView<const T> from;              // (out, block)
  MatrixView<const std::uint8_t> marks;  // (out, block)
  MatrixView<T> to;                      // (out, block)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    to(r, c) = marks(r, c) != 0 ? std::numeric_limits<T>::max() : from(r, c);
  }
};

/// Marks what `from` marks too.
struct AddMarks {
  MatrixView<const std::uint8_t> from;  // (out, block)
  MatrixView<std::uint8_t> into;        // (out, block)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    into(r, c) = into(r, c) != 0 || from(r, c) != 0;
  }
};

}  // namespace pare::kernels
