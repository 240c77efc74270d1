// Log probabilities of tokens and how far two models' are apart.
#pragma once

#include <cmath>

#include "pare/core/scalar.hpp"
#include "pare/kernels/reduction.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// The largest logit of each row.
template <class S>
struct LargestLogit {
  /// What the logits are compared in.
  using T = compute_scalar<S>;
  /// The largest.
  using partial = Largest<T>;

  MatrixView<const S> logits;  // (tokens, vocab)
  MatrixView<T> largest;       // (1, tokens)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return logits.cols; }
  /// Takes in one logit.
  PARE_HOST_DEVICE void add(index_t t, index_t j, partial& most) const {
    most.add(T(logits(t, j)));
  }
  /// Writes the largest of row t.
  PARE_HOST_DEVICE void finish(index_t t, const partial& most) const { largest(0, t) = most.value; }
};

/// log(sum_j exp(logit_j - largest)) of each row.
template <class S>
struct LogSumExp {
  /// What the logits are computed with.
  using T = compute_scalar<S>;
  /// The sum.
  using partial = Sums<double, 1>;

  MatrixView<const S> logits;   // (tokens, vocab)
  MatrixView<const T> largest;  // (1, tokens)
  MatrixView<double> out;       // (1, tokens)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return logits.cols; }
  /// Adds one logit.
  PARE_HOST_DEVICE void add(index_t t, index_t j, partial& sum) const {
    sum[0] += double(std::exp(T(logits(t, j)) - largest(0, t)));
  }
  /// Writes the logarithm of row t.
  PARE_HOST_DEVICE void finish(index_t t, const partial& sum) const {
    out(0, t) = std::log(sum[0]);
  }
};

/// out = log probabilities of logits, in T.
template <class S>
struct LogProbability {
  /// What the logits are computed with.
  using T = compute_scalar<S>;

  MatrixView<const S> logits;    // (tokens, vocab)
  MatrixView<const T> largest;   // (1, tokens)
  MatrixView<const double> log;  // (1, tokens): LogSumExp
  MatrixView<T> out;             // (tokens, vocab)

  /// Writes one element.
  PARE_HOST_DEVICE void operator()(index_t t, index_t j) const {
    out(t, j) = T(logits(t, j)) - T(log(0, t) + double(largest(0, t)));
  }
};

/// KL(p || q) of each row, q from logits: sum_j p_j (e^-d_j - 1 + d_j) with d_j = log p_j - log
/// q_j, which is sum_j p_j d_j as both sum to one, but has no negative terms.
template <class S>
struct Divergence {
  /// What the logits are computed with.
  using T = compute_scalar<S>;
  /// The sum.
  using partial = Sums<double, 1>;

  MatrixView<const T> log_p;     // (tokens, vocab)
  MatrixView<const S> logits;    // (tokens, vocab)
  MatrixView<const T> largest;   // (1, tokens)
  MatrixView<const double> log;  // (1, tokens): LogSumExp
  MatrixView<double> out;        // (1, tokens)

  /// See RowReduction.
  PARE_HOST_DEVICE index_t columns() const { return logits.cols; }
  /// Adds one word.
  PARE_HOST_DEVICE void add(index_t t, index_t j, partial& sum) const {
    const T log_p_j = log_p(t, j), log_q_j = T(logits(t, j)) - largest(0, t) - T(log(0, t));
    sum[0] += double(std::exp(log_p_j) * excess(log_p_j - log_q_j));
  }
  /// Writes the divergence of row t.
  PARE_HOST_DEVICE void finish(index_t t, const partial& sum) const { out(0, t) = sum[0]; }

 private:
  /// e^-d - 1 + d >= 0, with all its digits.
  PARE_HOST_DEVICE static T excess(T d) {
    if (std::abs(d) < T(0.02)) return d * d * (T(0.5) - d * (T(1) / 6 - d * (T(1) / 24)));
    return std::exp(-d) - T(1) + d;
  }
};

}  // namespace pare::kernels
