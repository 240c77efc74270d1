// How far a model's predictions are from those of the dense model.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "pare/kernels/predictions.hpp"
#include "pare/model/walk.hpp"

namespace pare::inline PARE_TARGET {

/// Predictions of a model as it is now, kept to measure later how far it has moved from them.
///
/// Memory: log probabilities of all tokens, (tokens, vocab) in the scalar computed in.
/// @tparam M  a model with a head, such as LanguageModel
template <class M>
class ReferencePredictions {
  using B = typename M::backend_type;
  using S = typename M::scalar_type;
  using T = compute_scalar<S>;

 public:
  /// @param model   the reference; it may change afterwards
  /// @param ids     token windows of `seqlen`, one after the other, at least one
  /// @throws argument_error as embed() does, or without a window
  /// @param seqlen  tokens of a window
  ReferencePredictions(const M& model, std::span<const std::int32_t> ids, index_t seqlen)
      : ids_(ids.begin(), ids.end()), seqlen_(seqlen) {
    if (ids.empty()) throw argument_error("ids: expected at least one window, got none");
    Walk<M> walk = embedded(model);
    for (const auto& layer : model.layers) walk.run(layer, 0);
    walk.head_of(0, [&](index_t first, MatrixView<const S> logits) {
      if (first == 0) log_p_ = typename B::template matrix<T>(tokens(), logits.cols);
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
  double divergence(const M& model) {
    Walk<M> walk = embedded(model);
    return run(model, walk, 0);
  }

  /// The same for a model that equals the reference before decoder layer `first`.
  /// @param model   the model to compare
  /// @param first   index of the first layer that may differ
  /// @param states  what enters that layer, (tokens, hidden)
  double divergence(const M& model, std::size_t first,
                    std::type_identity_t<MatrixView<const S>> states) {
    require_shape("states (tokens, hidden)", {tokens(), states.cols}, {states.rows, states.cols});
    Walk<M> walk(model, ids_, seqlen_, tokens());
    walk.states().resize(states.rows, states.cols);
    B::copy(states, walk.states().view());
    return run(model, walk, first);
  }

 private:
  /// All windows in one batch, about to enter the first layer.
  Walk<M> embedded(const M& model) const {
    Walk<M> walk(model, ids_, seqlen_, tokens());
    walk.embed_all();
    return walk;
  }

  double run(const M& model, Walk<M>& walk, std::size_t first) {
    for (std::size_t l = first; l < model.layers.size(); ++l) walk.run(model.layers[l], 0);
    double sum = 0;
    walk.head_of(0, [&](index_t begin, MatrixView<const S> logits) {
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
  typename B::template matrix<T> log_p_;      // (tokens, vocab)
  typename B::template matrix<T> largest_;    // (1, tokens of a chunk): logit
  typename B::template matrix<double> log_;   // (1, tokens of a chunk): log(sum exp)
  typename B::template matrix<double> rows_;  // (1, tokens of a chunk): divergence
};

}  // namespace pare
