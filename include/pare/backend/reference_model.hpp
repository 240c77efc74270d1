// The primitives of a model's forward pass as plain loops, the oracle of all others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::backend {

/// What ModelBackend asks for, as the textbook has it. Sums run in double.
struct ReferenceModelOps {
  /// @name Operations of pare::ModelBackend
  /// @{

  /// The concept pare::ModelBackend says what each operation does.
  template <class T>
  static void linear(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> W,
                     MatrixView<const T> bias) {
    for (index_t i = 0; i < Y.rows; ++i)
      for (index_t j = 0; j < Y.cols; ++j) {
        double sum = bias.rows > 0 ? double(bias(0, j)) : 0;
        for (index_t k = 0; k < X.cols; ++k) sum += double(X(i, k)) * double(W(j, k));
        Y(i, j) = T(compute_scalar<T>(sum));
      }
  }

  template <class T>
  static void layer_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                         MatrixView<const T> bias, double epsilon = 1e-5) {
    for (index_t i = 0; i < X.rows; ++i) {
      double mean = 0, variance = 0;
      for (index_t j = 0; j < X.cols; ++j) mean += double(X(i, j));
      mean /= double(X.cols);
      for (index_t j = 0; j < X.cols; ++j) {
        const double d = double(X(i, j)) - mean;
        variance += d * d;
      }
      const double factor = 1 / std::sqrt(variance / double(X.cols) + epsilon);
      for (index_t j = 0; j < X.cols; ++j) {
        const double normal = (double(X(i, j)) - mean) * factor;
        Y(i, j) = T(compute_scalar<T>(normal * (weight.rows > 0 ? double(weight(0, j)) : 1) +
                                      (bias.rows > 0 ? double(bias(0, j)) : 0)));
      }
    }
  }

  template <class T>
  static void causal_attention(MatrixView<T> out, MatrixView<const T> q, MatrixView<const T> k,
                               MatrixView<const T> v, index_t heads, index_t seqlen) {
    const index_t width = q.cols / heads;
    std::vector<double> weights(std::size_t(seqlen), 0.0);
    for (index_t t = 0; t < q.rows; ++t) {
      const index_t first = t - t % seqlen, seen = t % seqlen + 1;
      for (index_t column = 0; column < q.cols; column += width) {
        for (index_t s = 0; s < seen; ++s) {
          double score = 0;
          for (index_t c = column; c < column + width; ++c)
            score += double(q(t, c)) * double(k(first + s, c));
          weights[std::size_t(s)] = score / std::sqrt(double(width));
        }
        const double largest = *std::max_element(weights.begin(), weights.begin() + seen);
        double sum = 0;
        for (index_t s = 0; s < seen; ++s)
          sum += weights[std::size_t(s)] = std::exp(weights[std::size_t(s)] - largest);
        for (index_t c = column; c < column + width; ++c) {
          double mixed = 0;
          for (index_t s = 0; s < seen; ++s)
            mixed += weights[std::size_t(s)] * double(v(first + s, c));
          out(t, c) = T(compute_scalar<T>(mixed / sum));
        }
      }
    }
  }

  template <class T>
  static void relu(MatrixView<T> X) {
    // Written so that a NaN stays one.
    for (index_t i = 0; i < X.rows; ++i)
      for (index_t j = 0; j < X.cols; ++j) X(i, j) = double(X(i, j)) < 0 ? T(0) : X(i, j);
  }

  template <class T>
  static void add(MatrixView<T> Y, MatrixView<const T> X) {
    for (index_t i = 0; i < Y.rows; ++i)
      for (index_t j = 0; j < Y.cols; ++j)
        Y(i, j) = T(compute_scalar<T>(double(Y(i, j)) + double(X(i, j))));
  }

  template <class T>
  static void embed_tokens(MatrixView<T> Y, MatrixView<const T> table,
                           MatrixView<const std::int32_t> ids) {
    for (index_t t = 0; t < Y.rows; ++t)
      std::copy_n(table.row(index_t(ids(0, t))), Y.cols, Y.row(t));
  }

  template <class T>
  static void add_positions(MatrixView<T> Y, MatrixView<const T> table, index_t seqlen) {
    for (index_t t = 0; t < Y.rows; ++t)
      for (index_t j = 0; j < Y.cols; ++j)
        Y(t, j) = T(compute_scalar<T>(double(Y(t, j)) + double(table(t % seqlen, j))));
  }

  template <class T>
  static double cross_entropy(MatrixView<const T> logits, MatrixView<const std::int32_t> targets) {
    double total = 0;
    for (index_t t = 0; t < logits.rows; ++t) {
      if (targets(0, t) < 0) continue;
      const T* row = logits.row(t);
      double largest = double(row[0]), sum = 0;
      for (index_t j = 1; j < logits.cols; ++j) largest = std::max(largest, double(row[j]));
      for (index_t j = 0; j < logits.cols; ++j) sum += std::exp(double(row[j]) - largest);
      total += std::log(sum) + largest - double(row[targets(0, t)]);
    }
    return total;
  }
  /// @}
};

}  // namespace pare::backend
