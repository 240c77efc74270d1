// The exact k smallest scores of a block by radix selection on all cores.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/core/config.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend::host_detail {

/// Bits of a non-negative number; they order as the numbers do.
inline std::uint32_t ordered_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
inline std::uint64_t ordered_bits(double x) { return std::bit_cast<std::uint64_t>(x); }

inline constexpr int radix_digit_bits = 11, radix_buckets = 1 << radix_digit_bits;

/// Buffers of one selection.
template <class Key>
struct RadixScratch {
  std::vector<Key> keys;                                             // (rows * cols)
  std::vector<std::array<std::uint32_t, radix_buckets>> histograms;  ///< one per task
  std::vector<index_t> ties;                                         // (rows)
};

/// Marks the k smallest |w| / d_j of W; ties go to the lower row-major index.
///
/// The k-th smallest key is found digit by digit from histograms, so the cost is a few passes
/// whatever the distribution.
template <class T>
void radix_select(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                  MatrixView<std::uint8_t> mask) {
  using Key = decltype(ordered_bits(T{}));
  constexpr int digit_bits = radix_digit_bits, buckets = radix_buckets;
  constexpr int key_bits = int(sizeof(Key)) * 8;
  const index_t rows = W.rows, cols = W.cols;
  const index_t tasks = std::min<index_t>(rows, detail::max_threads());
  const auto first_row = [&](index_t task) { return task * rows / tasks; };

  // Kept from block to block; a reference, because each worker would see a copy of its own.
  thread_local RadixScratch<Key> own;
  RadixScratch<Key>& scratch = own;
  scratch.keys.resize(std::size_t(rows * cols));
  scratch.ties.resize(std::size_t(rows));
  scratch.histograms.resize(std::size_t(tasks));
  Key* const key = scratch.keys.data();
  auto& histograms = scratch.histograms;
  auto& ties = scratch.ties;
  detail::host_parallel_for(tasks, [&](index_t task) {
    for (index_t r = first_row(task); r < first_row(task + 1); ++r) {
      const T* PARE_RESTRICT w = W.row(r);
      for (index_t c = 0; c < cols; ++c) key[r * cols + c] = ordered_bits(std::abs(w[c]) / d(0, c));
    }
  });

  Key prefix = 0;      // leading digits of the k-th smallest key
  index_t wanted = k;  // how many of the keys with that prefix are still to be taken
  for (int shift = key_bits, digit = 0; k > 0 && shift > 0; ++digit) {
    const int above = shift;
    shift = std::max(0, shift - digit_bits);
    const Key digit_mask = Key((Key(1) << (above - shift)) - 1);
    detail::host_parallel_for(tasks, [&](index_t task) {
      auto& histogram = histograms[std::size_t(task)];
      histogram.fill(0);
      for (index_t i = first_row(task) * cols; i < first_row(task + 1) * cols; ++i)
        if (digit == 0 || (key[i] >> above) == (prefix >> above))
          ++histogram[std::size_t((key[i] >> shift) & digit_mask)];
    });
    for (int b = 0; b < buckets; ++b) {
      index_t count = 0;
      for (const auto& histogram : histograms) count += histogram[std::size_t(b)];
      if (wanted <= count) {
        prefix |= Key(b) << shift;
        break;
      }
      wanted -= count;
    }
  }

  detail::host_parallel_for(tasks, [&](index_t task) {
    for (index_t r = first_row(task); r < first_row(task + 1); ++r) {
      std::uint8_t* m = mask.row(r);
      index_t equal = 0;
      for (index_t c = 0; c < cols; ++c) {
        m[c] = k > 0 && key[r * cols + c] < prefix;
        equal += key[r * cols + c] == prefix;
      }
      ties[std::size_t(r)] = equal;
    }
  });
  for (index_t r = 0; r < rows && wanted > 0; ++r)
    for (index_t c = 0; ties[std::size_t(r)] > 0 && c < cols && wanted > 0; ++c)
      if (key[r * cols + c] == prefix) {
        mask(r, c) = 1;
        --wanted;
      }
}

}  // namespace pare::backend::host_detail
