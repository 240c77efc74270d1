// Sums over the columns of every row: written once, run by every backend.
#pragma once

#include <concepts>
#include <limits>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// N sums of one type, all 0 to begin with.
template <class V, int N>
struct Sums {
  /// The sums.
  V of[N] = {};

  /// Sum k.
  PARE_HOST_DEVICE V& operator[](int k) { return of[k]; }
  /// Sum k.
  PARE_HOST_DEVICE const V& operator[](int k) const { return of[k]; }
  /// Adds the sums of other columns.
  PARE_HOST_DEVICE void merge(const Sums& other) {
    for (int k = 0; k < N; ++k) of[k] += other.of[k];
  }
};

/// The largest of some numbers.
template <class V>
struct Largest {
  /// The largest so far.
  V value = std::numeric_limits<V>::lowest();

  /// Takes in a number.
  PARE_HOST_DEVICE void add(V x) { value = x > value ? x : value; }
  /// Takes in the largest of other columns.
  PARE_HOST_DEVICE void merge(const Largest& other) { add(other.value); }
};

/// What is summed over the columns of each row. Plain data; marked PARE_HOST_DEVICE, it runs on
/// every backend.
///
/// - `partial`: what some columns add up to; `partial{}` is that of none, `merge(other)` takes in
///   that of other columns. Trivially copyable, of whole 4-byte words: threads of a device hand it
///   to each other.
/// - `columns()`: the columns of a row.
/// - `add(row, column, partial)`: takes one column in.
/// - `finish(row, total)`: writes what the whole row adds up to; called once for each row.
///
/// In which order columns are taken in is the backend's business: a host takes them from the first
/// to the last.
template <class R>
concept RowReduction = std::is_trivially_copyable_v<R> &&
                       std::is_trivially_copyable_v<typename R::partial> &&
                       (sizeof(typename R::partial) % 4 == 0) &&
                       requires(const R reduction, typename R::partial partial,
                                const typename R::partial total) {
  { reduction.columns() } -> std::same_as<index_t>;
  reduction.add(index_t{}, index_t{}, partial);
  partial.merge(total);
  reduction.finish(index_t{}, total);
};

/// What every loop over a reduction asserts first; always true. One message per misuse.
template <class R>
constexpr bool check_reduction() {
  constexpr bool named = requires { typename R::partial; };
  static_assert(named,
                "pare: a row reduction without partial: the type of what some columns add up to; "
                "write for instance using partial = kernels::Sums<double, 1>");
  if constexpr (named) {
    using P = typename R::partial;
    constexpr bool plain =
        std::is_trivially_copyable_v<R> && std::is_trivially_copyable_v<P> && sizeof(P) % 4 == 0;
    static_assert(plain,
                  "pare: a row reduction that is not plain data: threads of a GPU hand it and its "
                  "partial to each other in 4-byte words; write trivially copyable types of whole "
                  "words, for instance kernels::Sums<double, 1>");
    if constexpr (plain)
      static_assert(RowReduction<R>,
                    "pare: a row reduction that lacks an operation: the type does not model "
                    "kernels::RowReduction; write columns(), add(row, column, partial) and "
                    "finish(row, total), all const, and partial::merge(other)");
  }
  return true;
}

/// Reduces one row, from its first column to its last: the loop of the hosts.
template <class R>
void reduce_row(const R& reduction, index_t row) {
  static_assert(check_reduction<R>());
  if constexpr (RowReduction<R>) {
    typename R::partial total{};
    const index_t columns = reduction.columns();
    for (index_t j = 0; j < columns; ++j) reduction.add(row, j, total);
    reduction.finish(row, total);
  }
}

}  // namespace pare::kernels
