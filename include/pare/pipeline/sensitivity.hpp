// How much each linear of a model suffers from rounding, measured on the dense model.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/importance/distortion.hpp"
#include "pare/model/divergence.hpp"
#include "pare/pipeline/compress.hpp"

namespace pare::inline PARE_TARGET {

/// One linear with one sparsity pattern and one group size, its inputs as they are or turned.
struct ModeSensitivity {
  /// What is pruned.
  Pattern pattern;
  std::vector<double> distortion;    ///< (channels, widths), row-major; see channel_distortion
  std::vector<double> kept;          ///< share of each channel's weights that stay, (channels)
  std::map<int, double> divergence;  ///< by width of all channels: KL when this linear alone is
                                     ///< compressed, nats per token; empty when not measured
  index_t group_size = 0;            ///< inputs that share a grid; 0: all of a row or tier
  bool rotated = false;  ///< whether the inputs are turned: all of this is of the turned basis
};

/// One linear with every pattern and group size that was tried, in every basis.
struct LinearSensitivity {
  /// Name of its weight in the model.
  std::string name;
  index_t rows = 0, columns = 0;  ///< (out, in)
  /// As they are before turned, where both are measured; for each in the order of
  /// SensitivityOptions::patterns, for each of these in that of its group_sizes.
  std::vector<ModeSensitivity> modes;
};

/// What to measure.
struct SensitivityOptions {
  SolverOptions solver = {};  ///< axis, grid, group_fit, damping, block_size, act_order
  /// Patterns that a plan may choose from.
  std::vector<Pattern> patterns = {Pattern{}};
  /// Group sizes that a plan may choose from, 0 for whole rows. The KL is measured with the first;
  /// for the others it is taken to depend on the distortion alone.
  std::vector<index_t> group_sizes = {0};
  /// Whether a group size that does not divide the inputs of a linear gives way, in this linear, to
  /// the largest of 128, 64 and 32 below it that does; 32 where none does.
  bool whole_groups = false;
  std::vector<int> widths = {2, 3, 4, 6, 8};  ///< tiers that a plan may choose from, increasing
  std::vector<int> divergence_widths = {3};   ///< where the KL is measured; empty: nowhere
  /// Windows the KL is measured on, the first of the calibration text; none: as many as keep the
  /// whole pass within one and a half plain compressions.
  std::optional<index_t> divergence_windows = {};
  /// Which linears.
  LinearSelection selection = {};
  /// As in ModelCompressionOptions: channels, masks and grids are those of the turned basis.
  std::optional<kernels::HadamardRotation> rotation = {};
  /// Whether, where there is a rotation, linears are measured without it too, so that a plan may
  /// choose for each.
  bool choose_rotation = false;
  std::optional<index_t> batch_tokens = {};  ///< as in ModelCompressionOptions
};

/// Whether inputs are turned, as modes are measured.
inline std::vector<bool> measured_rotations(const SensitivityOptions& options) {
  if (!options.rotation) return {false};
  return options.choose_rotation ? std::vector<bool>{false, true} : std::vector<bool>{true};
}

/// The group sizes that are measured for a linear.
/// @param options  group_sizes, in whose order they come, and whole_groups
/// @param columns  inputs of the linear
inline std::vector<index_t> measured_group_sizes(const SensitivityOptions& options,
                                                 index_t columns) {
  std::vector<index_t> sizes;
  sizes.reserve(options.group_sizes.size());
  for (const index_t asked : options.group_sizes) {
    index_t size = resolved_group_size(asked, columns);
    if (options.whole_groups && size != 0 && columns % size != 0)
      size = std::min(size, resolved_group_size(dividing_group_size, columns));
    sizes.push_back(size);
  }
  return sizes;
}

/// What measure_sensitivities found, and what it was measured with.
struct Sensitivities {
  /// In the order of the model.
  std::vector<LinearSensitivity> linears;
  /// Tiers measured, and those at which the KL was.
  std::vector<int> widths, divergence_widths;
  /// Axis, grids and their fit, damping, block size and act-order; the rest is unset.
  SolverOptions solver = {};
  /// Of the inputs in modes that are `rotated`.
  std::optional<kernels::HadamardRotation> rotation = {};
  /// Tokens of a window, windows read, windows the KL was measured on.
  index_t seqlen = 0, windows = 0, divergence_windows = 0;
  std::uint64_t model = 0, text = 0;  ///< fingerprints of the weights and of the token ids
};

namespace detail {

/// Windows for the KL: each evaluation of a linear runs the layers from its own on and the head.
template <class M>
index_t affordable_windows(const M& model, index_t windows, std::size_t solves) {
  double weights = 0, linears = 0;
  const double layers = double(model.layers.size());
  for (const auto& layer : model.layers)
    for (const auto* linear : layer.linears()) {
      weights += double(linear->weight.rows()) * double(linear->weight.cols());
      ++linears;
    }
  const double head = double(model.lm_head().size()) / (weights / layers);
  // A plain compression runs every layer twice; this pass once, which leaves 2 layers * windows. A
  // quarter of that is left to the solves.
  const double passes = linears / layers * double(solves) * ((layers + 1) / 2 + head);
  return std::clamp<index_t>(index_t(1.5 * double(windows) / passes), 1, windows);
}

/// Runs all windows through a layer. Returns H of every input that a selected linear reads, by
/// Linear::input, in the turned basis where there is a rotation.
/// @param walk   with what enters the layer; afterwards, unless it is the last, with what leaves it
/// @param index  of the layer
template <class M, class B = typename M::backend_type,
          class T = compute_scalar<typename M::scalar_type>>
std::vector<std::optional<Calibration<B, T>>> layer_calibrations(
    Walk<M>& walk, index_t index, const typename M::layer_type& layer,
    const LinearSelection& selection, const std::optional<kernels::HadamardRotation>& rotation,
    bool last) {
  using S = typename M::scalar_type;
  const index_t inputs = inputs_of(layer);
  std::vector<std::optional<Calibration<B, T>>> calibrations{std::size_t(inputs)};
  for (const auto* linear : layer.linears())
    if (selection.selects(index, linear->name))
      calibrations[std::size_t(linear->input)].emplace(linear->weight.cols());
  typename B::template matrix<T> turned;  // an input of a batch
  for (index_t b = 0; b < walk.batches(); ++b)
    walk.run(
        layer, b,
        [&](index_t input, MatrixView<const S> X) {
          auto& calibration = calibrations[std::size_t(input)];
          if (!calibration) return;
          if (rotation)
            calibration->add(turned_rows<B, S, T>(X, *rotation, turned), walk.size(b));
          else
            calibration->add(X, walk.size(b));
        },
        last ? inputs - 1 : whole_layer);
  return calibrations;
}

/// Puts solved weights into a linear, turned back where there is a rotation. Those in `solved` are
/// turned back too.
template <class B, class S, class T>
void set_weights(Linear<B, S>& linear, CompressedLinear<B, T>& solved,
                 const std::optional<kernels::HadamardRotation>& rotation) {
  if (rotation) turn_weights<B, T>(solved.weights, *rotation, Turn::back);
  if constexpr (std::is_same_v<S, T>)
    B::copy(as_const(solved.weights.view()), linear.weight.view());
  else
    convert<B>(as_const(solved.weights.view()), linear.weight.view());
}

/// Calls f() when it goes.
template <class F>
class AtExit {
 public:
  explicit AtExit(F f) : f_(std::move(f)) {}
  AtExit(const AtExit&) = delete;
  ~AtExit() { f_(); }

