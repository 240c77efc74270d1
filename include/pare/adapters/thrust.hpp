// Views of what Thrust's vectors hold, in the memory of the host or of a device.
#pragma once

#include "pare/core/matrix.hpp"

// Thrust reads what config.hpp sets.
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

namespace pare::inline PARE_TARGET {

/// A view of numbers in the memory of the device that Thrust was compiled for.
/// @param numbers     row by row
/// @param rows, cols  their shape
/// @return            (rows, cols) for a backend of the same memory; valid as long as the numbers
/// @throws shape_error unless there are rows * cols numbers
template <class T, class Allocator>
MatrixView<T> view(thrust::device_vector<T, Allocator>& numbers, index_t rows, index_t cols) {
  require_count("numbers", rows, cols, index_t(numbers.size()));
  return {thrust::raw_pointer_cast(numbers.data()), rows, cols};
}
/// The same of numbers that are only read.
template <class T, class Allocator>
MatrixView<const T> view(const thrust::device_vector<T, Allocator>& numbers, index_t rows,
                         index_t cols) {
  require_count("numbers", rows, cols, index_t(numbers.size()));
  return {thrust::raw_pointer_cast(numbers.data()), rows, cols};
}

/// The same of numbers in host memory.
template <class T, class Allocator>
MatrixView<T> view(thrust::host_vector<T, Allocator>& numbers, index_t rows, index_t cols) {
  require_count("numbers", rows, cols, index_t(numbers.size()));
  return {thrust::raw_pointer_cast(numbers.data()), rows, cols};
}
/// The same of numbers in host memory that are only read.
template <class T, class Allocator>
MatrixView<const T> view(const thrust::host_vector<T, Allocator>& numbers, index_t rows,
                         index_t cols) {
  require_count("numbers", rows, cols, index_t(numbers.size()));
  return {thrust::raw_pointer_cast(numbers.data()), rows, cols};
}

}  // namespace pare
