// How far what one model predicts is from what another does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/model/decoder.hpp"
#include "pare/model/load.hpp"

namespace pare::inline PARE_TARGET {

/// How far the logits of one model are from those of another.
struct LogitDistance {
  /// Root mean square of the differences over the standard deviation of the first model's logits.
  double typical = 0;
  /// The largest difference over that deviation.
  double largest = 0;
};

/// Runs two models on the same windows, a decoder layer of each in memory at a time.
/// @param one     whose logits are the measure
/// @param other   of the same vocabulary
/// @param ids     whole windows of `seqlen`, at least one
/// @param seqlen  tokens of a window
/// @throws argument_error as embed(), or without a window; as ModelFiles
template <class B, class S>
LogitDistance logit_distance(const ModelFiles<B, S>& one, const ModelFiles<B, S>& other,
                             std::span<const std::int32_t> ids, index_t seqlen) {
  if (ids.empty()) throw argument_error("ids: expected at least one window, got none");
  const LanguageModel<B, S> frames[] = {one.frame(), other.frame()};
  ModelWorkspace<B, S> workspace;
  typename B::template matrix<S> hidden[2];
  for (const int m : {0, 1}) {
    embed(frames[m], ids, seqlen, workspace, hidden[m]);
    const ModelFiles<B, S>& files = m == 0 ? one : other;
    for (index_t i = 0; i < files.config().num_hidden_layers; ++i)
      forward_layer(frames[m], files.layer(i), hidden[m].view(), seqlen, workspace);
  }
  double sum = 0, squares = 0, errors = 0, largest = 0, count = 0;
  const index_t chunk = head_chunk(one.config()), tokens = index_t(ids.size());
  for (index_t first = 0; first < tokens; first += chunk) {
    Matrix<S> logits[2];
    for (const int m : {0, 1}) {
      const MatrixView<const S> all = hidden[m].view();
      head(frames[m], all.block(first, 0, std::min(chunk, tokens - first), all.cols), workspace,
           [&](index_t, MatrixView<const S> rows) { logits[m] = B::to_host(rows); });
    }
    for (index_t i = 0; i < logits[0].size(); ++i) {
      const double value = double(logits[0].data()[i]);
      const double error = std::abs(double(logits[1].data()[i]) - value);
      sum += value;
      squares += value * value;
      errors += error * error;
      if (!(error <= largest)) largest = error;
      ++count;
    }
  }
  const double mean = sum / count, spread = std::sqrt(std::max(0.0, squares / count - mean * mean));
  return {.typical = std::sqrt(errors / count) / spread, .largest = largest / spread};
}

}  // namespace pare
