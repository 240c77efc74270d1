// Quantizers of one's own: NF4, whose values are fixed up to a scale, and a codebook per group that
// k-means fits. Both round 4-bit codes in groups of 64 inputs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using namespace pare;
using Cores = backend::Eigen;

#include "codebook.hpp"
#include "nf4.hpp"

int main() {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 256), X(1024, 256);
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.05f * normal(random);
  for (index_t i = 0; i < W.rows(); ++i) W(i, (7 * i) % W.cols()) *= 6;  // outliers
  for (index_t t = 0; t < X.rows(); ++t)
    for (index_t j = 0; j < X.cols(); ++j)
      X(t, j) = normal(random) + (j > 0 ? 0.5f * X(t, j - 1) : 0);
  Calibration<Cores, float> calibration(W.cols());
  calibration.add(X);

  // [use]
  // A quantizer is named in the configuration, as BaseQuantizer is.
  SparseGPTSolver<Compression<Dense, Nf4>, Cores, float> nf4({.group_size = 64});
  SparseGPTSolver<Compression<Dense, Codebook>, Cores, float> codebook({.group_size = 64});
  const auto by_nf4 = nf4.solve(W, calibration);
  const auto by_codebook = codebook.solve(W, calibration);
  // [use]
  using Uniform = SparseGPTSolver<Compression<Dense, BaseQuantizer>, Cores, float>;
  Uniform uniform({.bits = 4, .grid = {.symmetric = true}, .group_size = 64});
  const auto by_uniform = uniform.solve(W, calibration);

  std::printf("symmetric 4 bits: loss %.3f\n", by_uniform.loss);
  std::printf("NF4:              loss %.3f\n", by_nf4.loss);
  std::printf("codebook:         loss %.3f\n", by_codebook.loss);
  return by_codebook.loss < by_nf4.loss && by_nf4.loss < by_uniform.loss ? 0 : 1;
}
