// The primitives of a model's forward pass for backends in host memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/backend/host.hpp"
#include "pare/backend/host_kernels.hpp"
#include "pare/backend/host_packed.hpp"
#include "pare/kernels/activations.hpp"
#include "pare/kernels/attention.hpp"

namespace pare::inline PARE_TARGET::backend {

/// What ModelBackend asks for. Work is cut into tasks of fixed size, each of which runs on one
/// core: results do not depend on the number of cores.
/// @tparam Tasks    how tasks run, like OpenMPTasks
/// @tparam Kernels  what a task does, see HostKernels
template <class Tasks, class Kernels>
struct HostModelOps : HostPackedOps {
  /// Y = X W^T + bias for X (tokens, in) and W (out, in); bias may have no rows.
  template <class T>
  static void linear(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> W,
                     MatrixView<const T> bias) {
    // At least two tasks, for the sake of small products.
    const index_t rows = Y.rows > tile_rows || Y.cols > tile_cols
                             ? tile_rows
                             : std::max<index_t>(1, (Y.rows + 1) / 2);
    const index_t wide = (Y.cols + tile_cols - 1) / tile_cols;
    const index_t high = (Y.rows + rows - 1) / rows;
    Tasks::run(high * wide, [&](index_t tile) {
      const index_t row = tile / wide * rows, height = std::min(rows, Y.rows - row);
      const index_t col = tile % wide * tile_cols, width = std::min(tile_cols, Y.cols - col);
      const MatrixView<T> y = Y.block(row, col, height, width);
      for (index_t i = 0; i < height; ++i)
        if (bias.rows > 0)
          std::copy_n(bias.data + col, width, y.row(i));
        else
          std::fill_n(y.row(i), width, T(0));
      Kernels::template product<Update::add>(y, X.block(row, 0, height, X.cols),
                                             transposed(W.block(col, 0, width, W.cols)));
    });
  }

  /// Every row of X to mean 0 and variance 1; Y may be X, weight and bias may have no rows.
  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon = 1e-5) {
    for_rows(X.rows, [&](index_t i) {
      Kernels::layer_norm(row_of(Y, i), row_of(X, i), weight, bias, epsilon);
    });
  }

