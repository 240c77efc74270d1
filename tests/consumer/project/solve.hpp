// Solves one linear of made-up numbers on a backend, as a user of the library would.
#pragma once

#include <cmath>
#include <cstdio>
#include <random>

#include "pare/pare.hpp"

/// Prints version, backend, loss and mean bits. Returns 0, the exit status, when they make sense.
template <class Backend>
int solve_one_layer() {
  using namespace pare;
  using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> number(-1, 1);
  Matrix<float> W(24, 32), X(80, 32);  // (out, in), (tokens, in)
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = number(random);
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = number(random);
  const auto weights = Backend::from_host(MatrixView<const float>(W));
  const auto activations = Backend::from_host(MatrixView<const float>(X));

  Calibration<Backend, float> calibration(W.cols());
  calibration.add(activations.view());
  SparseGPTSolver<Config, Backend, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0});
  const auto linear = solver.solve(weights.view(), calibration);

  double bits = 0;
  for (const auto b : linear.bits) bits += double(b) / double(linear.bits.size());
  std::printf("pare %d.%d.%d %s loss %.4f bits %.2f\n", PARE_VERSION_MAJOR, PARE_VERSION_MINOR,
              PARE_VERSION_PATCH, std::string(Backend::name).c_str(), double(linear.loss), bits);
  return linear.loss > 0 && std::isfinite(linear.loss) && bits > 3 && bits <= 4 ? 0 : 1;
}
