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
#include "pare/model/walk.hpp"

namespace pare::inline PARE_TARGET {

/// A progress callback that does nothing.
struct NoProgress {
  /// Takes (windows done, all windows) and does nothing.
  void operator()(index_t, index_t) const {}
};

/// exp of the mean cross entropy over all predicted positions (all but the first of a window) of
/// the consecutive windows of `seqlen` tokens in `ids`, the remainder dropped. `ids` is a whole
/// text as token_ids gives it. progress(done, total) is called with the number of windows done.
/// Throws argument_error if `ids` is shorter than a window or `seqlen` or an id does not fit the
/// model, pare::error if the model's logits are not finite.
template <class M, class Progress = NoProgress>
double perplexity(const M& model, std::span<const std::int32_t> ids, index_t seqlen,
                  Progress&& progress = {}) {
  const auto layer = [&](index_t i) -> const auto& { return model.layers[std::size_t(i)]; };
  return perplexity(model, index_t(model.layers.size()), layer, ids, seqlen, 0, progress);
}

/// The same number for decoder layers that come one at a time; those of `model` are not looked at.
/// As many windows go through a layer together as their states may be held, at least a batch.
/// @param model     everything but the decoder layers
/// @param layers    how many there are
/// @param layer     layer(i) gives decoder layer i, which is needed until the next call only
/// @param ids       tokens of the text
/// @param seqlen    tokens of a window
/// @param held      tokens whose states may be held
/// @param progress  is told of windows that are not done yet by the share of their layers
template <class M, class Layer, class Progress>
double perplexity(const M& model, index_t layers, const Layer& layer,
                  std::span<const std::int32_t> ids, index_t seqlen, index_t held,
                  Progress&& progress) {
  using B = typename M::backend_type;
  using T = typename M::scalar_type;
  constexpr index_t tokens_per_batch = 2048;  // enough for fast products, small enough for memory
  if constexpr (requires { detail::require_window(model.config, seqlen, "", 2); })
    detail::require_window(model.config, seqlen, "perplexity", 2);
  else if (seqlen < 2)
    throw argument_error("perplexity: seqlen: expected at least 2, got " + std::to_string(seqlen));
  const index_t total = index_t(ids.size()) / seqlen;
  if (total == 0)
    throw argument_error("perplexity: the text has " + std::to_string(ids.size()) +
                         " tokens, at least " + std::to_string(seqlen) +
                         " are needed for one window");

  Walk<M> walk(model, {}, seqlen, tokens_per_batch);
  std::vector<std::int32_t> targets;
  const index_t batch = std::max<index_t>(1, tokens_per_batch / seqlen);
  const index_t chunk = batch * std::max<index_t>(1, held / seqlen / batch);
  double loss = 0;
  for (index_t done = 0; done < total;) {
    const index_t together = std::min(chunk, total - done);
    walk.restart(ids.subspan(std::size_t(done * seqlen), std::size_t(together * seqlen)));
    walk.embed_all();
    for (index_t i = 0; i < layers; ++i) {
      const auto& decoder = layer(i);
      for (index_t b = 0; b < walk.batches(); ++b) walk.run(decoder, b);
      if (together > batch) progress(done + together * (i + 1) / (layers + 1), total);
    }
    for (index_t b = 0; b < walk.batches(); ++b) {
      // Each position predicts the next; the last of a window predicts nothing.
      const std::span<const std::int32_t> inputs = walk.ids(b);
      targets.assign(inputs.begin() + 1, inputs.end());
      targets.push_back(-1);
      for (index_t w = 1; w < walk.size(b); ++w) targets[std::size_t(w * seqlen - 1)] = -1;
      walk.head_of(b, [&](index_t first, MatrixView<const T> logits) {
        const auto device_targets =
            B::from_host(MatrixView<const std::int32_t>(targets.data() + first, 1, logits.rows));
        loss += B::template cross_entropy<T>(logits, device_targets.view());
      });
      if (!std::isfinite(loss)) {
        const index_t first = done + walk.first(b);
        throw error("perplexity: the cross entropy of windows " + std::to_string(first) + " to " +
                    std::to_string(first + walk.size(b) - 1) + " is not finite");
      }
    }
    done += together;
    progress(done, total);
  }
  return std::exp(loss / (double(total) * double(seqlen - 1)));
}

}  // namespace pare