  /// Every row of X to a mean square of 1, times offset + weight; Y may be X, weight may have no
  /// rows.
  template <class T>
  static void rms_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                       double epsilon, double offset) {
    for_rows(X.rows, [&](index_t i) {
      Kernels::rms_norm(row_of(Y, i), row_of(X, i), weight, epsilon, offset);
    });
  }

  /// Causal attention, see ModelBackend; slopes may have no rows.
  template <class T>
  static void attention(MatrixView<T> out, MatrixView<const T> q, MatrixView<const T> k,
                        MatrixView<const T> v, MatrixView<const T> slopes,
                        const kernels::AttentionShape& shape) {
    const index_t width = shape.head_dim, seqlen = shape.seqlen, windows = q.rows / seqlen;
    const index_t blocks = (seqlen + query_rows - 1) / query_rows;
    Tasks::run(windows * shape.heads * blocks, [&](index_t task) {
      const index_t head = task / blocks % shape.heads, begin = task % blocks * query_rows;
      const index_t height = std::min(query_rows, seqlen - begin);
      // Keys that one of these queries sees.
      const index_t oldest = shape.oldest(begin), seen = begin + height - oldest;
      const index_t first = task / blocks / shape.heads * seqlen;
      const index_t q_col = head * shape.q_step, kv_col = shape.kv_head(head) * shape.kv_step;
      thread_local Matrix<T> buffer;
      buffer.resize(height, seen);
      const MatrixView<T> weights = buffer.view();
      Kernels::template product<Update::set>(weights, q.block(first + begin, q_col, height, width),
                                             transposed(
                                                 k.block(first + oldest, kv_col, seen, width)));
      T factors[query_rows];  // what makes the weights of a row sum to 1
      for (index_t r = 0; r < height; ++r) {
        const index_t from = shape.oldest(begin + r) - oldest, past = begin + r + 1 - oldest;
        const MatrixView<T> row = weights.block(r, from, 1, past - from);
        T scale = T(shape.scale);
        if (shape.soft_cap > 0 || slopes.rows > 0) {
          adjust_scores(row, shape, slopes.rows > 0 ? slopes(0, head) : T(0));
          scale = T(1);
        }
        factors[r] = T(1) / Kernels::exponentials(row, scale);
        std::fill_n(weights.row(r), from, T(0));
        std::fill_n(weights.row(r) + past, seen - past, T(0));
      }
      const MatrixView<T> mixed = out.block(first + begin, head * width, height, width);
      Kernels::template product<Update::set>(mixed, weights,
                                             v.block(first + oldest, kv_col, seen, width));
      for (index_t r = 0; r < height; ++r)
        for (index_t c = 0; c < width; ++c) mixed(r, c) *= factors[r];
    });
  }

  /// Y += X.
  template <class T>
  static void add(MatrixView<T> Y, MatrixView<const T> X) {
    for_rows(Y.rows, [&](index_t i) { add_row(Y.row(i), X.row(i), Y.cols); });
  }

  /// Y (tokens, dim) = the rows of `table` that `ids` (1, tokens) names.
  template <class T>
  static void embed_tokens(MatrixView<T> Y, MatrixView<const T> table,
                           MatrixView<const std::int32_t> ids) {
    for_rows(Y.rows,
             [&](index_t t) { std::copy_n(table.row(index_t(ids(0, t))), Y.cols, Y.row(t)); });
  }

  /// Row t of Y += row t % seqlen of table.
  template <class T>
  static void add_positions(MatrixView<T> Y, MatrixView<const T> table, index_t seqlen) {
    for_rows(Y.rows, [&](index_t t) { add_row(Y.row(t), table.row(t % seqlen), Y.cols); });
  }

  /// Sum of -log softmax(row)[target] over the rows with a target >= 0, in double.
  template <class T>
  static double cross_entropy(MatrixView<const T> logits, MatrixView<const std::int32_t> targets) {
    std::vector<double> losses(std::size_t(logits.rows), 0.0);
    for_rows(logits.rows, [&](index_t t) {
      if (targets(0, t) < 0) return;
      losses[std::size_t(t)] =
          Kernels::log_sum_exp(row_of(logits, t)) - double(logits(t, targets(0, t)));
    });
    double total = 0;  // in order, whatever thread was first
    for (const double loss : losses) total += loss;
    return total;
  }

 private:
  static constexpr index_t tile_rows = 256, tile_cols = 512;  ///< of one task of a product
  static constexpr index_t query_rows = 64;                   ///< queries done together
  static constexpr index_t rows_per_task = 32;                ///< of element-wise work

  template <class F>
  static void for_rows(index_t rows, const F& f) {
    run_in_chunks<Tasks>(rows, rows_per_task, f);
  }

  template <class T>
  static MatrixView<T> row_of(MatrixView<T> A, index_t r) {
    return A.block(r, 0, 1, A.cols);
  }

  /// Products of a query with the keys it sees, itself the last of them, to scores.
  template <class T>
  static void adjust_scores(MatrixView<T> row, const kernels::AttentionShape& shape, T slope) {
    for (index_t j = 0; j < row.cols; ++j) row(0, j) *= T(shape.scale);
    if (shape.soft_cap > 0) kernels::SoftCap<T>{row, shape.soft_cap}.row(0, row.cols);
    for (index_t j = 0; j < row.cols; ++j) row(0, j) += slope * T(j - (row.cols - 1));
  }

  /// y += x, both (n).
  template <class T>
  static void add_row(T* PARE_RESTRICT y, const T* PARE_RESTRICT x, index_t n) {
    for (index_t j = 0; j < n; ++j) y[j] += x[j];
  }
};

}  // namespace pare::backend
