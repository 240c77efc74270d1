// The primitives of calibration and solver for backends in host memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "pare/backend/host.hpp"
#include "pare/backend/host_factor.hpp"
#include "pare/backend/host_kernels.hpp"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/reduction.hpp"
#include "pare/kernels/sweep.hpp"

namespace pare::inline PARE_TARGET::backend {

namespace host_detail {

/// Elements of a 64-byte vector.
template <class T>
inline constexpr int lanes = int(64 / sizeof(T));

/// Column of the first NaN or infinity of a row, -1 when none.
template <class T>
index_t first_non_finite(const T* row, index_t cols) {
  // x - x is zero for finite x and NaN otherwise; sums of it vectorise.
  T sums[lanes<T>] = {};
  index_t c = 0;
  for (; c + lanes<T> <= cols; c += lanes<T>)
    for (int l = 0; l < lanes<T>; ++l) sums[l] += row[c + l] - row[c + l];
  for (; c < cols; ++c) sums[0] += row[c] - row[c];
  T sum = 0;
  for (const T s : sums) sum += s;
  if (sum == T(0)) return -1;
  for (c = 0; std::isfinite(row[c]);) ++c;
  return c;
}

}  // namespace host_detail

/// What Backend asks for, but for select_smallest. Work is cut into tasks whose borders depend on
/// shapes only, so that no byte of a result depends on the number of threads.
/// @tparam Tasks    how tasks run, like OpenMPTasks
/// @tparam Kernels  what a task does, see HostKernels
template <class Tasks, class Kernels>
struct HostNumericOps {
  /// Whether matrices of T are computed with.
  template <class T>
  static constexpr bool supports = std::is_same_v<T, float> || std::is_same_v<T, double>;

  /// f(row) for every row, neighbouring rows in one task.
  template <class F>
  static void for_each_row(index_t n, const F& f) {
    run_in_chunks<Tasks>(n, rows_per_task, f);
  }
  /// f(row, col) for every element, a row in one task.
  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    for_each_row(rows, [&](index_t r) {
      if constexpr (kernels::HasRowForm<F>)
        f.row(r, cols);
      else
        for (index_t c = 0; c < cols; ++c) f(r, c);
    });
  }

  /// A row reduction, every row from its first column to its last.
  template <class R>
  static void reduce_rows(index_t n, const R& reduction) {
    for_each_row(n, [&](index_t r) { kernels::reduce_row(reduction, r); });
  }
  /// The grids of all rows, neighbouring rows in one task.
  template <class T>
  static void fit_grids(const kernels::GridFit<T>& fit) {
    for_each_row(fit.weights.rows, [&](index_t r) { kernels::fit_row(fit, r); });
  }

