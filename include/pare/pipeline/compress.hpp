// Compresses a model layer by layer, each calibrated on what the compressed ones before it
// give.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/calibration/drift.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/rotate.hpp"
#include "pare/model/walk.hpp"
#include "pare/pipeline/layer_stream.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/pipeline/linear_work.hpp"
#include "pare/pipeline/planned_solver.hpp"
#include "pare/pipeline/windows.hpp"

namespace pare::inline PARE_TARGET {

/// Which linears are compressed: decoder layers first <= i < last whose name holds `name_part`;
/// `invert` swaps the selected and the others.
struct LinearSelection {
  /// First decoder layer, counted from 0.
  index_t first_layer = 0;
  /// One past the last decoder layer.
  index_t last_layer = std::numeric_limits<index_t>::max();
  /// Text that the linear's name holds; empty: any name.
  std::string name_part = {};
  /// Whether the others are compressed instead.
  bool invert = false;

  /// Whether the linear `name` of decoder layer `layer` is compressed.
  bool selects(index_t layer, const std::string& name) const {
    const bool inside =
        layer >= first_layer && layer < last_layer && name.find(name_part) != std::string::npos;
    return inside != invert;
  }
};

/// How a model is compressed.
struct ModelCompressionOptions {
  /// Options of every linear's solver.
  SolverOptions solver = {};
  /// Which linears.
  LinearSelection selection = {};
  /// Magnitude pruning and round-to-nearest: every Hessian is the identity and a block is the
  /// whole linear. No calibration text is read.
  bool magnitude = false;
  /// Linears of a layer are calibrated after those before them in the layer too, with a pass over
  /// the text for each input of the layer.
  bool true_sequential = false;
  /// Share of the correction of weights towards what the dense model does on its own inputs, 0..1
  /// (see corrected_weights). Above 0 the dense model's states are kept beside the others.
  double asymmetric = 0;
  /// Weights that are zero stay zero, whatever else is pruned.
  bool keep_zeros = false;
  /// Every linear is solved with its inputs turned by this rotation, and its weights are turned back
  /// after: grids and masks are in the turned basis. Not with `magnitude` or `keep_zeros`.
  std::optional<kernels::HadamardRotation> rotation = {};
  /// Tokens of one forward batch, in whole windows, one at least; none: what suits the backend.
  std::optional<index_t> batch_tokens = {};
};

/// What a caller is told while a model is being compressed; each may be empty.
struct CompressionProgress {
  /// Called after every linear with its statistics.
  std::function<void(const LinearStatistics&)> linear_done;
  std::function<void(double share)> advanced;  ///< 0..1 of all work
  /// Every linear packed, by the name of its tensor; options.solver.grid.half_scale is needed when
  /// they are quantized.
  std::function<void(const std::string& tensor, PackedLinear&&)> linear_packed = {};
};

namespace detail {

/// Where the weights of a linear lie that are not solved as they are.
template <class B, class T>
struct WeightsToSolve {
  typename B::template matrix<T> converted, turned, corrected;  // (out, in), each may be empty
  typename B::template matrix<std::uint8_t> zero;               // the same
};

/// Puts a solved linear into the model as it is stored, and packs it where that is asked for.
/// @param solved    weights in the turned basis where there is a rotation
/// @param weights   what was solved (out, in)
/// @param rotation  of the linear's inputs
/// @return          its statistics
template <class B, class S, class T>
LinearStatistics replace_linear(Linear<B, S>& linear, CompressedLinear<B, T>&& solved,
                                MatrixView<const T> weights, const Calibration<B, T>& calibration,
                                const Factor<B, T>& factor,
                                const std::optional<kernels::HadamardRotation>& rotation,
                                const CompressionProgress& progress) {
  std::optional<PackedLinear> packed;
  if (progress.linear_packed) {
    // What was only pruned is packed in the checkpoint's type: it is turned back from there.
    if (rotation && !solved.quantized()) round_stored(linear, solved);
    packed = pack_linear(solved, linear.dtype);
    packed->transposed = linear.transposed;
    packed->rotation = rotation;
  }
  const int dense_bits = 8 * dtype_bytes(linear.dtype);
  LinearStatistics statistics;
  if (rotation) {
    // Grids and masks are counted where they lie, rounding happens to what is stored.
    statistics = linear_statistics(linear.name, solved, dense_bits);
    turn_weights<B, T>(solved.weights, *rotation, Turn::back);
  }
  round_stored(linear, solved);
  if (!rotation) statistics = linear_statistics(linear.name, solved, dense_bits);
  if (!solved.row_loss.empty() && (is_storage_only<S> || dtype_bytes(linear.dtype) == 2)) {
    typename B::template matrix<T> stored;
    if (rotation) {
      stored = solved.weights;
      turn_weights<B, T>(solved.weights, *rotation, Turn::forth);
    }
    statistics.rounding_loss = rounding_loss<B, T>(weights, calibration, factor, solved);
    statistics.loss += statistics.rounding_loss;
    if (rotation) solved.weights = std::move(stored);
  }
  replace_weights(linear, std::move(solved));
  if (packed) progress.linear_packed(linear.tensor, std::move(*packed));
  return statistics;
}

/// Compresses the linears of a model layer by layer; see compress_model. `work` solves them.
template <class M>
Statistics compress_layers(
    const M& model, LayerStream<M>& stream, const CalibrationWindows& windows,
    const ModelCompressionOptions& options, const CompressionProgress& progress,
    const LinearWork<typename M::backend_type, compute_scalar<typename M::scalar_type>>& work) {
  using B = typename M::backend_type;
  using S = typename M::scalar_type;
  using T = compute_scalar<S>;
  const index_t layers = stream.count;
  const auto selected = [&](index_t i, const Linear<B, S>& linear) {
    return options.selection.selects(i, linear.name);
  };
  std::vector<std::string> chosen;
  for (index_t i = 0; i < layers; ++i)
    for (const std::string& name : stream.names(i))
      if (options.selection.selects(i, name)) chosen.push_back(name);
  const auto rotated = [&](const Linear<B, S>& linear) {
    return options.rotation && (!work.rotated || work.rotated(linear.name));
  };
  if (chosen.empty())
    throw argument_error("selection: no linear of the model's " + std::to_string(layers) +
                         " layers matches");
  if (!options.magnitude && windows.count() < 1)
    throw argument_error("windows: expected at least one calibration window, got none");
  const index_t batch_tokens = options.batch_tokens.value_or(detail::batch_tokens<B>);
  if (batch_tokens < 1)
    throw argument_error("batch_tokens: expected at least 1, got " + std::to_string(batch_tokens));
  if (!(options.asymmetric >= 0 && options.asymmetric <= 1))
    throw argument_error("asymmetric: expected a share within 0..1, got " +
                         std::to_string(options.asymmetric));
  if (options.magnitude && (options.true_sequential || options.asymmetric > 0))
    throw argument_error(std::string(options.true_sequential ? "true_sequential" : "asymmetric") +
                         ": would be ignored with magnitude, which reads no calibration text");
  if (options.rotation && (options.magnitude || options.keep_zeros))
    throw argument_error(std::string("rotation: not with ") +
                         (options.magnitude
                              ? "magnitude, which prunes weights as they are"
                              : "keep_zeros: weights that are zero are not in the turned basis"));
  const bool asymmetric = options.asymmetric > 0;
  std::vector<CalibrationStage> stages{{0, stream.inputs - 1}};
  if (options.true_sequential) {
    stages.clear();
    for (index_t input = 0; input < stream.inputs; ++input) stages.push_back({input, input});
  }

  // The work in units of one forward pass of one layer over all windows.
  const double total = double(index_t(stages.size() + 1) * layers);
  double done = double(index_t(stages.size() + 1) * stream.first);
  const auto advance = [&](double units) {
    done += units;
    if (progress.advanced) progress.advanced(done / total);
  };

  const index_t seqlen = windows.seqlen, count = options.magnitude ? 0 : windows.count();
  const std::span<const std::int32_t> ids(windows.ids.data(), std::size_t(count * seqlen));
  Walk<M> walk(model, ids, seqlen, batch_tokens);
  Walk<M> dense_walk(model, ids, seqlen, batch_tokens);  // of the dense model, when asymmetric
  if (stream.first == 0) {
    if (count > 0) walk.embed_all();
    if (asymmetric) dense_walk.states() = walk.states();
  } else {
    walk.states() = std::move(stream.states.hidden);
    dense_walk.states() = std::move(stream.states.dense_hidden);
  }
  // Runs pass(batch) over all batches.
  const auto for_each_batch = [&](const auto& pass) {
    for (index_t b = 0; b < walk.batches(); ++b) {
      pass(b);
      advance(double(walk.size(b)) / double(count));
    }
  };
  using Input = std::size_t;
  const Input inputs = Input(stream.inputs);
  // Every input as it is, and turned: the place among calibrations of what a linear reads.
  const auto read_by = [&](const Linear<B, S>& linear) {
    return 2 * Input(linear.input) + Input(rotated(linear));
  };
  std::vector<typename B::template matrix<S>> dense_inputs(inputs);  // of a batch, (tokens, in)
  typename B::template matrix<T> turned, dense_turned;               // of an input of a batch

  Statistics statistics = std::move(stream.before);
  for (index_t i = stream.first; i < layers; ++i) {
    const std::size_t before = statistics.linears.size();
    typename M::layer_type& layer = stream.fetch(i);
    const auto linears = layer.linears();
    for (const auto* linear : linears)
      if (selected(i, *linear)) require_dense(*linear);
    std::optional<typename M::layer_type> dense;  // the layer as it was
    if (asymmetric) dense = layer;

    for (const CalibrationStage& stage : stages) {
      index_t last = -1;
      std::vector<std::optional<Calibration<B, T>>> calibrations(2 * inputs);
      std::vector<std::optional<InputDrift<B, T>>> drifts(2 * inputs);
      for (const auto* linear : linears) {
        if (!stage.holds(linear->input) || !selected(i, *linear)) continue;
        last = std::max(last, linear->input);
        auto& calibration = calibrations[read_by(*linear)];
        if (calibration) continue;
        const index_t in = linear->weight.cols();
        if (options.magnitude)
          calibration = identity_calibration<B, T>(in);
        else
          calibration.emplace(in);
        if (asymmetric) drifts[read_by(*linear)].emplace(in);
      }
      if (last < 0) {
        advance(1);
        continue;
      }
      if (options.magnitude) advance(1);
      for_each_batch([&](index_t b) {
        if (asymmetric)
          dense_walk.run(
              *dense, b,
              [&](index_t input, MatrixView<const S> X) {
                if (!calibrations[2 * Input(input)] && !calibrations[2 * Input(input) + 1]) return;
                auto& kept = dense_inputs[Input(input)];
                kept.resize(X.rows, X.cols);
                B::copy(X, kept.view());
              },
              last);
        walk.run(
            layer, b,
            [&](index_t input, MatrixView<const S> X) {
              const auto add = [&](Input read, const auto seen, const auto dense_seen) {
                calibrations[read]->add(seen, walk.size(b));
                if (asymmetric) drifts[read]->add(dense_seen, seen);
              };
              const Input plain = 2 * Input(input);
              const MatrixView<const S> dense_X = dense_inputs[Input(input)].view();
              if (calibrations[plain]) add(plain, X, dense_X);
              if (!calibrations[plain + 1]) return;
              MatrixView<const T> dense_seen;
              if (asymmetric)
                dense_seen = turned_rows<B, S, T>(dense_X, *options.rotation, dense_turned);
              add(plain + 1, turned_rows<B, S, T>(X, *options.rotation, turned), dense_seen);
            },
            last);
      });

      const auto shared_by = [&](const Linear<B, S>& linear) {
        return std::pair{read_by(linear), work.pattern(linear.name)};
      };
      std::vector<Linear<B, S>*> to_compress;
      for (Linear<B, S>* linear : linears)
        if (stage.holds(linear->input) && selected(i, *linear)) to_compress.push_back(linear);
      Factor<B, T> factor;
      std::optional<std::pair<Input, Pattern>> factored;  // what the factor is of
      for (std::size_t first = 0, end = 0; first < to_compress.size(); first = end) {
        const auto shared = shared_by(*to_compress[first]);
        // Neighbours that share a factor are solved together.
        do ++end;
        while (work.together && end < to_compress.size() && shared_by(*to_compress[end]) == shared);
        const std::span group = std::span(to_compress).subspan(first, end - first);
        const Input read = shared.first;
        const Calibration<B, T>& calibration = *calibrations[read];
        std::optional<kernels::HadamardRotation> rotation;  // of the inputs
        if (rotated(*group[0])) rotation = options.rotation;
        if (factored != shared)
          factor =
              in_context(group[0]->name, [&] { return work.prepare(group[0]->name, calibration); });
        factored = shared;
        std::vector<WeightsToSolve<B, T>> weights(group.size());
        std::vector<LinearToSolve<T>> to_solve;
        for (std::size_t k = 0; k < group.size(); ++k)
          in_context(group[k]->name, [&] {
            WeightsToSolve<B, T>& room = weights[k];
            MatrixView<const T> W = dense_weights(*group[k], room.converted);
            if (rotation) {
              W = turned_rows<B, T, T>(W, *rotation, room.turned);
              room.converted = {};
            }
            if (options.keep_zeros) room.zero = zero_mask<B>(W);
            if (asymmetric) {
              room.corrected = corrected_weights<B, T>(W, *drifts[read], calibration, factor,
                                                       options.asymmetric);
              W = room.corrected.view();
              room.converted = room.turned = {};
            }
            to_solve.push_back({group[k]->name, W, as_const(room.zero.view())});
          });
        auto results = work.solve(to_solve, calibration, factor);
        for (std::size_t k = 0; k < group.size(); ++k) {
          statistics.linears.push_back(in_context(group[k]->name, [&] {
            return replace_linear(*group[k], std::move(results[k]), to_solve[k].weights,
                                  calibration, factor, rotation, progress);
          }));
          results[k] = {};
          weights[k] = {};
          if (progress.linear_done) progress.linear_done(statistics.linears.back());
        }
      }
    }
    // The last layer's output calibrates nothing.
    if (i + 1 < layers && count > 0)
      for_each_batch([&](index_t b) {
        walk.run(layer, b);
        if (asymmetric) dense_walk.run(*dense, b);
      });
    else
      advance(1);
    if (stream.finished) {
      auto& [hidden, dense_hidden] = stream.states;
      hidden = std::move(walk.states());
      dense_hidden = std::move(dense_walk.states());
      stream.finished(i, layer, std::span(statistics.linears).subspan(before), stream.states);
      walk.states() = std::move(hidden);
      dense_walk.states() = std::move(dense_hidden);
    }
  }
  require_linears(statistics, chosen);
  return statistics;
}

}  // namespace detail

/// Compresses the selected linears of a model in place.
///
/// Per layer: its inputs are those of the already compressed layers before it. H of every input is
/// accumulated, then all linears are compressed; those that read the same input share one H and one
/// factor. With options.true_sequential each input has its own pass.
/// The solver computes in `compute_scalar<S>`, S being what the model is stored in. Whatever is
/// thrown, every linear is then either as it was or compressed, never half of it.
/// @param model     in the backend's memory
/// @param windows   calibration tokens; may be empty with options.magnitude
/// @param options   how, and which linears
/// @param progress  what is told while it runs
/// @return          one entry per compressed linear, in the order of compression
/// @throws argument_error when nothing is selected, there are no windows, an option is out of its
///         range or would be ignored; what the solver throws, with the linear's name in front;
///         invariant_error naming the linear unless every selected one is in the statistics once,
///         with all its channels and the mean bits asked for
template <class Config, class M>
Statistics compress_model(M& model, const CalibrationWindows& windows,
                          const ModelCompressionOptions& options,
                          const CompressionProgress& progress = {}) {
  LayerStream<M> stream = layers_in_memory(model);
  return compress_model<Config>(model, stream, windows, options, progress);
}

/// The same for decoder layers that come one at a time; those of `model` are not looked at. What
/// goes on from stream.first gives the same bytes as what began at layer 0.
template <class Config, class M>
Statistics compress_model(const M& model, LayerStream<M>& stream, const CalibrationWindows& windows,
                          const ModelCompressionOptions& options,
                          const CompressionProgress& progress = {}) {
  static_assert(detail::check_layered_model<M>());
  using B = typename M::backend_type;
  using T = compute_scalar<typename M::scalar_type>;
  SolverOptions solver_options = options.solver;
  if (options.magnitude) solver_options.block_size = std::numeric_limits<index_t>::max() / 2;
  detail::ConfiguredWork<Config, B, T> work{SparseGPTSolver<Config, B, T>(solver_options)};
  Statistics statistics = detail::compress_layers(model, stream, windows, options, progress,
                                                  detail::linear_work<B, T>(work));
  require_counted(statistics, Config::quantizes);
  if constexpr (Config::quantizes) {
    const SolverOptions& o = work.solver.options();
    const std::vector<int> tiers =
        Config::mixed ? o.tiers.value_or(default_tiers()) : std::vector<int>{*o.bits};
    for (const LinearStatistics& linear : statistics.linears)
      require_mean_bits(linear, o.target_average_bits, tiers);
  }
  return statistics;
}

}  // namespace pare
