// The primitives of a model's forward pass as plain loops, the oracle of all others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/attention.hpp"
#include "pare/kernels/hadamard.hpp"

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
  static void rms_norm(MatrixView<T> Y, MatrixView<const T> X, MatrixView<const T> weight,
                       double epsilon, double offset) {
    for (index_t i = 0; i < X.rows; ++i) {
      double squares = 0;
      for (index_t j = 0; j < X.cols; ++j) squares += double(X(i, j)) * double(X(i, j));
      const double factor = 1 / std::sqrt(squares / double(X.cols) + epsilon);
      for (index_t j = 0; j < X.cols; ++j)
        Y(i, j) = T(compute_scalar<T>(double(X(i, j)) * factor *
                                      (weight.rows > 0 ? offset + double(weight(0, j)) : 1)));
    }
  }

  /// Y = X R^T or, turned back, X R, see pare::rotate_rows; Y may be X.
  template <class T>
  static void rotate_rows(MatrixView<T> Y, MatrixView<const T> X,
                          const kernels::HadamardRotation& rotation, bool back) {
    const index_t block = kernels::HadamardRotation::block(X.cols);
    std::vector<double> x(std::size_t(block), 0.0);
    for (index_t i = 0; i < X.rows; ++i)
      for (index_t first = 0; first < X.cols; first += block) {
        for (index_t j = 0; j < block; ++j)
          x[std::size_t(j)] = double(X(i, first + j)) * (back ? 1 : rotation.sign(first + j));
        kernels::hadamard(x.data(), block);
        for (index_t j = 0; j < block; ++j)
          Y(i, first + j) = T(compute_scalar<T>(x[std::size_t(j)] / std::sqrt(double(block)) *
                                                (back ? rotation.sign(first + j) : 1)));
      }
  }

  template <class T>
  static void attention(MatrixView<T> out, MatrixView<const T> q, MatrixView<const T> k,
                        MatrixView<const T> v, MatrixView<const compute_scalar<T>> slopes,
                        const kernels::AttentionShape& shape) {
    const index_t width = shape.head_dim;
    std::vector<double> weights(std::size_t(shape.seqlen), 0.0);
    for (index_t t = 0; t < q.rows; ++t) {
      const index_t query = t % shape.seqlen, first = t - query, from = shape.oldest(query);
      for (index_t head = 0; head < shape.heads; ++head) {
        const index_t q_col = head * shape.q_step, kv_col = shape.kv_head(head) * shape.kv_step;
        for (index_t s = from; s <= query; ++s) {
          double score = 0;
          for (index_t c = 0; c < width; ++c)
            score += double(q(t, q_col + c)) * double(k(first + s, kv_col + c));
          score *= shape.scale;
          if (shape.soft_cap > 0) score = shape.soft_cap * std::tanh(score / shape.soft_cap);
          if (slopes.rows > 0) score += double(slopes(0, head)) * double(s - query);
          weights[std::size_t(s)] = score;
        }
        const double largest =
            *std::max_element(weights.begin() + from, weights.begin() + query + 1);
        double sum = 0;
        for (index_t s = from; s <= query; ++s)
          sum += weights[std::size_t(s)] = std::exp(weights[std::size_t(s)] - largest);
        for (index_t c = 0; c < width; ++c) {
          double mixed = 0;
          for (index_t s = from; s <= query; ++s)
            mixed += weights[std::size_t(s)] * double(v(first + s, kv_col + c));
          out(t, head * width + c) = T(compute_scalar<T>(mixed / sum));
        }
      }
    }
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
