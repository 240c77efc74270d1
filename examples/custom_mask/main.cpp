// A mask of one's own: the solver rounds what stays and makes up for what the mask takes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using namespace pare;

namespace {

using Cores = backend::Eigen;

// [mask]
/// 1 for the `share` of each row with the least |w_ij| sqrt(H_jj), the weight times the norm of its
/// input (M. Sun et al., A simple and effective pruning approach for large language models, 2024).
Matrix<std::uint8_t> least_of_each_row(const Matrix<float>& W, const std::vector<double>& diagonal,
                                       double share) {
  Matrix<std::uint8_t> zero(W.rows(), W.cols());  // (out, in)
  std::vector<index_t> inputs(std::size_t(W.cols()));
  for (index_t i = 0; i < W.rows(); ++i) {
    const auto score = [&](index_t j) {
      return std::abs(double(W(i, j))) * std::sqrt(diagonal[std::size_t(j)]);
    };
    std::iota(inputs.begin(), inputs.end(), index_t(0));
    std::stable_sort(inputs.begin(), inputs.end(),
                     [&](index_t a, index_t b) { return score(a) < score(b); });
    for (index_t k = 0; k < index_t(share * double(W.cols())); ++k)
      zero(i, inputs[std::size_t(k)]) = 1;
  }
  return zero;
}
// [mask]

index_t different(MatrixView<const std::uint8_t> a, MatrixView<const std::uint8_t> b) {
  index_t count = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) count += a(i, j) != b(i, j);
  return count;
}

}  // namespace

int main() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 128), X(512, 128);
  std::generate_n(W.data(), W.size(), [&] { return 0.05f * normal(random); });
  for (index_t t = 0; t < X.rows(); ++t)  // inputs of different sizes that depend on each other
    for (index_t j = 0; j < X.cols(); ++j)
      X(t, j) = std::exp2(0.02f * float(j)) * normal(random) + (j > 0 ? 0.5f * X(t, j - 1) : 0);
  Calibration<Cores, float> calibration(W.cols());
  calibration.add(X);

  // [use mask]
  // The pattern is Dense: the mask alone says what becomes zero.
  const Matrix<std::uint8_t> zero = least_of_each_row(W, calibration.hessian_diagonal(), 0.5);
  SparseGPTSolver<Compression<Dense, BaseQuantizer>, Cores, float> solver({.bits = 4});
  const auto own = solver.solve({.weights = W, .calibration = calibration, .mask = zero});
  // [use mask]

  SparseGPTSolver<Compression<Unstructured, BaseQuantizer>, Cores, float> built_in(
      {.sparsity = 0.5, .bits = 4});
  const auto by_solver = built_in.solve(W, calibration);

  const index_t broken = different(own.mask.view(), zero.view());
  std::printf("own mask:        loss %.2f\n", own.loss);
  std::printf("solver's mask:   loss %.2f\n", by_solver.loss);
  std::printf("weights of the own mask that are not as it says: %td\n", broken);
  return broken == 0 ? 0 : 1;
}
