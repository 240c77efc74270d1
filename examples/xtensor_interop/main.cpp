// Tensors of xtensor in, tensors of xtensor out, no element copied on the way.
#include <cstdio>
#include <xtensor/xadapt.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xrandom.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include "pare/backend/xtensor.hpp"
#include "pare/pare.hpp"

// [views]
/// pare's view of a row-major tensor of two sides. The memory stays xtensor's.
template <class T>
pare::MatrixView<const T> view_of(const xt::xtensor<T, 2, xt::layout_type::row_major>& A) {
  const pare::index_t rows = pare::index_t(A.shape(0)), cols = pare::index_t(A.shape(1));
  return {A.data(), rows, cols, cols};
}

/// xtensor's view of a matrix of pare. The memory stays pare's.
template <class T>
auto adapt(const pare::Matrix<T>& A) {
  return xt::adapt(A.data(), std::size_t(A.size()), xt::no_ownership(),
                   std::array{std::size_t(A.rows()), std::size_t(A.cols())});
}
// [views]

int main() {
  xt::random::seed(4);
  // [use]
  const xt::xtensor<double, 2> W = xt::random::randn<double>({64, 96}, 0.0, 0.05);  // (out, in)
  const xt::xtensor<double, 2> X = xt::random::randn<double>({512, 96});            // (tokens, in)

  using Backend = pare::backend::Xtensor;
  pare::Calibration<Backend, double> calibration(pare::index_t(X.shape(1)));
  calibration.add(view_of(X));
  using Config = pare::Compression<pare::Unstructured, pare::UniformQuantizer<4>>;
  pare::SparseGPTSolver<Config, Backend, double> solver({.sparsity = 0.5});
  const auto linear = solver.solve(view_of(W), calibration);

  const auto Q = adapt(linear.weights);
  const double error = xt::linalg::norm(xt::linalg::dot(W - Q, xt::transpose(X))) /
                       xt::linalg::norm(xt::linalg::dot(W, xt::transpose(X)));
  // [use]

  const auto mask = adapt(linear.mask);
  const auto pruned = std::count(mask.begin(), mask.end(), std::uint8_t{1});
  bool zeros = true;  // what the mask pruned is zero
  for (std::size_t i = 0; i < W.shape(0); ++i)
    for (std::size_t j = 0; j < W.shape(1); ++j) zeros = zeros && (mask(i, j) == 0 || Q(i, j) == 0);
  const bool in_place = view_of(W).data == W.data() && view_of(X).data == X.data() &&
                        std::as_const(Q).data() == linear.weights.data();
  std::printf("W and X read where xtensor holds them, Q where pare holds it: %s\n",
              in_place ? "yes" : "no");
  std::printf("weights pruned: %td of %zu, all of them zero: %s\n", pruned, W.size(),
              zeros ? "yes" : "no");
  std::printf("relative error of the outputs: %.2f\n", error);
  return in_place && zeros && 2 * pruned == std::ptrdiff_t(W.size()) && error < 0.5 ? 0 : 1;
}
