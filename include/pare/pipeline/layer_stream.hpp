// The decoder layers of a model as a compression takes them: one at a time, from some layer on.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/model/walk.hpp"
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
template <class M>
struct LayerStream {
  /// What the model's numbers are stored in, and where.
  using States = CalibrationStates<typename M::backend_type, typename M::scalar_type>;
  /// One of its layers.
  using Layer = typename M::layer_type;

  index_t count = 0;   ///< of layers
  index_t inputs = 0;  ///< that the linears of a layer read; see Linear::input
  /// Names of the linears of layer i, in the order of compression.
  std::function<std::vector<std::string>(index_t i)> names;
  /// Layer i, dense; it is compressed in place and is needed until the next call only.
  std::function<Layer&(index_t i)> fetch;
  /// Told of every finished layer: its compressed linears and what leaves it, which after the last
  /// layer is not computed. May be empty.
  std::function<void(index_t i, const Layer&, std::span<const LinearStatistics>, const States&)>
      finished = {};
  index_t first = 0;       ///< the layers before it were finished earlier
  Statistics before = {};  ///< of their linears
  States states = {};      ///< what enters `first`, when that is not 0
};

/// The layers of a model in memory, compressed where they are. Valid as long as the model.
template <class M>
LayerStream<M> layers_in_memory(M& model) {
  LayerStream<M> stream;
  stream.count = index_t(model.layers.size());
  for (const auto& layer : model.layers)
    stream.inputs = std::max(stream.inputs, detail::inputs_of(layer));
  stream.names = [&model](index_t i) {
    std::vector<std::string> names;
    for (const auto* linear : std::as_const(model.layers[std::size_t(i)]).linears())
      names.push_back(linear->name);
    return names;
  };
  stream.fetch = [&model](index_t i) -> auto& { return model.layers[std::size_t(i)]; };
  return stream;
}

}  // namespace pare
