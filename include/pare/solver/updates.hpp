// How the errors of swept columns reach the columns after them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "pare/core/backend.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Keeps the errors of swept columns and subtracts what they do to the columns after them.
///
/// Errors of several blocks may be collected, and collections of these again: columns of the same
/// collection are updated whenever a part of it is complete, columns after it once per collection, in one
/// product. A backend says with `update_depths<T>(rows, cols, block)` how many columns make a
/// collection, level by level; without it, nothing is collected.
template <class B, class T>
class Updates {
 public:
  /// To be called before the first block of a linear.
  /// @param block    columns of a block
  /// @param rows     of the weights, (out)
  /// @param cols     of the weights, (in)
  /// @param collect  false where the sweep of a block reads columns after the collection
  void start(index_t rows, index_t cols, index_t block, bool collect) {
    depths_ = {block};
    if constexpr (requires { B::template update_depths<T>(rows, cols, block); })
      if (collect)
        for (const index_t depth : B::template update_depths<T>(rows, cols, block))
          depths_.push_back(depth);
    errors_.resize(rows, std::min(depths_.back(), cols));
  }

  /// Where the errors of some columns of a block belong, (out, count).
  MatrixView<T> errors(index_t begin, index_t count) {
    return errors_.view().columns(begin % depths_.back(), count);
  }

  /// W -= E U, as far as it is due.
  /// @param W      (out, in), in visit order
  /// @param U      the factor (in, in)
  /// @param begin  the first of the columns that have just been swept
  /// @param count  of these columns
  void feed(MatrixView<T> W, MatrixView<const T> U, index_t begin, index_t count) {
    const index_t end = begin + count;
    index_t first = begin;  // of the columns whose errors are due
    for (std::size_t level = 0;; ++level) {
      const bool outermost = level + 1 == depths_.size();
      const index_t around = outermost ? 0 : begin - begin % depths_[level + 1];
      const index_t last = outermost ? W.cols : std::min(around + depths_[level + 1], W.cols);
      subtract(W, U, first, end, last);
      if (outermost || end < last) return;
      first = around;
    }
  }

 private:
  /// Feeds columns begin .. end to columns end .. last.
  void subtract(MatrixView<T> W, MatrixView<const T> U, index_t begin, index_t end, index_t last) {
    if (end == last) return;
    B::trailing_update(W.columns(end, last - end), as_const(errors(begin, end - begin)),
                       U.block(begin, end, end - begin, last - end));
  }

  std::vector<index_t> depths_;            // columns of a block, and of each level of collections
  typename B::template matrix<T> errors_;  // (out, the largest depth)
};

}  // namespace pare::detail
