// What an algorithm may ask of the place where it computes.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET {

template <class T>
struct GridView;

namespace kernels {

/// Where the mask of a block of columns comes from.
enum class MaskSource : std::uint8_t {
  none,           ///< nothing is pruned
  given,          ///< chosen for the whole block before the sweep
  n_of_m,         ///< chosen in the sweep, at the first column of every m
  n_of_m_beside,  ///< the same; what is marked before the sweep is chosen first, and stays
};

// What a backend is given: pare/kernels/sweep.hpp and pare/kernels/fit.hpp.
template <class T, MaskSource Mask, bool Quantize, class Grids = GridView<const T>>
struct RowSweep;
template <class T>
struct GridFit;

/// Neighbouring rows of a matrix, of which some weights are selected.
struct RowRun {
  index_t begin, rows;  ///< the first, and how many
  index_t selected;     ///< weights, within 0 .. rows times columns
};

}  // namespace kernels

namespace detail {

struct NoOpRow {
  PARE_HOST_DEVICE void operator()(index_t) const {}
};
struct NoOpElement {
  PARE_HOST_DEVICE void operator()(index_t, index_t) const {}
};
struct NoOpReduction {
  struct partial {
    std::int32_t nothing = 0;
    PARE_HOST_DEVICE void merge(const partial&) {}
  };
  PARE_HOST_DEVICE index_t columns() const { return 1; }
  PARE_HOST_DEVICE void add(index_t, index_t, partial&) const {}
  PARE_HOST_DEVICE void finish(index_t, const partial&) const {}
};

/// Matrices of U that B owns and moves.
template <class B, class U>
concept HoldsMatrices = std::default_initializable<typename B::template matrix<U>> &&
    std::constructible_from<typename B::template matrix<U>, index_t, index_t> &&
    std::copyable<typename B::template matrix<U>> &&
    requires(typename B::template matrix<U> owner, const typename B::template matrix<U> fixed,
             MatrixView<const U> from, MatrixView<U> to) {
  owner.resize(index_t{}, index_t{});
  { owner.view() } -> std::convertible_to<MatrixView<U>>;
  { fixed.view() } -> std::convertible_to<MatrixView<const U>>;
  { fixed.rows() } -> std::convertible_to<index_t>;
  { fixed.cols() } -> std::convertible_to<index_t>;
  { B::from_host(from) } -> std::same_as<typename B::template matrix<U>>;
  { B::to_host(from) } -> std::same_as<Matrix<U>>;
  B::copy(from, to);
};

}  // namespace detail

