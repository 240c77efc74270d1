// Perplexity of a model on a text.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/opt.hpp"

namespace pare {

/// A progress callback that does nothing.
struct NoProgress {
  /// Takes (windows done, all windows) and does nothing.
  void operator()(index_t, index_t) const {}
};

/// exp of the mean cross entropy over all predicted positions (all but the first of a window) of
/// the consecutive windows of `seqlen` tokens in `ids`, the remainder dropped. `ids` is a whole
/// text with the model's bos_token_id in front. progress(done, total) is called with the number of
/// windows done. Throws argument_error if `ids` is shorter than a window or `seqlen` or an id does
/// not fit the model, pare::error if the model's logits are not finite.
template <class B, class T, class Progress = NoProgress>
double perplexity(const OptModel<B, T>& model, std::span<const std::int32_t> ids, index_t seqlen,
                  Progress&& progress = {}) {
  constexpr index_t tokens_per_batch = 2048;  // enough for fast products, small enough for memory
  if (seqlen < 2 || seqlen > model.config.max_position_embeddings)
    throw argument_error("perplexity: seqlen: expected 2 to " +
                         std::to_string(model.config.max_position_embeddings) +
                         " (max_position_embeddings), got " + std::to_string(seqlen));
  const index_t total = index_t(ids.size()) / seqlen;
  if (total == 0)
    throw argument_error("perplexity: the text has " + std::to_string(ids.size()) +
                         " tokens, at least " + std::to_string(seqlen) +
                         " are needed for one window");

  OptWorkspace<B, T> workspace;
  typename B::template matrix<T> hidden;
  std::vector<std::int32_t> targets;
  const index_t batch = std::max<index_t>(1, tokens_per_batch / seqlen);
  double loss = 0;
  for (index_t done = 0; done < total;) {
    const index_t windows = std::min(batch, total - done);
    const auto inputs =
        ids.subspan(std::size_t(done * seqlen), std::size_t(windows * seqlen));
    embed(model, inputs, seqlen, workspace, hidden);
    for (const auto& layer : model.layers)
      forward_layer(model, layer, hidden.view(), seqlen, workspace);
    // Each position predicts the next; the last of a window predicts nothing.
    targets.assign(inputs.begin() + 1, inputs.end());
    targets.push_back(-1);
    for (index_t w = 1; w < windows; ++w) targets[std::size_t(w * seqlen - 1)] = -1;
    head(model, hidden.view(), workspace, [&](index_t first, MatrixView<const T> logits) {
      const auto device_targets = B::from_host(
          MatrixView<const std::int32_t>(targets.data() + first, 1, logits.rows));
      loss += B::template cross_entropy<T>(logits, device_targets.view());
    });
    if (!std::isfinite(loss))
      throw error("perplexity: the cross entropy of windows " + std::to_string(done) + " to " +
                  std::to_string(done + windows - 1) + " is not finite");
    done += windows;
    progress(done, total);
  }
  return std::exp(loss / (double(total) * double(seqlen - 1)));
}

}  // namespace pare
