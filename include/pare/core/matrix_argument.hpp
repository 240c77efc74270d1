// What functions that read a matrix take, and what they answer to something else when compiled.
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

template <class>
inline constexpr bool never = false;

template <class Given>
concept EigenMatrix = requires {
  typename Given::Scalar;
  Given::IsRowMajor;
  Given::RowsAtCompileTime;
};
template <class Given>
concept XtensorMatrix = requires {
  typename Given::shape_type;
  Given::static_layout;
};
template <class Given>
concept ListOfNumbers = requires(const Given& given) {
  typename Given::value_type;
  given.data();
  given.size();
}
|| requires {
  typename Given::mapping_type;  // an mdspan
};
template <class Given>
concept HasView = requires(const Given& given) {
  given.view().data;
  given.view().stride;
};

/// Elements of one of our views or matrices; void of anything else.
template <class Given>
struct ElementOf {
  using type = void;
};
template <class S>
struct ElementOf<MatrixView<S>> {
  using type = std::remove_const_t<S>;
};
template <HasView Given>
struct ElementOf<Given> {
  using type = std::remove_cvref_t<decltype(*std::declval<const Given&>().view().data)>;
};

/// Whether Given is read as a view of T. Otherwise it does not compile: one message per misuse.
template <class Given, class T>
constexpr bool check_matrix() {
  constexpr bool good = std::convertible_to<const Given&, MatrixView<const T>>;
  if constexpr (!good) {
    using S = typename ElementOf<Given>::type;
    constexpr bool eigen = EigenMatrix<Given>, xtensor = XtensorMatrix<Given>;
    constexpr bool ours = !eigen && !xtensor && !std::is_void_v<S>;
    constexpr bool list = !eigen && !xtensor && !ours && ListOfNumbers<Given>;
    constexpr bool hidden = ours && std::same_as<S, T>;
    constexpr bool narrow = ours && is_storage_only<S>;
    static_assert(!eigen,
                  "pare: a matrix of Eigen where a view is expected: nothing is copied in silence; "
                  "write pare::view(M) with pare/adapters/eigen.hpp");
    static_assert(!xtensor,
                  "pare: a tensor of xtensor where a view is expected: nothing is copied in "
                  "silence; write pare::view(M) with pare/adapters/xtensor.hpp");
    static_assert(!list,
                  "pare: a list of numbers where a view is expected: it has no rows and columns; "
                  "write pare::view(numbers, rows, columns) with pare/adapters/std.hpp, or with "
                  "thrust.hpp beside it for Thrust's vectors");
    static_assert(!hidden,
                  "pare: a matrix that does not turn into a view by itself, because its memory is "
                  "not the host's; write M.view()");
    static_assert(!narrow,
                  "pare: 16-bit numbers where the scalar is expected: only Calibration::add takes "
                  "them, on a backend that stores them; write pare::convert<B>(M, floats) first");
    static_assert(!ours || hidden || narrow,
                  "pare: numbers of another type than the scalar: nothing is converted in silence; "
                  "write the T of Calibration<B, T> and SparseGPTSolver<Config, B, T>, or "
                  "pare::convert<B>(M, others) first");
    static_assert(eigen || xtensor || ours || list,
                  "pare: something that is no matrix where a view is expected: it has no rows "
                  "and columns; write pare::MatrixView<const T>(data, rows, columns)");
  }
  return good;
}

}  // namespace detail

/// A matrix as an argument that is read: whatever turns into a view of T. Anything else does not
/// compile, and the message says what to write.
template <class T>
class MatrixArgument {
 public:
  /// No matrix.
  MatrixArgument() = default;
  /// Rows that touch, (rows, cols).
  MatrixArgument(const T* data, index_t rows, index_t cols) : view_(data, rows, cols) {}
  /// Rows that lie `stride` elements apart, (rows, cols).
  MatrixArgument(const T* data, index_t rows, index_t cols, index_t stride)
      : view_(data, rows, cols, stride) {}
  /// A view, or a matrix that turns into one.
  template <class Given>
  MatrixArgument(const Given& given) {
    if constexpr (detail::check_matrix<Given, T>()) view_ = given;
  }
  /// The view.
  operator MatrixView<const T>() const { return view_; }

 private:
  MatrixView<const T> view_;
};

}  // namespace pare
