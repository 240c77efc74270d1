// Orthogonal matrices that spread outliers, as plain data.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/kernels/hadamard.hpp"
#include "pare/model/architecture.hpp"

namespace pare::inline PARE_TARGET {

/// An orthogonal matrix R (size, size) that can be multiplied with fast. With k the largest power of
/// two that divides size = m k, H the Hadamard matrix (k, k), D signs and A an orthogonal matrix
/// (m, m):
///
///     R = (A kron H / sqrt(k)) D     D (size), or
///     R = A kron (H D H / k)         D (k), where R and A leave the vector of ones where it is.
///
/// docs/mathematics.md, section "Rotation". Ashkboos et al., "QuaRot" (2024) turn models by Hadamard
/// matrices.
struct Rotation {
  index_t size = 0;                     ///< rows and columns
  bool keeps_ones = false;              ///< whether R 1 = 1
  std::vector<double> across = {};      ///< A (m, m), row-major; empty where m is 1
  std::vector<std::int8_t> signs = {};  ///< D, 1 and -1, (size) or (k)

  /// k, the size of the Hadamard matrices.
  index_t block() const { return kernels::power_of_two_in(size); }
  /// m = size / k.
  index_t blocks() const { return size / block(); }
};

namespace detail {

inline std::vector<std::int8_t> random_signs(index_t count, std::uint64_t seed) {
  const kernels::HadamardRotation random{seed};
  std::vector<std::int8_t> signs(std::size_t(count), std::int8_t{1});
  for (index_t i = 0; i < count; ++i) signs[std::size_t(i)] = std::int8_t(random.sign(i));
  return signs;
}

/// The discrete Hartley transform (m, m), symmetric and orthogonal: entries of at most sqrt(2 / m).
inline std::vector<double> hartley(index_t m) {
  std::vector<double> A(std::size_t(m * m), 0.0);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      const double angle = 2 * std::numbers::pi * double(i * j % m) / double(m);
      A[std::size_t(i * m + j)] = (std::cos(angle) + std::sin(angle)) / std::sqrt(double(m));
    }
  return A;
}

/// B diag(1, Q) B^T (m, m) for the Hartley transform Q (m - 1, m - 1) with signs on either side and
/// the reflection B whose first column is 1 / sqrt(m): it leaves the vector of ones where it is. The
/// signs of rows keep the columns of Q away from that vector, which B would gather in one channel.
inline std::vector<double> ones_preserving(index_t m, std::uint64_t seed) {
  const std::vector<double> Q = hartley(m - 1);
  const std::vector<std::int8_t> signs = random_signs(2 * m, seed);
  std::vector<double> A(std::size_t(m * m), 0.0);
  A[0] = 1;
  for (index_t i = 1; i < m; ++i)
    for (index_t j = 1; j < m; ++j)
      A[std::size_t(i * m + j)] = Q[std::size_t((i - 1) * (m - 1) + j - 1)] *
                                  signs[std::size_t(i)] * signs[std::size_t(m + j)];
  // B = I - 2 v v^T / v^T v with v = e - 1 / sqrt(m), from both sides.
  std::vector<double> v(std::size_t(m), -1 / std::sqrt(double(m)));
  v[0] += 1;
  double squares = 0;
  for (const double x : v) squares += x * x;
  const auto reflect = [&](index_t step_along, index_t step_across) {
    for (index_t line = 0; line < m; ++line) {
      double* x = A.data() + line * step_across;
      double dot = 0;
      for (index_t i = 0; i < m; ++i) dot += v[std::size_t(i)] * x[i * step_along];
      for (index_t i = 0; i < m; ++i) x[i * step_along] -= 2 * dot / squares * v[std::size_t(i)];
    }
  };
  reflect(m, 1);
  reflect(1, m);
  return A;
}

inline double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

/// x = (A kron I) x for x (m, k).
inline void mix_blocks(const std::vector<double>& A, index_t m, index_t k, double* x,
                       std::vector<double>& buffer) {
  buffer.assign(x, x + m * k);
  std::fill_n(x, m * k, 0.0);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      const double a = A[std::size_t(i * m + j)];
      const double* PARE_RESTRICT from = buffer.data() + j * k;
      double* PARE_RESTRICT to = x + i * k;
      for (index_t c = 0; c < k; ++c) to[c] += a * from[c];
    }
}

}  // namespace detail