  /// Flat index of the first NaN or infinity, -1 when none.
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    std::vector<index_t> found(std::size_t(A.rows));
    for_each_row(A.rows, [&](index_t r) {
      found[std::size_t(r)] = host_detail::first_non_finite(A.row(r), A.cols);
    });
    for (index_t r = 0; r < A.rows; ++r)
      if (found[std::size_t(r)] >= 0) return r * A.cols + found[std::size_t(r)];
    return -1;
  }

  /// moments (3, in) = mean |x|, mean x, sum of squared deviations of X (tokens, in).
  template <class T>
  static void column_moments(MatrixView<const T> X, MatrixView<double> moments) {
    constexpr index_t strip = 32;  // its sums stay in registers
    Tasks::run((X.cols + strip - 1) / strip, [&](index_t s) {
      const index_t begin = s * strip, width = std::min(strip, X.cols - begin);
      if (width == strip)
        strip_moments<strip>(X.columns(begin, strip), moments.columns(begin, strip));
      else
        for (index_t c = begin; c < X.cols; ++c)
          strip_moments<1>(X.columns(c, 1), moments.columns(c, 1));
    });
  }

  /// G (in, in) += X^T X for X (tokens, in).
  template <class T>
  static void gram_accumulate(MatrixView<T> G, MatrixView<const T> X) {
    // Tiles on and above the diagonal, mirrored: half the arithmetic of a full product. Those on it
    // come last, as they are the small ones, and are cut into strips: little below it is computed.
    constexpr index_t strip = 96;  // two blocks of AVX-512 registers; tiles are whole strips
    const index_t n = G.rows, tile = n <= 1024 ? 2 * strip : 3 * strip;
    const index_t side = (n + tile - 1) / tile;
    std::vector<std::pair<index_t, index_t>> tiles;
    for (index_t off = side; off-- > 0;)
      for (index_t i = 0; i + off < side; ++i) tiles.emplace_back(i * tile, (i + off) * tile);
    Tasks::run(index_t(tiles.size()), [&](index_t at) {
      const auto [row, col] = tiles[std::size_t(at)];
      const bool diagonal = row == col;
      const index_t height = std::min(tile, n - row), width = std::min(tile, n - col);
      const index_t step = diagonal ? strip : height;
      for (index_t i = 0; i < height; i += step) {
        const index_t high = std::min(step, height - i), left = diagonal ? i : 0;
        Kernels::template product<Update::add>(G.block(row + i, col + left, high, width - left),
                                               transposed(X.columns(row + i, high)),
                                               X.columns(col + left, width - left));
      }
      for (index_t j = 0; j < width; ++j)
        for (index_t i = 0; i < (diagonal ? j : height); ++i)
          G(col + j, row + i) = G(row + i, col + j);
    });
  }

  /// Overwrites A (n, n) with U of inv(A) = U^T U; false when A is not positive definite.
  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    if (!host_detail::blocked_reversed_cholesky<Tasks, Kernels>(A)) return false;
    host_detail::blocked_upper_inverse<Tasks, Kernels>(A);
    return true;
  }

  /// C = A B.
  template <class T>
  static void multiply(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    panel_product<Update::set>(C, A, B);
  }

  /// W -= E U.
  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> E, MatrixView<const T> U) {
    panel_product<Update::subtract>(W, E, U);
  }

  /// Tiles of rows side by side, so that the compiler vectorises across rows.
  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    using T = typename Sweep::scalar_type;
    constexpr index_t width = 2 * host_detail::lanes<T>;
    const index_t rows = sweep.weights.rows, count = sweep.weights.cols;
    Tasks::run((rows + width - 1) / width, [&](index_t tile) {
      const index_t row = tile * width;
      if (row + width > rows) {
        for (index_t i = row; i < rows; ++i) sweep(i);
        return;
      }
      thread_local Matrix<T> panels;           // weights and errors, (2 block, width)
      thread_local Matrix<std::uint8_t> mask;  // (block, width)
      panels.resize(2 * count, width);
      mask.resize(count, width);
      T* w = panels.data();
      T* e = w + count * width;
      for (index_t l = 0; l < width; ++l)
        for (index_t j = 0; j < count; ++j) {
          w[j * width + l] = sweep.weights(row + l, j);
          if constexpr (Sweep::mask_source == kernels::MaskSource::given ||
                        Sweep::mask_source == kernels::MaskSource::n_of_m_beside)
            mask.data()[j * width + l] = sweep.mask(row + l, j);
        }
      sweep.template sweep<int(width)>(row, w, e, mask.data());
      for (index_t l = 0; l < width; ++l)
        for (index_t j = 0; j < count; ++j) {
          sweep.weights(row + l, j) = w[j * width + l];
          sweep.errors(row + l, j) = e[j * width + l];
          if constexpr (Sweep::mask_source == kernels::MaskSource::n_of_m ||
                        Sweep::mask_source == kernels::MaskSource::n_of_m_beside)
            sweep.mask(row + l, j) = mask.data()[j * width + l];
        }
    });
  }

 private:
  static constexpr index_t rows_per_task = 16;

  /// The moments (3, width) of X (tokens, width).
  template <index_t width, class T>
  static void strip_moments(MatrixView<const T> X, MatrixView<double> moments) {
    double magnitude[width] = {}, mean[width] = {}, squares[width] = {};
    for (index_t t = 0; t < X.rows; ++t) {
      const T* PARE_RESTRICT x = X.row(t);
      for (index_t j = 0; j < width; ++j) {
        magnitude[j] += std::abs(double(x[j]));
        mean[j] += double(x[j]);
      }
    }
    for (index_t j = 0; j < width; ++j) {
      magnitude[j] /= double(X.rows);
      mean[j] /= double(X.rows);
    }
    for (index_t t = 0; t < X.rows; ++t) {
      const T* PARE_RESTRICT x = X.row(t);
      for (index_t j = 0; j < width; ++j) {
        const double d = double(x[j]) - mean[j];
        squares[j] += d * d;
      }
    }
    for (index_t j = 0; j < width; ++j) {
      moments(0, j) = magnitude[j];
      moments(1, j) = mean[j];
      moments(2, j) = squares[j];
    }
  }

  template <Update update, class T>
  static void panel_product(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    const index_t height = C.rows < 2048 ? 96 : 256;
    Tasks::run((C.rows + height - 1) / height, [&](index_t task) {
      const index_t row = task * height, rows = std::min(height, C.rows - row);
      Kernels::template product<update>(C.block(row, 0, rows, C.cols),
                                        A.block(row, 0, rows, A.cols), B);
    });
  }
};

}  // namespace pare::backend
