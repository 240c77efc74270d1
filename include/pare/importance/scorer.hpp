// ImportanceScorer<N>: several signals, normalised and weighted into one score per channel.
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/importance/signals.hpp"

namespace pare::inline PARE_TARGET {

/// Scores of all channels of one linear.
template <std::size_t N>
struct Importance {
  std::vector<double> score;                   ///< one per channel
  std::array<std::vector<double>, N> signals;  ///< each divided by its mean over the channels
};

/// Default weights: activation, Hessian, weight, output sensitivity, stability.
inline constexpr std::array<double, 5> default_signal_weights{0.25, 0.25, 0.15, 0.25, 0.10};

namespace detail {

template <class S>
concept NamesAxis = requires {
  { S::axis } -> std::convertible_to<ChannelAxis>;
};
template <class S, class Input>
concept SignalCall = std::invocable<const S&, const Input&>;

/// One signal of a scorer; always true. One message per misuse.
template <class S, class B, class T, ChannelAxis Axis>
constexpr bool check_signal() {
  static_assert(NamesAxis<S>,
                "pare: a signal without its axis: it must say what a channel is; write "
                "static constexpr ChannelAxis axis = ChannelAxis::output (or input)");
  if constexpr (NamesAxis<S>) {
    static_assert(S::axis == Axis,
                  "pare: a signal for the other channel axis: the scorer would get one number per "
                  "input instead of one per output, or the reverse; write a signal of the "
                  "scorer's axis, from output_signal or input_signal");
    if constexpr (S::axis == Axis) {
      using Input = ScoringInput<B, T>;
      static_assert(SignalCall<S, Input>,
                    "pare: a signal that is not callable with the scorer's backend and scalar: it "
                    "is called on ScoringInput<B, T>; write operator()(const ScoringInput<B, T>&) "
                    "const, a template over B and T where it does not matter");
      if constexpr (SignalCall<S, Input>)
        static_assert(
            std::same_as<std::invoke_result_t<const S&, const Input&>, std::vector<double>>,
            "pare: a signal with another result type: one number >= 0 per channel is "
            "expected; return std::vector<double>");
    }
  }
  return true;
}

/// The arguments of a scorer's constructor. A class, so that its checks precede the constructor's
/// own errors.
template <std::size_t N, std::size_t Weights, class B, class T, ChannelAxis Axis, class... Signals>
struct ScorerArguments {
  static constexpr bool weighted = Weights == N;
  static constexpr bool built_in = sizeof...(Signals) == 0;
  static constexpr bool counted = built_in ? N == 5 : sizeof...(Signals) == N;
  static_assert(weighted,
                "pare: ImportanceScorer<N> with another number of weights: every signal has one "
                "weight; write N numbers");
  static_assert(!weighted || counted || !built_in,
                "pare: ImportanceScorer<N> without signals for N other than 5: five signals are "
                "built in; write ImportanceScorer<5, ...> or give N signals");
  static_assert(!weighted || counted || built_in,
                "pare: ImportanceScorer<N> with another number of signals: every weight has one "
                "signal; write N signals");
  static constexpr bool check() {
    if constexpr (weighted && counted) return (check_signal<Signals, B, T, Axis>() && ...);
    return true;
  }
  static_assert(check());
  static constexpr bool good = weighted && counted && (Signal<Signals, B, T, Axis> && ...);
};

}  // namespace detail

/// Scores channels by N signals, each divided by its mean over the channels, then weighted.
///
/// N = 5 without signals takes the five built-in ones of the axis; any number of a user's own
/// signals is given with as many weights.
template <std::size_t N, class B, class T, ChannelAxis Axis = ChannelAxis::output>
class ImportanceScorer {
  static_assert(N > 0,
                "pare: ImportanceScorer<0>: without a signal all channels are alike; write "
                "ImportanceScorer<5, ...> or give signals of your own");
  static_assert(detail::check_backend<B, T>());

 public:
  /// What a channel is.
  static constexpr ChannelAxis axis = Axis;
  /// What signals look at.
  using Input = ScoringInput<B, T>;

  /// The five built-in signals with their default weights.
  ImportanceScorer() : ImportanceScorer(default_signal_weights) {}

  /// @param weights  N numbers, finite, >= 0, not all zero
  /// @param signals  N signals of the axis; none: the five built-in ones
  /// @throws argument_error for weights that are negative, not finite or all zero
  template <std::size_t Weights, class... Signals>
  explicit ImportanceScorer(const std::array<double, Weights>& weights, Signals... signals) {
    using Arguments = detail::ScorerArguments<N, Weights, B, T, Axis, Signals...>;
    if constexpr (Arguments::good) {
      weights_ = checked(weights);
      if constexpr (!Arguments::built_in) signals_ = {std::move(signals)...};
    }
  }
  /// The same with weights in braces: every one is written out, none is filled in.
  template <std::size_t Weights, class... Signals>
  explicit ImportanceScorer(const double (&weights)[Weights], Signals... signals)
      : ImportanceScorer(std::to_array(weights), std::move(signals)...) {}

  /// The five built-in signals but one.
  /// @tparam S       which gives way: 0 activation, 1 Hessian, 2 weight, 3 output sensitivity, 4
  ///                 stability
  /// @param signal   stands in its place
  /// @param weights  as in the constructor
  template <std::size_t S, class Signal>
  static ImportanceScorer with(Signal signal,
                               const std::array<double, N>& weights = default_signal_weights) {
    static_assert(N == 5 && S < 5,
                  "pare: ImportanceScorer<N>::with<S> outside the five built-in signals: S says "
                  "which of them gives way; write ImportanceScorer<5, ...>::with<0> to with<4>");
    static_assert(detail::check_signal<Signal, B, T, Axis>());
    ImportanceScorer scorer(weights);
    if constexpr (Axis == ChannelAxis::output) {
      using namespace output_signal;
      scorer.signals_ = {Activation{}, Hessian{}, Weight{}, OutputSensitivity{}, Stability{}};
    } else {
      using namespace input_signal;
      scorer.signals_ = {Activation{}, Hessian{}, Weight{}, OutputSensitivity{}, Stability{}};
    }
    scorer.signals_[S] = std::move(signal);
    return scorer;
  }

  /// @return scores, one per channel (out or in), and the normalised signals
  /// @throws shape_error when weights, calibration and factor disagree, argument_error for weights that
  ///         cannot be read or a negative signal, non_finite_error naming the signal
  Importance<N> score(const Input& input) const {
    require_scorable(input);
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

  /// The weights given, one per signal.
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
      signals = {Activation{}(input), Hessian{}(input), Weight{}(input), OutputSensitivity{}(input),
                 Stability{}(input)};
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

  std::array<double, N> weights_ = {};
  std::array<std::function<std::vector<double>(const Input&)>, N> signals_;
};

}  // namespace pare