/// x = R x.
/// @param rotation  R
/// @param x         (rotation.size)
/// @param buffer    for the time of the call; grows to the size
inline void rotate(const Rotation& rotation, double* x, std::vector<double>& buffer) {
  const index_t k = rotation.block(), m = rotation.blocks();
  if (!rotation.keeps_ones)
    for (index_t i = 0; i < rotation.size; ++i) x[i] *= rotation.signs[std::size_t(i)];
  const double scale = rotation.keeps_ones ? 1 / double(k) : 1 / std::sqrt(double(k));
  for (index_t b = 0; b < m; ++b) {
    double* part = x + b * k;
    kernels::hadamard(part, k);
    if (rotation.keeps_ones) {
      for (index_t i = 0; i < k; ++i) part[i] *= rotation.signs[std::size_t(i)];
      kernels::hadamard(part, k);
    }
    for (index_t i = 0; i < k; ++i) part[i] *= scale;
  }
  if (m > 1) detail::mix_blocks(rotation.across, m, k, x, buffer);
}

/// The largest |R_ij|. No orthogonal matrix has less than 1 / sqrt(size); the identity and
/// permutations have 1, and spread nothing.
inline double largest_entry(const Rotation& rotation) {
  const index_t k = rotation.block();
  const double across = rotation.blocks() > 1 ? detail::largest_of(rotation.across) : 1;
  if (!rotation.keeps_ones) return across / std::sqrt(double(k));
  // H D H / k holds the entries of H D 1 / k, each in every row.
  std::vector<double> row(rotation.signs.begin(), rotation.signs.end());
  kernels::hadamard(row.data(), k);
  return across * detail::largest_of(row) / double(k);
}

/// A random rotation whose entries are at most 6 / sqrt(size), the more alike the better. Where
/// R 1 = 1 is asked for, none is that spreads 2 or 1 channels: what comes is then a permutation.
/// @param size        rows and columns, at least 1
/// @param seed        another seed, another matrix
/// @param keeps_ones  whether R 1 = 1
/// @throws argument_error for a size below 1
inline Rotation make_rotation(index_t size, std::uint64_t seed, bool keeps_ones = false) {
  if (size < 1) throw argument_error("size: expected at least 1, got " + std::to_string(size));
  Rotation rotation{.size = size, .keeps_ones = keeps_ones};
  const index_t m = rotation.blocks();
  if (!keeps_ones) {
    rotation.signs = detail::random_signs(size, seed);
    if (m > 1) rotation.across = detail::hartley(m);
    return rotation;
  }
  // Random signs may be such that H D H has a large entry; of a few draws one is good.
  Rotation best = rotation;
  double least = 2;
  constexpr int draws = 16;
  for (int draw = 0; draw < draws; ++draw) {
    const std::uint64_t key = kernels::FillNormal<float>::mix(
        kernels::FillNormal<float>::mix(seed) + std::uint64_t(draw));
    rotation.signs = detail::random_signs(rotation.block(), key);
    rotation.signs.front() = 1;  // which keeps the ones
    if (m > 1) rotation.across = detail::ones_preserving(m, key);
    const double largest = largest_entry(rotation);
    if (largest >= least) continue;
    least = largest;
    best = rotation;
  }
  return best;
}

/// Which rotations of the residual stream leave what a model computes as it is.
enum class ResidualRotation : std::uint8_t {
  none,        ///< none
  keeps_ones,  ///< those with R 1 = 1
  any,         ///< all
};

/// What may be rotated in the weights of a model, and why not more.
struct RotationRule {
  ResidualRotation residual = ResidualRotation::none;  ///< of the residual stream
  std::string reason = {};  ///< why the residual stream is not rotated; empty where it is
};

/// What the norms of an architecture allow. A root-mean-square norm whose weight has moved into the
/// linears after it turns with its input for any R; a layer norm subtracts the mean of the channels,
/// which stays where it is if R 1 = 1. A weight that acts on the residual stream itself, or on what
/// is added to it, can move nowhere.
inline RotationRule rotation_rule(const Architecture& architecture) {
  if (!architecture.names.embedding_norm.empty())
    return {.reason = "the norm of the embeddings multiplies channels of the residual stream"};
  if (architecture.residual_after_norm)
    return {.reason = "what a norm gives is added to the residual stream"};
  if (architecture.norm_place == NormPlace::after)
    return {.reason = "the norms stand on the residual stream and multiply its channels"};
  if (architecture.norm_place == NormPlace::around)
    return {.reason = "norms multiply channels of what is added to the residual stream"};
  return {.residual = architecture.norm == NormKind::rms ? ResidualRotation::any
                                                         : ResidualRotation::keeps_ones};
}

}  // namespace pare
