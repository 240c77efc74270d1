// Tensors of xtensor in, tensors of xtensor out, no element copied on the way.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>
#include <xtensor/xmath.hpp>
#include <xtensor/xrandom.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include "pare/adapters/xtensor.hpp"
#include "pare/backend/xtensor.hpp"
#include "pare/pare.hpp"

int main() {
  xt::random::seed(4);
  // [use]
  const xt::xtensor<double, 2> W = xt::random::randn<double>({64, 96}, 0.0, 0.05);  // (out, in)
  const xt::xtensor<double, 2> X = xt::random::randn<double>({512, 96});            // (tokens, in)

  using Backend = pare::backend::Xtensor;
  pare::Calibration<Backend, double> calibration(pare::index_t(X.shape(1)));
  calibration.add(pare::view(X));
  using Config = pare::Compression<pare::Unstructured, pare::UniformQuantizer<4>>;
  pare::SparseGPTSolver<Config, Backend, double> solver({.sparsity = 0.5});
  const auto linear = solver.solve(pare::view(W), calibration);

  const auto Q = pare::as_xtensor(linear.weights.view());
  const double error = xt::linalg::norm(xt::linalg::dot(W - Q, xt::transpose(X))) /
                       xt::linalg::norm(xt::linalg::dot(W, xt::transpose(X)));
  // [use]

  const auto mask = pare::as_xtensor(linear.mask.view());
  const auto pruned = std::count(mask.begin(), mask.end(), std::uint8_t{1});
  bool zeros = true;  // what the mask pruned is zero
  for (std::size_t i = 0; i < W.shape(0); ++i)
    for (std::size_t j = 0; j < W.shape(1); ++j) zeros = zeros && (mask(i, j) == 0 || Q(i, j) == 0);
  const bool in_place = pare::view(W).data == W.data() && pare::view(X).data == X.data() &&
                        std::as_const(Q).data() == linear.weights.data();
  std::printf("W and X read where xtensor holds them, Q where pare holds it: %s\n",
              in_place ? "yes" : "no");
  std::printf("weights pruned: %td of %zu, all of them zero: %s\n", pruned, W.size(),
              zeros ? "yes" : "no");
  std::printf("relative error of the outputs: %.2f\n", error);
  return in_place && zeros && 2 * pruned == std::ptrdiff_t(W.size()) && error < 0.5 ? 0 : 1;
}
