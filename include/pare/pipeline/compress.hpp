// Compresses an OPT model layer by layer, each calibrated behind the already compressed ones.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/scalar.hpp"
#include "pare/model/opt.hpp"
#include "pare/pipeline/layer.hpp"

namespace pare {

/// Which linears are compressed: decoder layers first <= i < last whose name holds `name_part`;
/// `invert` swaps the selected and the others.
struct LinearSelection {
  index_t first_layer = 0;
  index_t last_layer = std::numeric_limits<index_t>::max();
  std::string name_part = {};
  bool invert = false;

  bool selects(index_t layer, const std::string& name) const {
    const bool inside = layer >= first_layer && layer < last_layer &&
                        name.find(name_part) != std::string::npos;
    return inside != invert;
  }
};

/// Calibration text as token windows.
struct CalibrationWindows {
  std::vector<std::int32_t> ids;  ///< (windows * seqlen), window by window
  index_t seqlen = 0;

  index_t count() const { return seqlen > 0 ? index_t(ids.size()) / seqlen : 0; }
};

struct ModelCompressionOptions {
  SolverOptions solver = {};
  LinearSelection selection = {};
  /// Magnitude pruning and round-to-nearest: every Hessian is the identity and a block is the
  /// whole linear. No calibration text is read.
  bool magnitude = false;
  /// Tokens of one forward batch, in whole windows, one at least; none: what suits the backend.
  std::optional<index_t> batch_tokens = {};
};

/// What a caller is told while a model is being compressed; both may be empty.
struct CompressionProgress {
  std::function<void(const LayerStatistics&)> linear_done;
  std::function<void(double share)> advanced;  ///< 0..1 of all work
};

namespace detail {

/// Tokens of a forward batch: large enough for fast products, small enough to stay small.
template <class B>
inline constexpr index_t batch_tokens = 4096;
template <class B>
  requires requires { B::batch_tokens; }
inline constexpr index_t batch_tokens<B> = B::batch_tokens;

/// Which calibration a linear shares: 0 for k, v and q, then out_proj, fc1, fc2.
inline constexpr std::array<int, 6> input_of_linear{0, 0, 0, 1, 2, 3};

/// Rounds a weight to the type the checkpoint stores and to S, which the model holds.
template <class T, class S>
struct RoundStored {
  MatrixView<T> weights;  // (out, in)
  DType dtype;
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const {
    weights(r, c) = T(S(compute_scalar<S>(round_to(dtype, float(weights(r, c))))));
  }
};

/// The weights of a linear as the solver takes them; `converted` is used where types differ.
template <class B, class S, class T = compute_scalar<S>>
MatrixView<const T> dense_weights(const Linear<B, S>& linear,
                                  typename B::template matrix<T>& converted) {
  if constexpr (std::is_same_v<S, T>) {
    return linear.weight.view();
  } else {
    converted.resize(linear.weight.rows(), linear.weight.cols());
    convert<B>(linear.weight.view(), converted.view());
    return converted.view();
  }
}

/// Puts compressed weights into the model, rounded to the type the checkpoint stores, so that what
/// is evaluated is what is saved. The linear is changed whole or, when it throws, not at all.
template <class B, class S, class T = compute_scalar<S>>
void replace_weights(Linear<B, S>& linear, CompressedLayer<B, T>&& layer) {
  const MatrixView<T> Q = layer.weights.view();
  B::for_each_element(Q.rows, Q.cols, RoundStored<T, S>{Q, linear.dtype});
  require_finite<B, T>(linear.name + ": compressed weights in the checkpoint's type", Q);
  if constexpr (std::is_same_v<S, T>)
    linear.weight = std::move(layer.weights);
  else
    convert<B>(as_const(Q), linear.weight.view());
}

template <class T>
struct SetIdentity {
  MatrixView<T> A;  // (n, n)
  PARE_HOST_DEVICE void operator()(index_t r, index_t c) const { A(r, c) = r == c ? T(1) : T(0); }
};

template <class B, class T>
Calibration<B, T> identity_calibration(index_t n) {
  typename B::template matrix<T> I;
  I.resize(n, n);
  B::for_each_element(n, n, SetIdentity<T>{I.view()});
  return Calibration<B, T>::from_hessian(I.view());
}

}  // namespace detail

/// Compresses the selected linears of a model in place.
///
/// Per decoder layer: its inputs are those of the already compressed layers before it, H of all
/// six linears is accumulated, then all six are compressed; q, k and v share one H and one factor.
/// The solver computes in compute_scalar<S>, S being what the model is stored in. Whatever is
/// thrown, every linear is then either as it was or compressed, never half of it.
/// @param windows  calibration tokens; may be empty with options.magnitude
/// @return         one entry per compressed linear, in the order of compression
/// @throws argument_error when nothing is selected, there are no windows or batch_tokens is not
///         positive; what the solver throws, with the linear's name in front; invariant_error naming
///         the linear unless every selected one is in the statistics once, with all its channels and
///         the mean bits asked for
template <class Config, class B, class S>
Statistics compress_model(OptModel<B, S>& model, const CalibrationWindows& windows,
                          const ModelCompressionOptions& options,
                          const CompressionProgress& progress = {}) {
  using T = compute_scalar<S>;
  SolverOptions solver_options = options.solver;
  if (options.magnitude) solver_options.block_size = std::numeric_limits<index_t>::max() / 2;
  SparseGPTSolver<Config, B, T> solver(solver_options);

  const index_t layers = index_t(model.layers.size());
  const auto selected = [&](index_t i, const Linear<B, S>& linear) {
    return options.selection.selects(i, linear.name);
  };
  std::vector<std::string> chosen;
  for (index_t i = 0; i < layers; ++i)
    for (const auto* linear : model.layers[std::size_t(i)].linears())
      if (selected(i, *linear)) chosen.push_back(linear->name);
  if (chosen.empty())
    throw argument_error("selection: no linear of the model's " + std::to_string(layers) +
                         " layers matches");
  if (!options.magnitude && windows.count() < 1)
    throw argument_error("windows: expected at least one calibration window, got none");
  const index_t batch_tokens = options.batch_tokens.value_or(detail::batch_tokens<B>);
  if (batch_tokens < 1)
    throw argument_error("batch_tokens: expected at least 1, got " + std::to_string(batch_tokens));

  // The work in units of one forward pass of one layer over all windows.
  const double total = double(2 * layers);
  double done = 0;
  const auto advance = [&](double units) {
    done += units;
    if (progress.advanced) progress.advanced(done / total);
  };

  const index_t seqlen = windows.seqlen, count = options.magnitude ? 0 : windows.count();
  const index_t batch = std::max<index_t>(1, batch_tokens / std::max<index_t>(1, seqlen));
  OptWorkspace<B, S> workspace;
  typename B::template matrix<S> hidden;     // (windows * seqlen, hidden)
  typename B::template matrix<T> converted;  // (out, in) of the linear at work
  if (count > 0)
    embed(model,
          std::span<const std::int32_t>(windows.ids.data(), std::size_t(count * seqlen)), seqlen,
          workspace, hidden);
  // Runs pass(rows of hidden, windows) over all batches.
  const auto for_each_batch = [&](const auto& pass) {
    for (index_t first = 0; first < count; first += batch) {
      const index_t size = std::min(batch, count - first);
      pass(hidden.view().block(first * seqlen, 0, size * seqlen, hidden.cols()), size);
      advance(double(size) / double(count));
    }
  };

  Statistics statistics;
  for (index_t i = 0; i < layers; ++i) {
    auto& layer = model.layers[std::size_t(i)];
    const auto linears = layer.linears();
    std::array<bool, 4> needed{};
    for (std::size_t l = 0; l < linears.size(); ++l)
      if (selected(i, *linears[l])) needed[std::size_t(detail::input_of_linear[l])] = true;
    const bool any = needed[0] || needed[1] || needed[2] || needed[3];

    std::vector<Calibration<B, T>> calibrations;
    for (const std::size_t l : {0, 3, 4, 5}) {
      const index_t in = linears[l]->weight.cols();
      const bool identity = options.magnitude && needed[std::size_t(detail::input_of_linear[l])];
      calibrations.push_back(identity ? detail::identity_calibration<B, T>(in)
                                      : Calibration<B, T>(in));
    }
    if (any && count > 0) {
      for_each_batch([&](MatrixView<S> states, index_t size) {
        const auto tap = [&](LayerInput input, MatrixView<const S> X) {
          if (needed[std::size_t(input)]) calibrations[std::size_t(input)].add(X, size);
        };
        forward_layer(model, layer, states, seqlen, workspace, tap, LayerRun::inputs_only);
      });
    } else {
      advance(1);
    }

    Factor<B, T> factor;
    int factored = -1;
    for (std::size_t l = 0; l < linears.size(); ++l) {
      Linear<B, S>& linear = *linears[l];
      if (!selected(i, linear)) continue;
      const int input = detail::input_of_linear[l];
      const Calibration<B, T>& calibration = calibrations[std::size_t(input)];
      try {
        if (factored != input) factor = solver.prepare(calibration);
        factored = input;
        auto solved = solver.solve(detail::dense_weights(linear, converted), calibration, factor);
        statistics.layers.push_back(
            layer_statistics(linear.name, solved, 8 * dtype_bytes(linear.dtype)));
        detail::replace_weights(linear, std::move(solved));
      } catch (const non_finite_error& e) {
        throw non_finite_error(linear.name + ": " + e.what(), e.row(), e.column());
      } catch (const argument_error& e) {
        throw argument_error(linear.name + ": " + e.what());
      } catch (const factorization_error& e) {
        throw factorization_error(linear.name + ": " + e.what());
      } catch (const invariant_error& e) {
        throw invariant_error(e.condition(), linear.name + ": " + e.detail());
      }
      if (progress.linear_done) progress.linear_done(statistics.layers.back());
    }
    // The last layer's output calibrates nothing.
    if (i + 1 < layers && count > 0)
      for_each_batch([&](MatrixView<S> states, index_t) {
        forward_layer(model, layer, states, seqlen, workspace);
      });
    else
      advance(1);
  }
  require_layers(statistics, chosen);
  require_counted(statistics, Config::quantizes);
  if constexpr (Config::quantizes) {
    const SolverOptions& o = solver.options();
    const std::vector<int> tiers =
        Config::mixed ? o.tiers.value_or(default_tiers()) : std::vector<int>{*o.bits};
    for (const LayerStatistics& layer : statistics.layers)
      require_mean_bits(layer, o.target_average_bits, tiers);
  }
  return statistics;
}

}  // namespace pare
