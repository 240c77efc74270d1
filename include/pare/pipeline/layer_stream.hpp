// The decoder layers of a model as a compression takes them: one at a time, from some layer on.
#pragma once

#include <functional>
#include <span>

#include "pare/model/opt.hpp"
#include "pare/report/statistics.hpp"

namespace pare::inline PARE_TARGET {

/// What the calibration text has become between two decoder layers.
template <class B, class S>
struct CalibrationStates {
  /// What enters the next layer, (windows * seqlen, hidden); empty without a text.
  typename B::template matrix<S> hidden;
  /// The same in the dense model, when asymmetric.
  typename B::template matrix<S> dense_hidden;
};

/// Where decoder layers come from, where they go when they are finished, and where to begin.
template <class B, class S>
struct LayerStream {
  index_t count = 0;  ///< of layers
  /// Layer i, dense; it is compressed in place and is needed until the next call only.
  std::function<OptLayer<B, S>&(index_t i)> fetch;
  /// Told of every finished layer: its compressed linears and what leaves it, which behind the last
  /// layer is not computed. May be empty.
  std::function<void(index_t i, const OptLayer<B, S>&, std::span<const LinearStatistics>,
                     const CalibrationStates<B, S>&)>
      finished = {};
  index_t first = 0;                    ///< the layers before it were finished earlier
  Statistics before = {};               ///< of their linears
  CalibrationStates<B, S> states = {};  ///< what enters `first`, when that is not 0
};

/// The layers of a model in memory, compressed where they are. Valid as long as the model.
template <class B, class S>
LayerStream<B, S> layers_in_memory(OptModel<B, S>& model) {
  LayerStream<B, S> stream;
  stream.count = index_t(model.layers.size());
  stream.fetch = [&model](index_t i) -> OptLayer<B, S>& { return model.layers[std::size_t(i)]; };
  return stream;
}

}  // namespace pare
