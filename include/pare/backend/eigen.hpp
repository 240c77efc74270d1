// The Eigen backend: host memory, all cores, Eigen's products.
#pragma once

#include <algorithm>
#include <vector>

#include "pare/backend/eigen_factor.hpp"
#include "pare/backend/eigen_model.hpp"
#include "pare/backend/eigen_select.hpp"
#include "pare/backend/host.hpp"
#include "pare/solver/sweep.hpp"

namespace pare::backend {

/// Uses every core that OpenMP gives it; results do not depend on how many that are.
struct Eigen : HostMemory, EigenModelOps {
  static constexpr std::string_view name = "eigen";
  template <class T>
  static constexpr bool supports = std::is_same_v<T, float> || std::is_same_v<T, double>;

  template <class F>
  static void for_each_row(index_t n, const F& f) {
    const index_t tasks = (n + rows_per_task - 1) / rows_per_task;
    detail::host_parallel_for(tasks, [&](index_t task) {
      const index_t end = std::min(n, (task + 1) * rows_per_task);
      for (index_t i = task * rows_per_task; i < end; ++i) f(i);
    });
  }
  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    for_each_row(rows, [&](index_t r) {
      for (index_t c = 0; c < cols; ++c) f(r, c);
    });
  }

  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    std::vector<index_t> found(std::size_t(A.rows), -1);
    for_each_row(A.rows, [&](index_t r) {
      const T* row = A.row(r);
      // x - x is zero for finite x and NaN otherwise; sums of it vectorise.
      T sums[lanes<T>] = {};
      index_t c = 0;
      for (; c + lanes<T> <= A.cols; c += lanes<T>)
        for (int l = 0; l < lanes<T>; ++l) sums[l] += row[c + l] - row[c + l];
      for (; c < A.cols; ++c) sums[0] += row[c] - row[c];
      T sum = 0;
      for (const T s : sums) sum += s;
      if (sum == T(0)) return;
      for (c = 0; std::isfinite(row[c]);) ++c;
      found[std::size_t(r)] = c;
    });
    for (index_t r = 0; r < A.rows; ++r)
      if (found[std::size_t(r)] >= 0) return r * A.cols + found[std::size_t(r)];
    return -1;
  }

  template <class T>
  static void column_moments(MatrixView<const T> X, MatrixView<double> moments) {
    constexpr index_t strip = 64;
    detail::host_parallel_for((X.cols + strip - 1) / strip, [&](index_t s) {
      const index_t begin = s * strip, width = std::min(strip, X.cols - begin);
      double magnitude[strip] = {}, mean[strip] = {}, squares[strip] = {};
      for (index_t t = 0; t < X.rows; ++t) {
        const T* PARE_RESTRICT x = X.row(t) + begin;
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
        const T* PARE_RESTRICT x = X.row(t) + begin;
        for (index_t j = 0; j < width; ++j) {
          const double d = double(x[j]) - mean[j];
          squares[j] += d * d;
        }
      }
      for (index_t j = 0; j < width; ++j) {
        moments(0, begin + j) = magnitude[j];
        moments(1, begin + j) = mean[j];
        moments(2, begin + j) = squares[j];
      }
    });
  }

  template <class T>
  static void gram_accumulate(MatrixView<T> G, MatrixView<const T> X) {
    // Tiles on and above the diagonal, mirrored: half the arithmetic of a full product.
    const index_t n = G.rows, tile = n <= 1024 ? 128 : 256;
    const index_t side = (n + tile - 1) / tile;
    const auto x = eigen_detail::map(X);
    std::vector<std::pair<index_t, index_t>> tiles;
    for (index_t i = 0; i < side; ++i)
      for (index_t j = i; j < side; ++j) tiles.emplace_back(i * tile, j * tile);
    detail::host_parallel_for(index_t(tiles.size()), [&](index_t at) {
      const auto [row, col] = tiles[std::size_t(at)];
      const index_t height = std::min(tile, n - row), width = std::min(tile, n - col);
      auto g = eigen_detail::map(G.block(row, col, height, width));
      g.noalias() += x.middleCols(row, height).transpose() * x.middleCols(col, width);
      if (row == col)
        g.template triangularView<::Eigen::StrictlyLower>() = g.transpose();
      else
        eigen_detail::map(G.block(col, row, width, height)) = g.transpose();
    });
  }

  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    if (!eigen_detail::blocked_reversed_cholesky(A)) return false;
    eigen_detail::blocked_upper_inverse(A);
    return true;
  }

  template <class T>
  static void multiply(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    row_panels(C.rows, [&](index_t row, index_t height) {
      eigen_detail::map(C.block(row, 0, height, C.cols)).noalias() =
          eigen_detail::map(A.block(row, 0, height, A.cols)) * eigen_detail::map(B);
    });
  }

  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> E, MatrixView<const T> U) {
    row_panels(W.rows, [&](index_t row, index_t height) {
      eigen_detail::map(W.block(row, 0, height, W.cols)).noalias() -=
          eigen_detail::map(E.block(row, 0, height, E.cols)) * eigen_detail::map(U);
    });
  }

  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    eigen_detail::radix_select(W, d, k, mask);
  }

  /// Tiles of rows side by side, so that the compiler vectorises across rows.
  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    using T = typename Sweep::scalar_type;
    constexpr index_t width = 2 * lanes<T>;
    const index_t rows = sweep.weights.rows, count = sweep.weights.cols;
    detail::host_parallel_for((rows + width - 1) / width, [&](index_t tile) {
      const index_t row = tile * width;
      if (row + width > rows) {
        for (index_t i = row; i < rows; ++i) sweep(i);
        return;
      }
      thread_local Matrix<T> panels;               // weights and errors, (2 block, width)
      thread_local Matrix<std::uint8_t> mask;      // (block, width)
      panels.resize(2 * count, width);
      mask.resize(count, width);
      T* w = panels.data();
      T* e = w + count * width;
      for (index_t l = 0; l < width; ++l)
        for (index_t j = 0; j < count; ++j) {
          w[j * width + l] = sweep.weights(row + l, j);
          if constexpr (Sweep::mask_source == MaskSource::given)
            mask.data()[j * width + l] = sweep.mask(row + l, j);
        }
      sweep.template sweep<int(width)>(row, w, e, mask.data());
      for (index_t l = 0; l < width; ++l)
        for (index_t j = 0; j < count; ++j) {
          sweep.weights(row + l, j) = w[j * width + l];
          sweep.errors(row + l, j) = e[j * width + l];
          if constexpr (Sweep::mask_source == MaskSource::groups)
            sweep.mask(row + l, j) = mask.data()[j * width + l];
        }
    });
  }

 private:
  static constexpr index_t rows_per_task = 16;
  /// Elements of a 64-byte vector.
  template <class T>
  static constexpr int lanes = int(64 / sizeof(T));

  /// f(first row, rows) over panels of rows whose borders depend on the shape only, so that no byte
  /// of a product depends on the number of threads.
  template <class F>
  static void row_panels(index_t rows, const F& f) {
    const index_t height = rows < 2048 ? 128 : 256;
    detail::host_parallel_for((rows + height - 1) / height, [&](index_t task) {
      f(task * height, std::min(height, rows - task * height));
    });
  }
};

}  // namespace pare::backend
