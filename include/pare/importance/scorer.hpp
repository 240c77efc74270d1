// ImportanceScorer<N>: several signals, normalised and weighted into one score per channel.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "pare/importance/signals.hpp"

namespace pare {

/// Scores of all channels of one linear.
template <std::size_t N>
struct Importance {
  std::vector<double> score;                    ///< one per channel
  std::array<std::vector<double>, N> signals;   ///< each divided by its mean over the channels
};

/// Default weights: activation, Hessian, weight, output sensitivity, stability.
inline constexpr std::array<double, 5> default_signal_weights{0.25, 0.25, 0.15, 0.25, 0.10};

/// Scores channels by N signals, each divided by its mean over the channels, then weighted.
///
/// N = 5 without signals takes the five built-in ones of the axis; any number of a user's own
/// signals is given with as many weights.
template <std::size_t N, class B, class T, ChannelAxis Axis = ChannelAxis::output>
class ImportanceScorer {
 public:
  static constexpr ChannelAxis axis = Axis;
  using Input = ScoringInput<B, T>;

  /// The five built-in signals.
  /// @param weights  finite, >= 0, not all zero
  explicit ImportanceScorer(std::array<double, N> weights = default_signal_weights)
    requires(N == 5)
      : weights_(checked(weights)) {}

  /// A user's own signals.
  template <class... Signals>
    requires(sizeof...(Signals) == N && N > 0 && (Signal<Signals, B, T, Axis> && ...))
  explicit ImportanceScorer(std::array<double, N> weights, Signals... signals)
      : weights_(checked(weights)), signals_{std::move(signals)...} {}

  /// @return scores, one per channel (out or in), and the normalised signals
  /// @throws shape_error when weights and calibration disagree, non_finite_error naming the signal,
  ///         argument_error for a negative signal
  Importance<N> score(const Input& input) const {
    require_shape("weights (out, in) against calibration (in)",
                  {input.weights.rows, input.calibration.in_features()},
                  {input.weights.rows, input.weights.cols});
    Importance<N> result;
    result.signals = evaluate(input);
    const index_t channels = Axis == ChannelAxis::output ? input.weights.rows : input.weights.cols;
    result.score.assign(std::size_t(channels), 0.0);
    for (std::size_t s = 0; s < N; ++s) {
      normalise(s, result.signals[s], result.score.size());
      for (std::size_t c = 0; c < result.score.size(); ++c)
        result.score[c] += weights_[s] * result.signals[s][c];
    }
    return result;
  }

  const std::array<double, N>& weights() const { return weights_; }

 private:
  static std::array<double, N> checked(std::array<double, N> weights) {
    double sum = 0;
    for (std::size_t s = 0; s < N; ++s) {
      if (!(weights[s] >= 0) || !std::isfinite(weights[s]))
        throw argument_error("signal weights: expected finite numbers >= 0, got " +
                             std::to_string(weights[s]) + " at " + std::to_string(s));
      sum += weights[s];
    }
    if (sum == 0) throw argument_error("signal weights: expected at least one above 0, got none");
    return weights;
  }

  std::array<std::vector<double>, N> evaluate(const Input& input) const {
    std::array<std::vector<double>, N> signals;
    if (signals_[0]) {
      for (std::size_t s = 0; s < N; ++s) signals[s] = signals_[s](input);
      return signals;
    }
    if constexpr (N == 5 && Axis == ChannelAxis::output) {
      OutputMoments m = output_moments(input);  // one product serves all five
      signals = {std::move(m.mean_abs), std::move(m.energy), std::move(m.weight),
                 std::move(m.distortion), std::move(m.variance)};
    } else if constexpr (N == 5) {
      using namespace input_signal;
      signals = {Activation{}(input), Hessian{}(input), Weight{}(input),
                 OutputSensitivity{}(input), Stability{}(input)};
    }
    return signals;
  }

  /// Divides a signal by its mean. A signal that is zero everywhere says nothing and stays zero.
  static void normalise(std::size_t number, std::vector<double>& signal, std::size_t channels) {
    const std::string name = "signal " + std::to_string(number);
    if (signal.size() != channels)
      throw shape_error(name + ": expected " + std::to_string(channels) + " channels, got " +
                        std::to_string(signal.size()));
    double mean = 0;
    for (std::size_t c = 0; c < channels; ++c) {
      if (!std::isfinite(signal[c]))
        throw non_finite_error(name + ": expected finite numbers, got NaN or infinity at channel " +
                                   std::to_string(c),
                               0, index_t(c));
      if (signal[c] < 0)
        throw argument_error(name + ": expected numbers >= 0, got " + std::to_string(signal[c]) +
                             " at channel " + std::to_string(c));
      mean += signal[c] / double(channels);
    }
    if (mean > 0)
      for (double& value : signal) value /= mean;
  }

  std::array<double, N> weights_;
  std::array<std::function<std::vector<double>(const Input&)>, N> signals_;
};

}  // namespace pare
