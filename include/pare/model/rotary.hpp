// Cosines and sines of rotary positions, with every way of stretching them.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/model/architecture.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// The dimension that turns `rotations` times over the positions trained on.
inline double yarn_dimension(const Rotary& rotary, double rotations) {
  const double positions = double(rotary.original_positions);
  return double(rotary.width) * std::log(positions / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rotary.theta));
}

/// YaRN: slow dimensions are interpolated, fast ones stay.
inline void stretch_yarn(const Rotary& rotary, std::vector<double>& frequencies) {
  double low = yarn_dimension(rotary, rotary.beta_fast);
  double high = yarn_dimension(rotary, rotary.beta_slow);
  if (rotary.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, double(rotary.width - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double slow = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= slow / rotary.factor + (1 - slow);
  }
}

/// Llama 3.1: long waves are interpolated, short ones stay, those between are mixed.
inline void stretch_llama3(const Rotary& rotary, std::vector<double>& frequencies) {
  const double positions = double(rotary.original_positions);
  for (double& frequency : frequencies) {
    const double turns = positions * frequency / (2 * std::numbers::pi);
    const double fast = (turns - rotary.low_frequency_factor) /
                        (rotary.high_frequency_factor - rotary.low_frequency_factor);
    const double kept = std::clamp(fast, 0.0, 1.0);
    frequency *= kept + (1 - kept) / rotary.factor;
  }
}

}  // namespace detail

/// The angle by which each pair of columns turns from a position to the next, radians.
/// @param rotary   checked by load_architecture
/// @param seqlen   tokens of a window, which dynamic scaling and longrope depend on
/// @return         (pairs)
///
/// Sources: Su et al. 2021 (RoFormer), equation 15; Peng et al. 2023 (YaRN), equations 17 to 23;
/// Ding et al. 2024 (LongRoPE); Llama 3.1's and the dynamic form as transformers has them.
inline std::vector<double> rotary_frequencies(const Rotary& rotary, index_t seqlen) {
  const double width = double(rotary.width), positions = double(rotary.original_positions);
  double theta = rotary.theta;
  if (rotary.scaling == RotaryScaling::dynamic_ntk && double(seqlen) > positions)
    theta *= std::pow(rotary.factor * double(seqlen) / positions - (rotary.factor - 1),
                      width / (width - 2));
  std::vector<double> frequencies;
  for (index_t i = 0; i < rotary.pairs(); ++i)
    frequencies.push_back(std::pow(theta, -2 * double(i) / width));
  switch (rotary.scaling) {
    case RotaryScaling::linear:
      for (double& frequency : frequencies) frequency /= rotary.factor;
      break;
    case RotaryScaling::llama3:
      detail::stretch_llama3(rotary, frequencies);
      break;
    case RotaryScaling::yarn:
      detail::stretch_yarn(rotary, frequencies);
      break;
    case RotaryScaling::longrope: {
      const auto& factors =
          seqlen > rotary.original_positions ? rotary.long_factor : rotary.short_factor;
      for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= factors[i];
      break;
    }
    case RotaryScaling::none:
    case RotaryScaling::dynamic_ntk:
      break;
  }
  return frequencies;
}

/// Cosines and sines of every position of a window.
template <class T>
struct RotaryTables {
  Matrix<T> cosines, sines;  // (seqlen, pairs)
};

/// Both tables, times Rotary::attention_factor. Angles are computed in float64.
template <class T>
RotaryTables<T> rotary_tables(const Rotary& rotary, index_t seqlen) {
  const std::vector<double> frequencies = rotary_frequencies(rotary, seqlen);
  const index_t half = index_t(frequencies.size());
  RotaryTables<T> tables{Matrix<T>(seqlen, half), Matrix<T>(seqlen, half)};
  for (index_t t = 0; t < seqlen; ++t)
    for (index_t i = 0; i < half; ++i) {
      const double angle = double(t) * frequencies[std::size_t(i)];
      tables.cosines(t, i) = T(rotary.attention_factor * std::cos(angle));
      tables.sines(t, i) = T(rotary.attention_factor * std::sin(angle));
    }
  return tables;
}

/// Slopes of ALiBi, one for each head: powers of 2^(-8/n) for n heads where n is a power of two, and
/// every second of those of the next power for the rest.
/// Source: Press et al. 2021 (Train Short, Test Long), section 3, and the code published with it.
inline std::vector<double> alibi_slopes(index_t heads) {
  index_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes;
  for (index_t h = 1; h <= power; ++h)
    slopes.push_back(std::exp2(-8.0 * double(h) / double(power)));
  for (index_t h = 1; index_t(slopes.size()) < heads; h += 2)
    slopes.push_back(std::exp2(-8.0 * double(h) / double(2 * power)));
  return slopes;
}

}  // namespace pare
