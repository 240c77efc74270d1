// Matrices of Eigen in, matrices of Eigen out, no element copied on the way.
#include <Eigen/Dense>
#include <cstdio>
#include <cstdlib>

#include "pare/adapters/eigen.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  std::srand(3);
  // [use]
  const RowMajor all = 0.05f * RowMajor::Random(3 * 64, 96);  // q, k and v in one matrix
  const auto k = all.middleRows(64, 64);                      // (out, in), a block of it
  const RowMajor X = RowMajor::Random(512, 96);               // (tokens, in)

  pare::Calibration<pare::backend::Eigen, float> calibration(X.cols());
  calibration.add(pare::view(X));
  using Config = pare::Compression<pare::NofM<2, 4>, pare::BaseQuantizer>;
  pare::SparseGPTSolver<Config, pare::backend::Eigen, float> solver({.bits = 4});
  const auto linear = solver.solve(pare::view(k), calibration);

  const auto Q = pare::as_eigen(linear.weights.view());
  // A column-major matrix is copied by name: pare::row_major_copy(M).
  const float error = ((k - Q) * X.transpose()).norm() / (k * X.transpose()).norm();
  // [use]

  // H as Eigen computes it from the same activations, against pare's sum of x x^T.
  const auto gram = pare::as_eigen(calibration.gram());
  const bool same_gram = gram.isApprox(RowMajor(X.transpose() * X), 1e-4f);
  const bool in_place = pare::view(k).data == all.data() + 64 * all.cols() &&
                        pare::view(X).data == X.data() && Q.data() == linear.weights.data();
  const auto zeros = (Q.array() == 0).count();
  std::printf("W and X read where Eigen holds them, Q where pare holds it: %s\n",
              in_place ? "yes" : "no");
  std::printf("sum of x x^T as Eigen computes it: %s\n", same_gram ? "yes" : "no");
  std::printf("at least half of Q is zero: %s\n", 2 * zeros >= Q.size() ? "yes" : "no");
  std::printf("relative error of the outputs: %.2f\n", error);
  return in_place && same_gram && 2 * zeros >= Q.size() && error < 0.5f ? 0 : 1;
}
