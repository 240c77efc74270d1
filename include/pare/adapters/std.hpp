// Views of numbers that the standard library holds: std::vector, std::array, std::span, mdspan.
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <string>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// An mdspan over memory, of the standard library or of the reference implementation.
template <class A>
concept Mdspan = requires(const A& a) {
  typename A::element_type;
  typename A::mapping_type;
  { A::rank() } -> std::convertible_to<std::size_t>;
  { a.data_handle() } -> std::convertible_to<const typename A::element_type*>;
  a.extent(0);
  a.stride(0);
  a.mapping();
};

template <class A>
constexpr bool check_mdspan() {
  static_assert(A::rank() == 2,
                "pare: an mdspan that has not two sides: a view has rows and columns; write one "
                "with two extents");
  return A::rank() == 2;
}

}  // namespace detail

/// A view of numbers that lie side by side.
/// @param numbers     std::vector, std::array, std::span or another contiguous range, row by row
/// @param rows, cols  their shape
/// @return            (rows, cols); valid as long as the numbers
/// @throws shape_error unless there are rows * cols numbers
template <std::ranges::contiguous_range Numbers>
  requires std::ranges::sized_range<Numbers>
auto view(Numbers&& numbers, index_t rows, index_t cols) {
  static_assert(std::ranges::borrowed_range<Numbers>,
                "pare: view(numbers, rows, cols) of numbers that end before their view: give the "
                "list a name first");
  using T = std::remove_reference_t<std::ranges::range_reference_t<Numbers>>;
  require_count("numbers", rows, cols, index_t(std::ranges::size(numbers)));
  return MatrixView<T>(std::ranges::data(numbers), rows, cols);
}

/// A view of an mdspan with two extents.
/// @return (rows, cols); valid as long as its memory
/// @throws argument_error unless the numbers of a row lie side by side, as in layout_right
template <detail::Mdspan A>
MatrixView<typename A::element_type> view(const A& a) {
  static_assert(detail::check_mdspan<A>());
  const index_t rows = index_t(a.extent(0)), cols = index_t(a.extent(1));
  require_rows("mdspan", rows, cols, index_t(a.stride(0)), index_t(a.stride(1)));
  return {a.data_handle(), rows, cols, rows > 1 ? index_t(a.stride(0)) : cols};
}

/// The elements of an mdspan with two extents, copied row by row, whatever its layout.
template <detail::Mdspan A>
Matrix<std::remove_const_t<typename A::element_type>> row_major_copy(const A& a) {
  static_assert(detail::check_mdspan<A>());
  Matrix<std::remove_const_t<typename A::element_type>> result(index_t(a.extent(0)),
                                                               index_t(a.extent(1)));
  using I = typename A::index_type;
  for (index_t r = 0; r < result.rows(); ++r)
    for (index_t c = 0; c < result.cols(); ++c)
      result(r, c) = a.data_handle()[a.mapping()(I(r), I(c))];
  return result;
}

}  // namespace pare
