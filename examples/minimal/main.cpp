// [minimal]
// The smallest use: one linear of random numbers, half of it pruned, the rest at 3.5 bits on
// average.
#include <cstdio>
#include <random>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using namespace pare;

/// Fills a matrix with normal numbers of the given standard deviation.
static void fill(Matrix<float>& matrix, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0, deviation);
  for (index_t i = 0; i < matrix.size(); ++i) matrix.data()[i] = normal(random);
}

int main() {
  std::mt19937 random(1);
  using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;

  Matrix<float> W(192, 256);  // (out, in)
  fill(W, 0.05f, random);

  Calibration<backend::Eigen, float> calibration(W.cols());
  Matrix<float> X(128, W.cols());  // (tokens, in)
  for (int sequence = 0; sequence < 8; ++sequence) {
    fill(X, 1, random);  // a real program runs its model here
    calibration.add(X);
  }

  SparseGPTSolver<Config, backend::Eigen, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5});
  const auto linear = solver.solve(W, calibration);
  // linear.weights (out, in), linear.mask, linear.bits, linear.grids, linear.loss

  Statistics statistics;
  statistics.linears.push_back(linear_statistics("linear", linear, 32));
  std::fputs(statistics_text(statistics).c_str(), stdout);
}
// [minimal]
