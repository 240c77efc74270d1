// Perplexity of a model on a text.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
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

/// How perplexity reads a text.
struct PerplexityOptions {
  /// Tokens of a window, 2 or more.
  index_t seqlen = 2048;
  /// Tokens from the beginning of a window to that of the next, 1 or more; none: seqlen, so that
  /// windows do not overlap. Where they do, only tokens that no earlier window predicted count, so
  /// that each has at least seqlen - stride tokens before it.
  std::optional<index_t> stride = {};
  /// Windows read, from the first on, 1 or more; none: all.
  std::optional<index_t> max_windows = {};
  /// Ids that every window begins with, and the text too; empty where only the text has them.
  /// See window_leading_ids.
  std::vector<std::int32_t> leading = {};
};

namespace detail {

/// Tokens of the text from one window to the next.
inline index_t text_stride(const PerplexityOptions& options) {
  return options.stride.value_or(options.seqlen - index_t(options.leading.size()));
}

}  // namespace detail

/// Number of windows that perplexity reads: all of seqlen tokens that the text holds, at most
/// options.max_windows. 0 when the text is shorter than a window.
/// @param tokens   of the whole text, the ids in front of it among them
/// @param options  windows
/// @throws argument_error naming the option that is out of its range
inline index_t evaluation_windows(index_t tokens, const PerplexityOptions& options) {
  const auto require = [](const char* name, index_t value, index_t least) {
    if (value < least)
      throw argument_error(std::string("perplexity: ") + name + ": expected at least " +
                           std::to_string(least) + ", got " + std::to_string(value));
  };
  const index_t leading = index_t(options.leading.size());
  require("seqlen", options.seqlen, std::max<index_t>(2, leading + 1));
  require("stride", options.stride.value_or(options.seqlen), 1);
  require("max_windows", options.max_windows.value_or(1), 1);
  if (tokens < options.seqlen) return 0;
  const index_t all = (tokens - options.seqlen) / detail::text_stride(options) + 1;
  return std::min(all, options.max_windows.value_or(all));
}

/// exp of the mean cross entropy over predicted positions: all but the first of a window, or where
/// windows overlap those that no earlier window predicted. A remainder that fills no window is
/// dropped.
/// @param model     in the backend's memory
/// @param ids       tokens of a whole text, as token_ids gives it
/// @param options   windows
/// @param progress  progress(done, total) is called with the number of windows done
/// @throws argument_error if `ids` is shorter than a window, or a window or an id does not fit the
///         model, pare::error if the model's logits are not finite
template <class M, class Progress = NoProgress>
double perplexity(const M& model, std::span<const std::int32_t> ids,
                  const PerplexityOptions& options, Progress&& progress = {}) {
  const auto layer = [&](index_t i) -> const auto& { return model.layers[std::size_t(i)]; };
  return perplexity(model, index_t(model.layers.size()), layer, ids, options, 0, progress);
}

/// The same of consecutive windows of `seqlen` tokens.
template <class M, class Progress = NoProgress>
double perplexity(const M& model, std::span<const std::int32_t> ids, index_t seqlen,
                  Progress&& progress = {}) {
  return perplexity(model, ids, PerplexityOptions{.seqlen = seqlen}, progress);
}

namespace detail {

/// Windows first <= w < first + count, one after the other, each whole. `copied` holds them where
/// they do not follow one another in the text.
inline std::span<const std::int32_t> consecutive_windows(std::span<const std::int32_t> ids,
                                                         index_t first, index_t count,
                                                         const PerplexityOptions& options,
                                                         std::vector<std::int32_t>& copied) {
  const index_t seqlen = options.seqlen, stride = text_stride(options);
  if (stride == seqlen && options.leading.empty())
    return ids.subspan(std::size_t(first * seqlen), std::size_t(count * seqlen));
  const std::size_t leading = options.leading.size();
  copied.clear();
  for (index_t w = first; w < first + count; ++w) {
    const auto text = ids.subspan(leading + std::size_t(w * stride), std::size_t(seqlen) - leading);
    copied.insert(copied.end(), options.leading.begin(), options.leading.end());
    copied.insert(copied.end(), text.begin(), text.end());
  }
  return copied;
}

}  // namespace detail

/// The same number for decoder layers that come one at a time; those of `model` are not looked at.
/// As many windows go through a layer together as their states may be held, at least a batch.
/// @param model     everything but the decoder layers
/// @param layers    how many there are
/// @param layer     layer(i) gives decoder layer i, which is needed until the next call only
/// @param ids       tokens of the text
/// @param options   windows
/// @param held      tokens whose states may be held
/// @param progress  is told of windows that are not done yet by the share of their layers
template <class M, class Layer, class Progress>
double perplexity(const M& model, index_t layers, const Layer& layer,
                  std::span<const std::int32_t> ids, const PerplexityOptions& options, index_t held,
                  Progress&& progress) {
  using B = typename M::backend_type;
  using T = typename M::scalar_type;
  constexpr index_t tokens_per_batch = 2048;  // enough for fast products, small enough for memory
  const index_t seqlen = options.seqlen, stride = detail::text_stride(options);
  if constexpr (requires { detail::require_window(model.config, seqlen, "", 2); })
    detail::require_window(model.config, seqlen, "perplexity", 2);
  const index_t total = evaluation_windows(index_t(ids.size()), options);
  if (total == 0)
    throw argument_error("perplexity: the text has " + std::to_string(ids.size()) +
                         " tokens, at least " + std::to_string(seqlen) +
                         " are needed for one window");

  Walk<M> walk(model, {}, seqlen, tokens_per_batch);
  std::vector<std::int32_t> targets, copied;
  const index_t batch = std::max<index_t>(1, tokens_per_batch / seqlen);
  const index_t chunk = batch * std::max<index_t>(1, held / seqlen / batch);
  // Predicted by a window, and of every window but the first: what an earlier one predicted goes.
  const index_t predicted = seqlen - 1, new_ones = std::min(stride, predicted);
  double loss = 0;
  for (index_t done = 0; done < total;) {
    const index_t together = std::min(chunk, total - done);
    walk.restart(detail::consecutive_windows(ids, done, together, options, copied));
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
      for (index_t w = 0; w < walk.size(b); ++w) {
        const auto window = targets.begin() + w * seqlen;
        window[predicted] = -1;
        if (done + walk.first(b) + w > 0) std::fill_n(window, predicted - new_ones, -1);
      }
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
  return std::exp(loss / (double(predicted) + double(total - 1) * double(new_ones)));
}

}  // namespace pare