 private:
  F f_;
};

}  // namespace detail

/// Adds the weights of a layer's linears to the fingerprint of a model.
template <class M>
void add_weights(Fingerprint& fingerprint, const typename M::layer_type& layer) {
  for (const auto* linear : layer.linears()) {
    const auto W = M::backend_type::to_host(linear->weight.view());
    fingerprint.add(W.data(), std::size_t(W.size()));
  }
}

/// Fingerprint of all linears' weights.
template <class M>
std::uint64_t model_fingerprint(const M& model) {
  Fingerprint fingerprint;
  for (const auto& layer : model.layers) add_weights<M>(fingerprint, layer);
  return fingerprint.value();
}

/// A number for the token ids and the length of the windows.
inline std::uint64_t text_fingerprint(const CalibrationWindows& windows) {
  Fingerprint fingerprint;
  fingerprint.add(windows.ids.data(), windows.ids.size());
  fingerprint.add(&windows.seqlen, 1);
  return fingerprint.value();
}

/// Measures the selected linears of a dense model, one pass over the calibration text.
///
/// Per linear and pattern: the distortion of every channel at every width, and the divergence of
/// the model's predictions when this linear alone is compressed, at options.divergence_widths. The
/// model is as it was afterwards, whatever is thrown.
/// @param model     dense; a linear's weights are replaced while its divergence is measured
/// @param windows   calibration tokens, at least one window
/// @param options   what is measured
/// @param advanced  told the share of linears done, 0..1; may be empty
/// @throws argument_error naming an option that does not fit; what the solver throws
template <class M>
Sensitivities measure_sensitivities(M& model, const CalibrationWindows& windows,
                                    const SensitivityOptions& options,
                                    const std::function<void(double)>& advanced = {}) {
  static_assert(detail::check_layered_model<M>());
  using B = typename M::backend_type;
  using S = typename M::scalar_type;
  using T = compute_scalar<S>;
  if (windows.count() < 1)
    throw argument_error("windows: expected at least one calibration window, got none");
  if (options.group_sizes.empty())
    throw argument_error("group_sizes: expected at least one, got none");
  if (options.patterns.empty()) throw argument_error("patterns: expected at least one, got none");
  for (const auto* widths : {&options.widths, &options.divergence_widths})
    for (std::size_t k = 0; k < widths->size(); ++k)
      if ((*widths)[k] < min_bits || (*widths)[k] > max_bits ||
          (k > 0 && (*widths)[k] <= (*widths)[k - 1]))
        throw argument_error("widths: expected increasing numbers within 2..8");
  if (options.widths.empty()) throw argument_error("widths: expected at least one, got none");
  const PlannedSolver<B, T> solver(options.solver);
  const index_t seqlen = windows.seqlen, count = windows.count();
  const std::vector<bool> rotations = measured_rotations(options);
  const std::size_t evaluations =
      rotations.size() * options.patterns.size() * options.divergence_widths.size();

  Sensitivities result;
  result.widths = options.widths;
  result.divergence_widths = options.divergence_widths;
  result.solver = options.solver;
  result.rotation = options.rotation;
  result.seqlen = seqlen;
  result.windows = count;
  if (evaluations > 0)
    result.divergence_windows =
        std::min(count, options.divergence_windows.value_or(
                            detail::affordable_windows(model, count, evaluations)));
  if (evaluations > 0 && result.divergence_windows < 1)
    throw argument_error("divergence_windows: expected at least 1, got " +
                         std::to_string(*options.divergence_windows));
  result.model = model_fingerprint(model);
  result.text = text_fingerprint(windows);

  const std::span<const std::int32_t> ids(windows.ids.data(), std::size_t(count * seqlen));
  const index_t batch_tokens = options.batch_tokens.value_or(detail::batch_tokens<B>);
  Walk<M> walk(model, ids, seqlen, batch_tokens);
  typename B::template matrix<S> start;      // what enters a layer, of the windows the KL is of
  typename B::template matrix<T> converted;  // (out, in) of the linear at work
  typename B::template matrix<T> turned_weights;  // the same, times R^T
  walk.embed_all();
  const index_t first_tokens = result.divergence_windows * seqlen;
  std::optional<ReferencePredictions<M>> reference;
  if (evaluations > 0) reference.emplace(model, ids.first(std::size_t(first_tokens)), seqlen);

  const index_t layers = index_t(model.layers.size());
  for (index_t i = 0; i < layers; ++i) {
    auto& layer = model.layers[std::size_t(i)];
    const auto linears = layer.linears();
    if (first_tokens > 0) {
      const auto hidden = detail::as_const(walk.states().view());
      start.resize(first_tokens, hidden.cols);
      B::copy(hidden.block(0, 0, first_tokens, hidden.cols), start.view());
    }
    const bool both = rotations.size() > 1;
    const auto calibrations =
        detail::layer_calibrations(walk, i, layer, options.selection,
                                   both ? std::nullopt : options.rotation, i + 1 == layers);

    // The last input, as it is and turned, and its factors.
    struct Basis {
      std::optional<Calibration<B, T>> calibration;  // where both are measured, of turned inputs
      Factor<B, T> factor;
      std::optional<std::pair<index_t, Pattern>> factored;
    };
    Basis bases[2];
    index_t turned_input = -1;
    for (std::size_t l = 0; l < linears.size(); ++l) {
      Linear<B, S>& linear = *linears[l];
      if (!options.selection.selects(i, linear.name)) continue;
      const index_t input = linear.input;
      if (both && turned_input != input)
        bases[1].calibration =
            detail::turned_calibration<B, T>(*calibrations[std::size_t(input)], *options.rotation);
      turned_input = input;
      LinearSensitivity measured{linear.name, linear.weight.rows(), linear.weight.cols(), {}};
      const bool by_row = options.solver.axis == ChannelAxis::output;
      const std::size_t channels = std::size_t(by_row ? measured.rows : measured.columns);
      const MatrixView<const T> dense_W = detail::dense_weights(linear, converted);
      const auto measure = [&](bool rotated, const Pattern& pattern) {
        Basis& basis = bases[rotated];
        const Calibration<B, T>& calibration =
            rotated && both ? *basis.calibration : *calibrations[std::size_t(input)];
        std::optional<kernels::HadamardRotation> rotation;
        if (rotated) rotation = options.rotation;
        const MatrixView<const T> W =
            rotated ? detail::turned_rows<B, T, T>(dense_W, *rotation, turned_weights) : dense_W;
        const std::vector<index_t> sizes = measured_group_sizes(options, measured.columns);
        const index_t first_size = sizes.front();
        ModeSensitivity mode{pattern, {},         std::vector<double>(channels, 1.0),
                             {},      first_size, rotated};
        in_context(linear.name, [&] {
          if (basis.factored != std::pair{input, pattern})
            basis.factor = solver.prepare(pattern, calibration);
          basis.factored = {input, pattern};
          typename B::template matrix<std::uint8_t> mask;
          // The mask and the weights of a solve at each width; masks of different widths hardly
          // differ, the first serves the distortions.
          std::vector<int> solves = options.divergence_widths;
          if (solves.empty() && pattern.prunes())
            solves = {options.widths[options.widths.size() / 2]};
          for (const int width : solves) {
            const std::vector<std::uint8_t> bits(channels, std::uint8_t(width));
            auto solved = solver.solve(
                pattern, first_size,
                {.weights = W, .calibration = calibration, .factor = basis.factor, .bits = bits});
            if (pattern.prunes() && mask.rows() == 0) {
              mask = solved.mask;
              mode.kept = detail::kept_shares<B, T>(detail::as_const(mask.view()), by_row);
            }
            if (evaluations == 0) continue;
            const auto dense = linear.weight;
            const detail::AtExit restore([&] { B::copy(dense.view(), linear.weight.view()); });
            detail::set_weights(linear, solved, rotation);
            mode.divergence[width] =
                reference->divergence(model, std::size_t(i), detail::as_const(start.view()));
          }
          for (const index_t size : sizes) {
            const ScoringInput<B, T> scoring{
                W, calibration, basis.factor, options.widths.front(), options.solver.grid, size};
            const bool again = mode.group_size == size && !mode.distortion.empty();
            mode.group_size = size;
            if (!again)
              mode.distortion = channel_distortion(scoring, options.solver.axis, options.widths,
                                                   detail::as_const(mask.view()));
            measured.modes.push_back(mode);
            mode.divergence.clear();  // measured with the first alone
          }
        });
      };
      for (const bool rotated : rotations)
        for (const Pattern& pattern : options.patterns) measure(rotated, pattern);
      result.linears.push_back(std::move(measured));
      if (advanced) advanced((double(i) + double(l + 1) / double(linears.size())) / double(layers));
    }
  }
  if (result.linears.empty())
    throw argument_error("selection: no linear of the model's " + std::to_string(layers) +
                         " layers matches");
  return result;
}

}  // namespace pare
