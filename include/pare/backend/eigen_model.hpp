// The primitives of a model's forward pass on Eigen's products, all cores.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/backend/eigen_factor.hpp"
#include "pare/core/config.hpp"
#include "pare/core/matrix.hpp"

namespace pare::backend {

/// What ModelBackend asks for. Work is cut into pieces of fixed size, each of which Eigen does on
/// one core: results do not depend on the number of cores.
struct EigenModelOps {
  template <class T>
  static void linear(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> W,
                     MatrixView<const T> bias) {
    // Never a single piece: alone, Eigen would spread it over the cores in its own way.
    const index_t rows = Y.rows > tile_rows || Y.cols > tile_cols
                             ? tile_rows
                             : std::max<index_t>(1, (Y.rows + 1) / 2);
    const index_t wide = (Y.cols + tile_cols - 1) / tile_cols;
    const index_t high = (Y.rows + rows - 1) / rows;
    detail::host_parallel_for(high * wide, [&](index_t tile) {
      const index_t row = tile / wide * rows, height = std::min(rows, Y.rows - row);
      const index_t col = tile % wide * tile_cols, width = std::min(tile_cols, Y.cols - col);
      auto y = eigen_detail::map(Y.block(row, col, height, width));
      // Eigen's product adds to what is there, so starting from the bias costs nothing.
      if (bias.rows > 0)
        y.rowwise() = eigen_detail::map(bias).row(0).segment(col, width);
      else
        y.setZero();
      y.noalias() += eigen_detail::map(X).middleRows(row, height) *
                     eigen_detail::map(W).middleRows(col, width).transpose();
    });
  }

  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon = 1e-5) {
    for_row_groups(X.rows, [&](index_t i) {
      const auto x = array(X, i);
      auto y = array(Y, i);
      const T mean = x.sum() / T(X.cols);
      const T variance = (x - mean).square().sum() / T(X.cols);
      const T factor = T(1) / std::sqrt(variance + T(epsilon));
      if (weight.rows > 0)
        y = (x - mean) * factor * array(weight, 0);
      else
        y = (x - mean) * factor;
      if (bias.rows > 0) y += array(bias, 0);
    });
  }

  template <class T>
  static void causal_attention(MatrixView<T> out, MatrixView<const T> q, MatrixView<const T> k,
                               MatrixView<const T> v, index_t heads, index_t seqlen) {
    const index_t width = q.cols / heads, windows = q.rows / seqlen;
    const index_t blocks = (seqlen + query_rows - 1) / query_rows;
    const T scale = T(1 / std::sqrt(double(width)));
    detail::host_parallel_for(windows * heads * blocks, [&](index_t task) {
      const index_t head = task / blocks, begin = task % blocks * query_rows;
      const index_t height = std::min(query_rows, seqlen - begin), seen = begin + height;
      const index_t first = head / heads * seqlen, col = head % heads * width;
      thread_local Matrix<T> buffer;
      buffer.resize(height, seen);
      const MatrixView<T> weights = buffer.view();
      auto scores = eigen_detail::map(weights);
      scores.noalias() = eigen_detail::map(q.block(first + begin, col, height, width)) *
                         eigen_detail::map(k.block(first, col, seen, width)).transpose();
      T factors[query_rows];  // what makes the weights of a row sum to 1
      for (index_t r = 0; r < height; ++r) {
        auto past = array(weights, r).head(begin + r + 1);
        const T largest = past.maxCoeff();
        past = ((past - largest) * scale).exp();
        factors[r] = T(1) / past.sum();
        array(weights, r).tail(height - r - 1).setZero();
      }
      auto mixed = eigen_detail::map(out.block(first + begin, col, height, width));
      mixed.noalias() = scores * eigen_detail::map(v.block(first, col, seen, width));
      for (index_t r = 0; r < height; ++r) mixed.row(r) *= factors[r];
    });
  }

  template <class T>
  static void relu(MatrixView<T> X) {
    for_row_groups(X.rows, [&](index_t i) {
      // Written so that a NaN stays one.
      T* PARE_RESTRICT x = X.row(i);
      for (index_t j = 0; j < X.cols; ++j) x[j] = x[j] < T(0) ? T(0) : x[j];
    });
  }

  template <class T>
  static void add(MatrixView<T> Y, MatrixView<const T> X) {
    for_row_groups(Y.rows, [&](index_t i) { array(Y, i) += array(X, i); });
  }

  template <class T>
  static void embed_tokens(MatrixView<T> Y, MatrixView<const T> table,
                           MatrixView<const std::int32_t> ids) {
    for_row_groups(Y.rows, [&](index_t t) {
      std::copy_n(table.row(index_t(ids(0, t))), Y.cols, Y.row(t));
    });
  }

  template <class T>
  static void add_positions(MatrixView<T> Y, MatrixView<const T> table, index_t seqlen) {
    for_row_groups(Y.rows, [&](index_t t) { array(Y, t) += array(table, t % seqlen); });
  }

  template <class T>
  static double cross_entropy(MatrixView<const T> logits, MatrixView<const std::int32_t> targets) {
    std::vector<double> losses(std::size_t(logits.rows), 0.0);
    for_row_groups(logits.rows, [&](index_t t) {
      if (targets(0, t) < 0) return;
      const auto row = array(logits, t);
      const T largest = row.maxCoeff();
      double sum = 0;  // of short sums in T, which keep their digits
      for (index_t j = 0; j < logits.cols; j += 256)
        sum += double((row.segment(j, std::min<index_t>(256, logits.cols - j)) - largest)
                          .exp().sum());
      losses[std::size_t(t)] = std::log(sum) + double(largest) - double(row[targets(0, t)]);
    });
    double total = 0;  // in order, whatever thread was first
    for (const double loss : losses) total += loss;
    return total;
  }

 private:
  static constexpr index_t tile_rows = 256, tile_cols = 512;  ///< of one task of a product
  static constexpr index_t query_rows = 64;                   ///< queries done together
  static constexpr index_t rows_per_task = 32;                ///< of element-wise work

  /// Row r of a view as an Eigen array.
  template <class T>
  static auto array(MatrixView<T> v, index_t r) {
    using Row = ::Eigen::Array<std::remove_const_t<T>, 1, ::Eigen::Dynamic>;
    return ::Eigen::Map<std::conditional_t<std::is_const_v<T>, const Row, Row>>(v.row(r), v.cols);
  }

  template <class F>
  static void for_row_groups(index_t rows, const F& f) {
    detail::host_parallel_for((rows + rows_per_task - 1) / rows_per_task, [&](index_t task) {
      const index_t end = std::min(rows, (task + 1) * rows_per_task);
      for (index_t i = task * rows_per_task; i < end; ++i) f(i);
    });
  }
};

}  // namespace pare::backend
