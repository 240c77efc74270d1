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

/// Reduces one row, from its first column to its last: the loop of the hosts.
template <class R>
void reduce_row(const R& reduction, index_t row) {
  typename R::partial total{};
  const index_t columns = reduction.columns();
  for (index_t j = 0; j < columns; ++j) reduction.add(row, j, total);
  reduction.finish(row, total);
}

}  // namespace pare::kernels