/// A set of static functions on views of memory that the backend can reach: all that calibration,
/// scores and solver ask for.
///
/// - `matrix<U>`: owning, made as `matrix<U>(rows, cols)` with any content, with `view()`,
///   `rows()`, `cols()` and `resize(rows, cols)`; U is T, double, or an integer of 1, 4 or 8 bytes.
/// - `from_host(view)`, `to_host(view)`, `copy(from, to)`: move elements between memories.
/// - `for_each_row(n, f)`, `for_each_element(rows, cols, f)`: f(row), f(row, col), any order. A host
///   may run whole rows where f is a kernels::HasRowForm.
/// - `reduce_rows(n, reduction)`: runs a kernels::RowReduction over rows 0 .. n - 1.
/// - `fit_grids(fit)`: fits all grids of a kernels::GridFit.
/// - `row_sweep(sweep)`: runs a kernels::RowSweep over all its rows.
/// - `find_non_finite(A)`: flat row-major index of the first NaN or infinity, -1 when none.
/// - `column_moments(X, M)`: M (3, in) = mean |x|, mean x, sum of squared deviations per column; X
///   of T or of double.
/// - `gram_accumulate(G, X)`: G (in, in) += X^T X for X (tokens, in).
/// - `inverse_factor(A)`: overwrites the symmetric A (n, n) with the upper triangular U of
///   inv(A) = U^T U, zeros below; false when A is not positive definite.
/// - `multiply(C, A, B)`: C = A B.
/// - `trailing_update(W, E, U)`: W -= E U.
/// - `select_smallest(W, d, k, mask)`: marks the k smallest |w_ij| / d_j of W; ties go to the
///   lower row-major index.
///
/// A backend may have `update_depths<T>(rows, cols, block)`: a std::vector<index_t> of how many columns'
/// errors are collected before the columns after them are updated, level by level. The first is a
/// multiple of `block`, every other one of the one before it; with none, columns are updated after every
/// block.
///
/// A backend may have `start_to_host(view)`, `start_find_non_finite(A)` and `start_inverse_factor(A)`: as
/// `to_host`, `find_non_finite` and `inverse_factor`, but they may return before the result is known. They
/// return a movable object whose `get()` waits for the result and gives it. start_inverse_factor is called
/// with at least one row. Before a result is asked for, further operations are called: with weights that
/// may be NaN, or with a U that is of no use because A was not positive definite. They have to end and to stay
/// within their matrices; what they compute is dropped.
///
/// A backend may have `select_smallest_of(W, d, runs, mask)`: select_smallest of each of several runs of
/// rows of W, given as a std::span<const kernels::RowRun>.
///
/// A backend that derives from one that has one of these overrides both forms of an operation or none.
///
/// A backend may have `rough_multiply(C, A, B)`: C = A B in fewer digits, where it is faster. A
/// search for a mask takes it, which only ranks weights by the result.
///
/// A backend may have `gram_accumulate_upper(G, X)`: as gram_accumulate, but what is below the
/// diagonal is unspecified until `mirror_upper(G)` has copied there what is above.
///
/// A backend may store numbers in types it does not compute in, `stores<S>`; then `matrix`, `copy`,
/// `from_host`, `to_host`, `find_non_finite(A)`, and X of `column_moments` and `gram_accumulate`
/// take S too.
template <class B, class T>
concept Backend = std::floating_point<T> && detail::HoldsMatrices<B, T> &&
    detail::HoldsMatrices<B, double> && detail::HoldsMatrices<B, std::uint8_t> &&
    detail::HoldsMatrices<B, std::int32_t> && detail::HoldsMatrices<B, std::int64_t> &&
    detail::HoldsMatrices<B, index_t> &&
    requires(MatrixView<T> a, MatrixView<const T> c, MatrixView<double> moments,
             MatrixView<const double> wide, MatrixView<std::uint8_t> mask,
             const kernels::GridFit<T>& fit,
             const kernels::RowSweep<T, kernels::MaskSource::none, true>& rounding,
             const kernels::RowSweep<T, kernels::MaskSource::given, false>& pruning,
             const kernels::RowSweep<T, kernels::MaskSource::given, true>& both,
             const kernels::RowSweep<T, kernels::MaskSource::n_of_m, false>& pruning_n_of_m,
             const kernels::RowSweep<T, kernels::MaskSource::n_of_m, true>& both_n_of_m,
             const kernels::RowSweep<T, kernels::MaskSource::n_of_m_beside, false>& beside,
             const kernels::RowSweep<T, kernels::MaskSource::n_of_m_beside, true>& both_beside) {
  { B::name } -> std::convertible_to<std::string_view>;
  requires B::template supports<T>;
  B::for_each_row(index_t{}, detail::NoOpRow{});
  B::for_each_element(index_t{}, index_t{}, detail::NoOpElement{});
  B::reduce_rows(index_t{}, detail::NoOpReduction{});
  B::fit_grids(fit);
  B::row_sweep(rounding);
  B::row_sweep(pruning);
  B::row_sweep(both);
  B::row_sweep(pruning_n_of_m);
  B::row_sweep(both_n_of_m);
  B::row_sweep(beside);
  B::row_sweep(both_beside);
  { B::find_non_finite(c) } -> std::same_as<index_t>;
  B::column_moments(c, moments);
  B::column_moments(wide, moments);
  B::gram_accumulate(a, c);
  { B::inverse_factor(a) } -> std::same_as<bool>;
  B::multiply(a, c, c);
  B::trailing_update(a, c, c);
  B::select_smallest(c, c, index_t{}, mask);
};

