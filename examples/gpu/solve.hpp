// One linear solved on any backend: the text is the same for the GPU and for the cores.
#pragma once

#include <cstdio>
#include <random>

#include "pare/pare.hpp"

// [solve]
/// Compresses a random linear where B computes and prints what became of it. Returns 0 when half
/// of the weights are gone.
template <class B>
int solve_one() {
  using namespace pare;
  using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Matrix<float> W(256, 256), X(1024, 256);  // (out, in), (tokens, in), in host memory
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.05f * normal(random);
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = normal(random);

  // Into the memory of the backend, and at the end back: between them nothing is copied.
  const auto weights = B::from_host(MatrixView<const float>(W.view()));
  const auto activations = B::from_host(MatrixView<const float>(X.view()));
  Calibration<B, float> calibration(W.cols());
  calibration.add(activations.view());
  SparseGPTSolver<Config, B, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0});
  const auto linear = solver.solve(weights.view(), calibration);
  const Matrix<float> Q = B::to_host(linear.weights.view());
  const Matrix<std::uint8_t> mask = B::to_host(linear.mask.view());

  index_t pruned = 0, wrong = 0;
  for (index_t i = 0; i < Q.size(); ++i) {
    pruned += mask.data()[i];
    wrong += mask.data()[i] != 0 && Q.data()[i] != 0;
  }
  std::printf("backend %s: %td of %td weights pruned, %td of them not zero\n", B::name.data(),
              pruned, Q.size(), wrong);
  return 2 * pruned == Q.size() && wrong == 0 ? 0 : 1;
}
// [solve]
