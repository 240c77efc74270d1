// Matrices of Eigen in, matrices of Eigen out, no element copied on the way.
#include <Eigen/Dense>
#include <cstdio>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

// [views]
/// pare's view of a row-major matrix of Eigen, or of a block of one. The memory stays Eigen's.
template <class Derived>
pare::MatrixView<const typename Derived::Scalar> view_of(const Eigen::PlainObjectBase<Derived>& A) {
  static_assert(Derived::IsRowMajor, "pare reads rows: write Eigen::RowMajor");
  return {A.data(), A.rows(), A.cols(), A.outerStride()};
}
template <class Matrix, int Rows, int Cols, bool Inner>
pare::MatrixView<const typename Matrix::Scalar> view_of(
    const Eigen::Block<Matrix, Rows, Cols, Inner>& A) {
  static_assert(Matrix::IsRowMajor, "pare reads rows: write Eigen::RowMajor");
  return {A.data(), A.rows(), A.cols(), A.outerStride()};
}

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using StridedMap = Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>;

/// Eigen's view of a matrix of pare. The memory stays pare's.
StridedMap map_of(pare::MatrixView<const float> A) {
  return {A.data, A.rows, A.cols, Eigen::OuterStride<>(A.stride)};
}
// [views]

int main() {
  std::srand(3);
  // [use]
  const RowMajor all = 0.05f * RowMajor::Random(3 * 64, 96);  // q, k and v in one matrix
  const auto k = all.middleRows(64, 64);                      // (out, in), a block of it
  const RowMajor X = RowMajor::Random(512, 96);               // (tokens, in)

  pare::Calibration<pare::backend::Eigen, float> calibration(X.cols());
  calibration.add(view_of(X));
  using Config = pare::Compression<pare::NofM<2, 4>, pare::BaseQuantizer>;
  pare::SparseGPTSolver<Config, pare::backend::Eigen, float> solver({.bits = 4});
  const auto linear = solver.solve(view_of(k), calibration);

  const StridedMap Q = map_of(linear.weights.view());
  const float error = ((k - Q) * X.transpose()).norm() / (k * X.transpose()).norm();
  // [use]

  // H as Eigen computes it from the same activations, against pare's sum of x x^T.
  const StridedMap gram = map_of(calibration.gram());
  const bool same_gram = gram.isApprox(RowMajor(X.transpose() * X), 1e-4f);
  const bool in_place = view_of(k).data == all.data() + 64 * all.cols() &&
                        view_of(X).data == X.data() && Q.data() == linear.weights.data();
  const auto zeros = (Q.array() == 0).count();
  std::printf("W and X read where Eigen holds them, Q where pare holds it: %s\n",
              in_place ? "yes" : "no");
  std::printf("sum of x x^T as Eigen computes it: %s\n", same_gram ? "yes" : "no");
  std::printf("at least half of Q is zero: %s\n", 2 * zeros >= Q.size() ? "yes" : "no");
  std::printf("relative error of the outputs: %.2f\n", error);
  return in_place && same_gram && 2 * zeros >= Q.size() && error < 0.5f ? 0 : 1;
}