namespace detail {

template <class B>
inline constexpr bool named_memory = requires {
  { B::name } -> std::convertible_to<std::string_view>;
  typename B::template matrix<float>;
};
template <class B, class T>
inline constexpr bool supports_scalar = false;
template <class B, class T>
  requires requires { requires B::template supports<T>; }
inline constexpr bool supports_scalar<B, T> = true;

/// What B computes in it stores too.
template <class B, class S>
inline constexpr bool stores_scalar = supports_scalar<B, S>;
template <class B, class S>
  requires requires { requires B::template stores<S>; }
inline constexpr bool stores_scalar<B, S> = true;

/// What every template over a backend and a scalar asserts first; always true. Later checks need
/// the earlier ones, so that one misuse gives one message.
template <class B, class T>
constexpr bool check_backend() {
  static_assert(std::floating_point<T>,
                "pare: a scalar that is not a floating-point number: the mathematics needs "
                "fractions; write float or double");
  if constexpr (std::floating_point<T>) {
    static_assert(named_memory<B>,
                  "pare: a backend without name and matrix<T>: the type says nowhere to compute; "
                  "write pare::backend::Eigen or a type that models pare::Backend");
    if constexpr (named_memory<B>) {
      static_assert(supports_scalar<B, T>,
                    "pare: a scalar that the backend does not support: Backend::supports<T> is "
                    "false; write float or double");
      if constexpr (supports_scalar<B, T>)
        static_assert(Backend<B, T>,
                      "pare: a backend that lacks an operation: the type does not model "
                      "pare::Backend; write every operation listed in pare/core/backend.hpp, of "
                      "which the note below names the first that is missing");
    }
  }
  return true;
}

/// The result of an operation that had ended when it returned.
template <class R>
struct Known {
  R result;
  R& get() { return result; }
};

/// Whether a result is known when the operation returns.
template <class R>
inline constexpr bool is_known = false;
template <class R>
inline constexpr bool is_known<Known<R>> = true;

/// Begins a copy to host memory: get() of the result is the Matrix<U>, once it is there. What is queued
/// on the backend in between does not hold it up.
template <class B, class U>
auto start_to_host(MatrixView<const U> v) {
  if constexpr (requires { B::start_to_host(v); })
    return B::start_to_host(v);
  else
    return Known<Matrix<U>>{B::to_host(v)};
}

/// Begins to look for an element that is NaN or infinite: get() of the result is its index, or -1.
template <class B, class T>
auto start_find_non_finite(MatrixView<const T> A) {
  if constexpr (requires { B::start_find_non_finite(A); })
    return B::start_find_non_finite(A);
  else
    return Known<index_t>{B::find_non_finite(A)};
}

/// Begins inverse_factor(A): get() of the result is false where A is not positive definite.
template <class B, class T>
auto start_inverse_factor(MatrixView<T> A) {
  if constexpr (requires { B::start_inverse_factor(A); })
    return B::start_inverse_factor(A);
  else
    return Known<bool>{B::inverse_factor(A)};
}

/// Marks the smallest |w_ij| / d_j in each of some runs of rows; see Backend.
/// @param W     (out, block)
/// @param d     (1, block)
/// @param mask  (out, block), written in the rows of the runs
template <class B, class T>
void select_smallest_of(MatrixView<const T> W, MatrixView<const T> d,
                        std::span<const kernels::RowRun> runs, MatrixView<std::uint8_t> mask) {
  if constexpr (requires { B::select_smallest_of(W, d, runs, mask); }) {
    if (runs.size() > 1) return B::select_smallest_of(W, d, runs, mask);
  }
  for (const kernels::RowRun& run : runs)
    B::select_smallest(W.block(run.begin, 0, run.rows, W.cols), d, run.selected,
                       mask.block(run.begin, 0, run.rows, W.cols));
}

/// Throws non_finite_error naming `what`, the row and the column, unless `at` is -1.
/// @param at  as find_non_finite(A) gives it
template <class T>
void require_none_at(index_t at, std::string_view what, MatrixView<const T> A) {
  if (at < 0) return;
  const index_t row = at / A.cols, column = at % A.cols;
  throw non_finite_error(std::string(what) + ": expected finite numbers, got NaN or infinity at " +
                             shape_text(row, column) + " of shape " + shape_text(A.rows, A.cols),
                         row, column);
}

}  // namespace detail

/// Throws non_finite_error naming `what`, the row and the column of the first element of A that
/// is NaN or infinite; what require_view throws.
template <class B, class T>
void require_finite(std::string_view what, MatrixView<const T> A) {
  require_view(what, A);
  detail::require_none_at(B::find_non_finite(A), what, A);
}

}  // namespace pare
