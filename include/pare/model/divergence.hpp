// How far a model's predictions are from those of the dense model.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "pare/model/opt.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// log(sum exp(row)) of a row of logits.
template <class T>
PARE_HOST_DEVICE double row_log_sum_exp(const T* row, index_t n) {
  T largest = row[0];
  for (index_t j = 1; j < n; ++j) largest = row[j] > largest ? row[j] : largest;
  double sum = 0;
  for (index_t j = 0; j < n; ++j) sum += double(std::exp(row[j] - largest));
  return std::log(sum) + double(largest);
}

/// Turns logits into log probabilities in T.
template <class S, class T>
struct LogProbabilities {
  MatrixView<const S> logits;  // (tokens, vocab)
  MatrixView<T> out;           // (tokens, vocab)
  PARE_HOST_DEVICE void operator()(index_t t) const {
    T* row = out.row(t);
    for (index_t j = 0; j < logits.cols; ++j) row[j] = T(logits(t, j));
    const T shift = T(row_log_sum_exp(row, logits.cols));
    for (index_t j = 0; j < logits.cols; ++j) row[j] -= shift;
  }
};

/// e^-d - 1 + d >= 0, with all its digits.
template <class T>
PARE_HOST_DEVICE T exponential_excess(T d) {
  if (std::abs(d) < T(0.02)) return d * d * (T(0.5) - d * (T(1) / 6 - d * (T(1) / 24)));
  return std::exp(-d) - T(1) + d;
}

/// out(0, t) = KL(p || q) of row t, q from logits: sum_j p_j (e^-d_j - 1 + d_j) with
/// d_j = log p_j - log q_j, which is sum_j p_j d_j as both sum to one, but has no negative terms.
template <class S, class T>
struct RowDivergence {
  MatrixView<const T> log_p;   // (tokens, vocab)
  MatrixView<const S> logits;  // (tokens, vocab)
  MatrixView<double> out;      // (1, tokens)
  PARE_HOST_DEVICE void operator()(index_t t) const {
    const index_t n = logits.cols;
    T largest = T(logits(t, 0));
    for (index_t j = 1; j < n; ++j) {
      const T x = T(logits(t, j));
      largest = x > largest ? x : largest;
    }
    double sum = 0, divergence = 0;
    for (index_t j = 0; j < n; ++j) sum += double(std::exp(T(logits(t, j)) - largest));
    const T shift = T(std::log(sum));
    for (index_t j = 0; j < n; ++j) {
      const T log_p_j = log_p(t, j), log_q_j = T(logits(t, j)) - largest - shift;
      divergence += double(std::exp(log_p_j) * exponential_excess(log_p_j - log_q_j));
    }
    out(0, t) = divergence;
  }
};

}  // namespace detail

/// Predictions of a model as it is now, kept to measure later how far it has moved from them.
///
/// Memory: log probabilities of all tokens, (tokens, vocab) in the scalar computed in.
template <class B, class S>
class ReferencePredictions {
  using T = compute_scalar<S>;

 public:
  /// @param model   the reference; it may change afterwards
  /// @param ids     token windows of `seqlen`, one after the other, at least one
  /// @throws argument_error as embed() does, or without a window
  /// @param seqlen  tokens of a window
  ReferencePredictions(const OptModel<B, S>& model, std::span<const std::int32_t> ids,
                       index_t seqlen)
      : ids_(ids.begin(), ids.end()), seqlen_(seqlen) {
    if (ids.empty()) throw argument_error("ids: expected at least one window, got none");
    embed(model, ids, seqlen, workspace_, hidden_);
    for (const auto& layer : model.layers)
      forward_layer(model, layer, hidden_.view(), seqlen, workspace_);
    log_p_.resize(hidden_.rows(), model.config.vocab_size);
    head(model, hidden_.view(), workspace_, [&](index_t first, MatrixView<const S> logits) {
      B::for_each_row(logits.rows,
                      detail::LogProbabilities<S, T>{logits,
                                                     log_p_.view().block(first, 0, logits.rows,
                                                                         logits.cols)});
    });
  }

  /// Tokens the predictions were kept for.
  index_t tokens() const { return index_t(ids_.size()); }

  /// Mean over the tokens of KL(reference || model), in nats.
  /// @throws pare::error when the model's logits are not finite
  double divergence(const OptModel<B, S>& model) {
    embed(model, std::span<const std::int32_t>(ids_), seqlen_, workspace_, hidden_);
    return run(model, 0);
  }

  /// The same for a model that equals the reference before decoder layer `first`.
  /// @param model   the model to compare
  /// @param first   index of the first layer that may differ
  /// @param states  what enters that layer, (tokens, hidden)
  double divergence(const OptModel<B, S>& model, std::size_t first,
                    std::type_identity_t<MatrixView<const S>> states) {
    require_shape("states (tokens, hidden)", {tokens(), model.config.hidden_size},
                  {states.rows, states.cols});
    hidden_.resize(states.rows, states.cols);
    B::copy(states, hidden_.view());
    return run(model, first);
  }

 private:
  double run(const OptModel<B, S>& model, std::size_t first) {
    for (std::size_t l = first; l < model.layers.size(); ++l)
      forward_layer(model, model.layers[l], hidden_.view(), seqlen_, workspace_);
    double sum = 0;
    head(model, hidden_.view(), workspace_, [&](index_t begin, MatrixView<const S> logits) {
      rows_.resize(1, logits.rows);
      B::for_each_row(logits.rows,
                      detail::RowDivergence<S, T>{
                          detail::as_const(log_p_.view()).block(begin, 0, logits.rows, logits.cols),
                          logits, rows_.view()});
      const Matrix<double> host = B::to_host(detail::as_const(rows_.view()));
      for (index_t t = 0; t < host.size(); ++t) sum += host.data()[t];
    });
    const double mean = sum / double(tokens());
    if (!std::isfinite(mean)) throw error("divergence: the model's logits are not finite");
    return mean;
  }

  std::vector<std::int32_t> ids_;
  index_t seqlen_;
  OptWorkspace<B, S> workspace_;
  typename B::template matrix<S> hidden_;     // (tokens, hidden)
  typename B::template matrix<T> log_p_;      // (tokens, vocab)
  typename B::template matrix<double> rows_;  // (1, tokens of a chunk)
};

}  // namespace pare
