// How the errors of swept columns reach the columns after them.
#pragma once

#include <algorithm>

#include "pare/core/backend.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Keeps the errors of swept columns and subtracts what they do to the columns after them.
///
/// Errors of several blocks may be collected. Columns of the same collection are updated after every
/// block; columns after it are updated once per collection, in one product. A backend says with
/// `update_depth<T>(rows, cols, block)` how many columns it collects; without it, a block.
template <class B, class T>
class Updates {
 public:
  /// To be called before the first block of a linear.
  /// @param block    columns of a block
  /// @param rows     of the weights, (out)
  /// @param cols     of the weights, (in)
  /// @param collect  false where the sweep of a block reads columns after the collection
  void start(index_t rows, index_t cols, index_t block, bool collect) {
    collect_ = collect;
    depth_ = block;
    if constexpr (requires { B::template update_depth<T>(rows, cols, block); })
      if (collect) depth_ = B::template update_depth<T>(rows, cols, block);
    errors_.resize(rows, std::min(depth_, cols));
  }

  /// Where the errors of some columns of a block belong, (out, count).
  MatrixView<T> errors(index_t begin, index_t count) {
    return errors_.view().columns(begin % depth_, count);
  }

  /// W -= E U, as far as it is due.
  /// @param W      (out, in), in visit order
  /// @param U      the factor (in, in)
  /// @param begin  the first of the columns that have just been swept
  /// @param count  of these columns
  void feed(MatrixView<T> W, MatrixView<const T> U, index_t begin, index_t count) {
    const index_t end = begin + count;
    if (!collect_) return subtract(W, U, begin, end, W.cols);
    const index_t first = begin - begin % depth_, last = std::min(first + depth_, W.cols);
    subtract(W, U, begin, end, last);
    if (end == last) subtract(W, U, first, end, W.cols);
  }

 private:
  /// Feeds columns begin .. end to columns end .. last.
  void subtract(MatrixView<T> W, MatrixView<const T> U, index_t begin, index_t end, index_t last) {
    if (end == last) return;
    B::trailing_update(W.columns(end, last - end), as_const(errors(begin, end - begin)),
                       U.block(begin, end, end - begin, last - end));
  }

  index_t depth_ = 1;
  bool collect_ = true;
  typename B::template matrix<T> errors_;  // (out, depth)
};

}  // namespace pare::detail
