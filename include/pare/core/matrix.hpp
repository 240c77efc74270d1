// Row-major matrices: a view that does not own and a matrix that does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/config.hpp"
#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

/// Signed type of every row, column and count.
using index_t = std::ptrdiff_t;

/// A row-major window on memory owned elsewhere: element (r, c) is data[r * stride + c].
/// Plain data, so it can be handed to a device function.
template <class T>
struct MatrixView {
  /// Element (0, 0); owned elsewhere.
  T* data = nullptr;
  /// Number of rows.
  index_t rows = 0;
  /// Number of columns.
  index_t cols = 0;
  index_t stride = 0;  ///< elements from one row to the next, >= cols

  constexpr MatrixView() = default;
  /// Rows that lie `s` elements apart.
  PARE_HOST_DEVICE constexpr MatrixView(T* d, index_t r, index_t c, index_t s)
      : data(d), rows(r), cols(c), stride(s) {}
  /// Rows that touch.
  PARE_HOST_DEVICE constexpr MatrixView(T* d, index_t r, index_t c) : MatrixView(d, r, c, c) {}

  /// A view of non-const elements is a view of const ones.
  template <class U>
    requires(std::is_const_v<T>&& std::is_same_v<std::remove_const_t<T>, U>)
  PARE_HOST_DEVICE constexpr MatrixView(MatrixView<U> o)
      : data(o.data), rows(o.rows), cols(o.cols), stride(o.stride) {}

  /// Element (r, c). Not checked.
  PARE_HOST_DEVICE constexpr T& operator()(index_t r, index_t c) const {
    return data[r * stride + c];
  }
  /// The first element of a row. Not checked.
  PARE_HOST_DEVICE constexpr T* row(index_t r) const { return data + r * stride; }
  /// Number of elements.
  PARE_HOST_DEVICE constexpr index_t size() const { return rows * cols; }

  /// The window of `height` x `width` elements whose first is (r, c). Not checked.
  PARE_HOST_DEVICE constexpr MatrixView block(index_t r, index_t c, index_t height,
                                              index_t width) const {
    return {data + r * stride + c, height, width, stride};
  }
  /// Columns [c, c + width).
  PARE_HOST_DEVICE constexpr MatrixView columns(index_t c, index_t width) const {
    return block(0, c, rows, width);
  }
};

/// Throws unless every element that a view shows can be read: argument_error for a null view,
/// shape_error for negative sides or a stride below the columns. `what` begins the message.
template <class T>
void require_view(std::string_view what, MatrixView<T> A) {
  if (A.rows < 0 || A.cols < 0)
    throw shape_error(std::string(what) + ": expected sides >= 0, got shape " +
                      shape_text(A.rows, A.cols));
  if (A.rows == 0 || A.cols == 0) return;
  if (A.rows > 1 && A.stride < A.cols)
    throw shape_error(std::string(what) + ": expected a stride of at least the " +
                      std::to_string(A.cols) + " columns, got " + std::to_string(A.stride) +
                      " for shape " + shape_text(A.rows, A.cols));
  if (A.data == nullptr)
    throw argument_error(std::string(what) + ": expected numbers, got a null view of shape " +
                         shape_text(A.rows, A.cols));
}

/// Throws shape_error unless `count` numbers are those of a matrix of shape (rows, cols).
inline void require_count(std::string_view what, index_t rows, index_t cols, index_t count) {
  if (rows < 0 || cols < 0)
    throw shape_error(std::string(what) + ": expected sides >= 0, got shape " +
                      shape_text(rows, cols));
  // By division: the product may be more than an index holds.
  if (cols == 0 ? count != 0 : count % cols != 0 || count / cols != rows)
    throw shape_error(std::string(what) + ": expected as many as shape " + shape_text(rows, cols) +
                      " has, got " + std::to_string(count));
}

/// Throws argument_error unless the numbers of every row lie side by side and the rows apart.
/// @param what         begins the message
/// @param rows, cols   shape of a matrix of another library
/// @param row_step     elements from one row to the next
/// @param column_step  elements from one column to the next
inline void require_rows(std::string_view what, index_t rows, index_t cols, index_t row_step,
                         index_t column_step) {
  if (rows == 0 || cols == 0) return;
  if (cols > 1 && column_step != 1)
    throw argument_error(std::string(what) +
                         ": expected the numbers of a row side by side, got columns " +
                         std::to_string(column_step) + " apart; write row_major_copy()");
  if (rows > 1 && row_step < cols)
    throw argument_error(std::string(what) + ": expected rows at least " + std::to_string(cols) +
                         " apart, got " + std::to_string(row_step) + "; write row_major_copy()");
}

namespace detail {

/// The same view of what it may not write to.
template <class T>
MatrixView<const T> as_const(MatrixView<T> v) {
  return v;
}

/// Allocates on cache-line boundaries and leaves trivial elements uninitialised.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), alignment)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, alignment); }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    if constexpr (sizeof...(Args) == 0)
      ::new (static_cast<void*>(p)) U;
    else
      ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
  template <class U>
  bool operator==(const AlignedAllocator<U>&) const {
    return true;
  }
};

}  // namespace detail

/// A row-major matrix in host memory. New elements are zero.
template <class T>
class Matrix {
 public:
  /// Type of an element.
  using value_type = T;

  /// A matrix without elements.
  Matrix() = default;
  /// A matrix of shape (rows, cols). Throws shape_error for a negative side.
  Matrix(index_t rows, index_t cols) {
    resize(rows, cols);
    fill(T{});
  }
  /// A copy of what a view shows.
  /// @throws shape_error, argument_error for a view that cannot be read
  explicit Matrix(MatrixView<const T> v) {
    require_view("matrix", v);
    resize(v.rows, v.cols);
    for (index_t r = 0; r < rows_; ++r) std::copy_n(v.row(r), cols_, view().row(r));
  }

  /// Number of rows.
  index_t rows() const { return rows_; }
  /// Number of columns.
  index_t cols() const { return cols_; }
  /// Number of elements; they lie row by row without gaps.
  index_t size() const { return rows_ * cols_; }
  /// Element (0, 0).
  T* data() { return storage_.data(); }
  /// Element (0, 0).
  const T* data() const { return storage_.data(); }
  /// Element (r, c). Not checked.
  T& operator()(index_t r, index_t c) { return storage_[std::size_t(r * cols_ + c)]; }
  /// Element (r, c). Not checked.
  const T& operator()(index_t r, index_t c) const { return storage_[std::size_t(r * cols_ + c)]; }

  /// A view of the whole; valid until the matrix is resized or ends.
  MatrixView<T> view() { return {data(), rows_, cols_, cols_}; }
  /// A view of the whole; valid until the matrix is resized or ends.
  MatrixView<const T> view() const { return {data(), rows_, cols_, cols_}; }
  /// The same as view().
  operator MatrixView<T>() { return view(); }
  /// The same as view().
  operator MatrixView<const T>() const { return view(); }

  /// Sets every element.
  void fill(const T& value) { std::fill(storage_.begin(), storage_.end(), value); }

  /// Changes the shape. Memory is kept when it is large enough; the content is unspecified.
  void resize(index_t rows, index_t cols) {
    if (rows < 0 || cols < 0)
      throw shape_error("Matrix: both sides must be >= 0, got " + shape_text(rows, cols));
    rows_ = rows;
    cols_ = cols;
    storage_.resize(std::size_t(rows * cols));
  }

 private:
  index_t rows_ = 0, cols_ = 0;
  std::vector<T, detail::AlignedAllocator<T>> storage_;
};

}  // namespace pare
