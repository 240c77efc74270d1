// How far a model's predictions are from those of the dense model.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "pare/kernels/predictions.hpp"
#include "pare/model/opt.hpp"

namespace pare::inline PARE_TARGET {

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
    log_p_ = typename B::template matrix<T>(hidden_.rows(), model.config.vocab_size);
    head(model, hidden_.view(), workspace_, [&](index_t first, MatrixView<const S> logits) {
      normalise(logits);
      B::for_each_element(logits.rows, logits.cols,
                          kernels::LogProbability<S>{logits, largest_.view(), log_.view(),
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
      normalise(logits);
      rows_.resize(1, logits.rows);
      const MatrixView<const T> log_p = log_p_.view();
      B::reduce_rows(logits.rows,
                     kernels::Divergence<S>{log_p.block(begin, 0, logits.rows, logits.cols), logits,
                                            largest_.view(), log_.view(), rows_.view()});
      const Matrix<double> host = B::to_host(detail::as_const(rows_.view()));
      for (index_t t = 0; t < host.size(); ++t) sum += host.data()[t];
    });
    const double mean = sum / double(tokens());
    if (!std::isfinite(mean)) throw error("divergence: the model's logits are not finite");
    return mean;
  }

  /// What turns logits (tokens, vocab) into log probabilities.
  void normalise(MatrixView<const S> logits) {
    largest_.resize(1, logits.rows);
    log_.resize(1, logits.rows);
    B::reduce_rows(logits.rows, kernels::LargestLogit<S>{logits, largest_.view()});
    B::reduce_rows(logits.rows,
                   kernels::LogSumExp<S>{logits, detail::as_const(largest_.view()), log_.view()});
  }

  std::vector<std::int32_t> ids_;
  index_t seqlen_;
  OptWorkspace<B, S> workspace_;
  typename B::template matrix<S> hidden_;     // (tokens, hidden)
  typename B::template matrix<T> log_p_;      // (tokens, vocab)
  typename B::template matrix<T> largest_;    // (1, tokens of a chunk): logit
  typename B::template matrix<double> log_;   // (1, tokens of a chunk): log(sum exp)
  typename B::template matrix<double> rows_;  // (1, tokens of a chunk): divergence
};

}  // namespace pare
