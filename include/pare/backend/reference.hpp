// The reference backend: plain sequential loops, the oracle of all others.
#pragma once

#include <algorithm>
#include <vector>

#include "pare/backend/host.hpp"
#include "pare/backend/reference_model.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/reduction.hpp"
#include "pare/kernels/sweep.hpp"

namespace pare::inline PARE_TARGET::backend {

/// Every primitive as the textbook has it. Sums run in double.
struct Reference : HostMemory, ReferenceModelOps {
  /// @name Operations of pare::Backend
  /// @{

  /// The concept pare::Backend says what each operation does.
  static constexpr std::string_view name = "reference";
  template <class T>
  static constexpr bool supports = std::is_same_v<T, float> || std::is_same_v<T, double>;
  template <class S>
  static constexpr bool stores = supports<S> || is_storage_only<S>;

  template <class F>
  static void for_each_row(index_t n, const F& f) {
    for (index_t i = 0; i < n; ++i) f(i);
  }
  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < cols; ++c) f(r, c);
  }

  template <class R>
  static void reduce_rows(index_t n, const R& reduction) {
    for (index_t i = 0; i < n; ++i) kernels::reduce_row(reduction, i);
  }
  template <class T>
  static void fit_grids(const kernels::GridFit<T>& fit) {
    for (index_t i = 0; i < fit.weights.rows; ++i) kernels::fit_row(fit, i);
  }

  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    for (index_t r = 0; r < A.rows; ++r)
      for (index_t c = 0; c < A.cols; ++c)
        if (!std::isfinite(double(A(r, c)))) return r * A.cols + c;
    return -1;
  }

  template <class T>
  static void column_moments(MatrixView<const T> X, MatrixView<double> moments) {
    for (index_t j = 0; j < X.cols; ++j) {
      double magnitude = 0, sum = 0, squares = 0;
      for (index_t t = 0; t < X.rows; ++t) {
        magnitude += std::abs(double(X(t, j)));
        sum += double(X(t, j));
      }
      const double mean = sum / double(X.rows);
      for (index_t t = 0; t < X.rows; ++t) {
        const double d = double(X(t, j)) - mean;
        squares += d * d;
      }
      moments(0, j) = magnitude / double(X.rows);
      moments(1, j) = mean;
      moments(2, j) = squares;
    }
  }

  template <class T, class S>
  static void gram_accumulate(MatrixView<T> G, MatrixView<const S> X) {
    for (index_t i = 0; i < G.rows; ++i)
      for (index_t j = 0; j < G.cols; ++j) {
        double sum = 0;
        for (index_t t = 0; t < X.rows; ++t) sum += double(X(t, i)) * double(X(t, j));
        G(i, j) += T(sum);
      }
  }

  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    const index_t n = A.rows;
    // R from the last column to the first: A = R R^T.
    for (index_t j = n; j-- > 0;) {
      double pivot = double(A(j, j));
      for (index_t k = j + 1; k < n; ++k) pivot -= double(A(j, k)) * double(A(j, k));
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      A(j, j) = T(std::sqrt(pivot));
      for (index_t i = 0; i < j; ++i) {
        double sum = double(A(i, j));
        for (index_t k = j + 1; k < n; ++k) sum -= double(A(i, k)) * double(A(j, k));
        A(i, j) = T(sum / double(A(j, j)));
      }
    }
    // U = inv(R), column by column: U_ij = -(sum_{i<k<=j} R_ik U_kj) / R_ii.
    std::vector<double> column(static_cast<std::size_t>(n));
    Matrix<T> U(n, n);
    for (index_t j = 0; j < n; ++j) {
      column[std::size_t(j)] = 1 / double(A(j, j));
      for (index_t i = j; i-- > 0;) {
        double sum = 0;
        for (index_t k = i + 1; k <= j; ++k) sum += double(A(i, k)) * column[std::size_t(k)];
        column[std::size_t(i)] = -sum / double(A(i, i));
      }
      for (index_t i = 0; i <= j; ++i) U(i, j) = T(column[std::size_t(i)]);
    }
    copy(MatrixView<const T>(U.view()), A);
    return true;
  }

  template <class T>
  static void multiply(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    for (index_t i = 0; i < C.rows; ++i)
      for (index_t j = 0; j < C.cols; ++j) {
        double sum = 0;
        for (index_t k = 0; k < A.cols; ++k) sum += double(A(i, k)) * double(B(k, j));
        C(i, j) = T(sum);
      }
  }

  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> E, MatrixView<const T> U) {
    for (index_t i = 0; i < W.rows; ++i)
      for (index_t j = 0; j < W.cols; ++j) {
        double sum = 0;
        for (index_t k = 0; k < E.cols; ++k) sum += double(E(i, k)) * double(U(k, j));
        W(i, j) -= T(sum);
      }
  }

  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    std::vector<T> score;
    std::vector<index_t> rank;
    for (index_t r = 0; r < W.rows; ++r)
      for (index_t c = 0; c < W.cols; ++c) {
        rank.push_back(index_t(score.size()));
        score.push_back(std::abs(W(r, c)) / d(0, c));
        mask(r, c) = 0;
      }
    std::stable_sort(rank.begin(), rank.end(), [&](index_t a, index_t b) {
      return score[std::size_t(a)] < score[std::size_t(b)];
    });
    for (index_t i = 0; i < k; ++i) {
      const index_t at = rank[std::size_t(i)];
      mask(at / W.cols, at % W.cols) = 1;
    }
  }

  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    for (index_t i = 0; i < sweep.weights.rows; ++i) sweep(i);
  }
  /// @}
};

}  // namespace pare::backend
