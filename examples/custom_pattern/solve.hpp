// A linear pruned by patterns of one's own, on any backend: the text is the same for the GPU.
#pragma once

#include <cmath>
#include <cstdio>
#include <random>

#include "pare/pare.hpp"
#include "patterns.hpp"

/// Compresses a random linear where B computes and prints what became of it. Returns 0 when as many
/// columns are zero as was asked, and the order of inputs lowers the loss.
template <class B>
int solve_with_own_patterns() {
  using namespace pare;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 256), X(1024, 256);
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.05f * normal(random);
  for (index_t t = 0; t < X.rows(); ++t)  // neighbours are of one size
    for (index_t j = 0; j < X.cols(); ++j)
      X(t, j) = std::exp2(0.5f * float(j / 8 % 8)) * normal(random);
  const auto weights = B::from_host(MatrixView<const float>(W.view()));
  const auto activations = B::from_host(MatrixView<const float>(X.view()));
  Calibration<B, float> calibration(W.cols());
  calibration.add(activations.view());

  // [use]
  // A pattern is named in the configuration, as Unstructured is; it goes with every quantizer.
  SparseGPTSolver<Compression<WholeColumns, BaseQuantizer>, B, float> columns(
      {.sparsity = 0.25, .bits = 4});
  const auto by_columns = columns.solve(weights.view(), calibration);
  SparseGPTSolver<Compression<PermutedFourOfEight>, B, float> permuted({});
  const auto by_permuted = permuted.solve(weights.view(), calibration);
  // [use]
  SparseGPTSolver<Compression<NofM<4, 8>>, B, float> neighbours({});
  const auto by_neighbours = neighbours.solve(weights.view(), calibration);

  const Matrix<std::uint8_t> mask = B::to_host(by_columns.mask.view());
  index_t zero_columns = 0;
  for (index_t j = 0; j < W.cols(); ++j) zero_columns += mask(0, j);
  const LinearStatistics statistics = linear_statistics("w", by_columns, 32);
  std::printf("columns that are zero:        %td of %td\n", zero_columns, W.cols());
  std::printf("weights that are zero:        %.0f %%\n", 100 * statistics.sparsity);
  std::printf("4:8 of neighbours:            loss %.0f\n", by_neighbours.loss);
  std::printf("4:8 of inputs dealt to groups: loss %.0f\n", by_permuted.loss);
  return zero_columns == W.cols() / 4 && statistics.sparsity == 0.25 &&
                 by_permuted.loss < by_neighbours.loss
             ? 0
             : 1;
}
