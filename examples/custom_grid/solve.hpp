// A linear solved with quantizers of one's own, on any backend: the text is the same for the GPU.
#pragma once

#include <cstdio>
#include <random>

#include "codebook.hpp"
#include "nf4.hpp"
#include "pare/pare.hpp"

/// Compresses a random linear where B computes and prints what became of it. Returns 0 when finer
/// values lower the loss.
template <class B>
int solve_with_own_grids() {
  using namespace pare;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 256), X(1024, 256);
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.05f * normal(random);
  for (index_t i = 0; i < W.rows(); ++i) W(i, (7 * i) % W.cols()) *= 6;  // outliers
  for (index_t t = 0; t < X.rows(); ++t)
    for (index_t j = 0; j < X.cols(); ++j)
      X(t, j) = normal(random) + (j > 0 ? 0.5f * X(t, j - 1) : 0);
  const auto weights = B::from_host(MatrixView<const float>(W.view()));
  const auto activations = B::from_host(MatrixView<const float>(X.view()));
  Calibration<B, float> calibration(W.cols());
  calibration.add(activations.view());

  // [use]
  // A quantizer is named in the configuration, as BaseQuantizer is.
  SparseGPTSolver<Compression<Dense, Nf4>, B, float> nf4({.group_size = 64});
  SparseGPTSolver<Compression<Dense, Codebook>, B, float> codebook({.group_size = 64});
  const auto by_nf4 = nf4.solve(weights.view(), calibration);
  const auto by_codebook = codebook.solve(weights.view(), calibration);
  // [use]
  using Uniform = SparseGPTSolver<Compression<Dense, BaseQuantizer>, B, float>;
  Uniform uniform({.bits = 4, .grid = {.symmetric = true}, .group_size = 64});
  const auto by_uniform = uniform.solve(weights.view(), calibration);

  const auto print = [](const char* name, const auto& linear) {
    const LinearStatistics s = linear_statistics("w", linear, 32);
    std::printf("%-17s loss %.3f, %.2f bits stored per weight\n", name, linear.loss,
                s.stored_bits / double(s.weights()));
  };
  print("symmetric 4 bits:", by_uniform);
  print("NF4:", by_nf4);
  print("codebook:", by_codebook);
  return by_codebook.loss < by_nf4.loss && by_nf4.loss < by_uniform.loss ? 0 : 1;
}
