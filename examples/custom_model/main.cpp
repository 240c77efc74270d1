// A model and a file format that pare knows nothing of: an autoencoder of four linears in a file of
// raw numbers, compressed linear by linear.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/report/text.hpp"

using namespace pare;

namespace {

using Cores = backend::Eigen;

// [model]
/// Linears one after the other, with a ReLU between two of them.
struct Network {
  std::vector<Matrix<float>> linears;  // each (out, in)

  /// What linear `i` makes of X (tokens, in), (tokens, out).
  Matrix<float> forward(std::size_t i, const Matrix<float>& X) const {
    const Matrix<float>& W = linears[i];
    Matrix<float> Y(X.rows(), W.rows());
    for (index_t t = 0; t < X.rows(); ++t)
      for (index_t o = 0; o < W.rows(); ++o) {
        float sum = 0;
        for (index_t j = 0; j < W.cols(); ++j) sum += W(o, j) * X(t, j);
        Y(t, o) = i + 1 < linears.size() ? std::max(sum, 0.0f) : sum;
      }
    return Y;
  }
};
// [model]

// [file]
/// Reads a network from a file of one's own: for each linear its two sides and its weights.
Network read_network(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  Network network;
  std::int32_t sides[2];  // out, in
  while (file.read(reinterpret_cast<char*>(sides), sizeof sides)) {
    Matrix<float> W(sides[0], sides[1]);
    if (!file.read(reinterpret_cast<char*>(W.data()), W.size() * index_t(sizeof(float))))
      throw std::runtime_error(path.string() + ": ends within a linear");
    network.linears.push_back(std::move(W));
  }
  return network;
}

void write_network(const std::filesystem::path& path, const Network& network) {
  std::ofstream file(path, std::ios::binary);
  for (const Matrix<float>& W : network.linears) {
    const std::int32_t sides[2] = {std::int32_t(W.rows()), std::int32_t(W.cols())};
    file.write(reinterpret_cast<const char*>(sides), sizeof sides);
    file.write(reinterpret_cast<const char*>(W.data()), W.size() * index_t(sizeof(float)));
  }
  if (!file.flush()) throw std::runtime_error(path.string() + ": cannot be written");
}
// [file]

// [compress]
/// Compresses every linear in place. Each is calibrated on what it will read: the outputs of the
/// compressed linears before it.
/// @param sequences  calibration inputs of the first linear, each (tokens, in)
template <class Config>
Statistics compress(Network& network, std::vector<Matrix<float>> sequences, SolverOptions options) {
  SparseGPTSolver<Config, Cores, float> solver(options);
  Statistics statistics;
  for (std::size_t i = 0; i < network.linears.size(); ++i) {
    Matrix<float>& W = network.linears[i];
    Calibration<Cores, float> calibration(W.cols());
    for (const Matrix<float>& X : sequences) calibration.add(X);
    auto linear = solver.solve(W, calibration);
    W = Cores::to_host(std::as_const(linear.weights).view());
    statistics.linears.push_back(linear_statistics("linear " + std::to_string(i), linear, 32));
    for (Matrix<float>& X : sequences) X = network.forward(i, X);
  }
  return statistics;
}
// [compress]

Matrix<float> random_matrix(index_t rows, index_t cols, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0, deviation);
  Matrix<float> A(rows, cols);
  std::generate_n(A.data(), A.size(), [&] { return normal(random); });
  return A;
}

/// Mean squared difference of the outputs, relative to the mean square of the outputs of `a`.
double relative_error(const Network& a, const Network& b, Matrix<float> X) {
  Matrix<float> Y = X;
  for (std::size_t i = 0; i < a.linears.size(); ++i) {
    X = a.forward(i, X);
    Y = b.forward(i, Y);
  }
  double difference = 0, square = 0;
  for (index_t i = 0; i < X.size(); ++i) {
    difference += std::pow(double(X.data()[i]) - double(Y.data()[i]), 2);
    square += std::pow(double(X.data()[i]), 2);
  }
  return difference / square;
}

}  // namespace

int main() {
  std::mt19937 random(5);
  const index_t sides[] = {64, 96, 24, 96, 64};
  Network network;
  for (int i = 0; i < 4; ++i)
    network.linears.push_back(
        random_matrix(sides[i + 1], sides[i], std::sqrt(2.0f / float(sides[i])), random));
  // Inputs with structure: 64 numbers that 16 explain.
  const Matrix<float> mixing = random_matrix(64, 16, 0.25f, random);
  const auto inputs = [&](index_t tokens) {
    const Matrix<float> hidden = random_matrix(tokens, 16, 1, random);
    return Network{{mixing}}.forward(0, hidden);
  };
  std::vector<Matrix<float>> sequences;
  for (int s = 0; s < 8; ++s) sequences.push_back(inputs(128));
  const Matrix<float> unseen = inputs(256);

  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("pare-network-" + std::to_string(random()));
  write_network(path, network);
  Network read = read_network(path);
  const Statistics statistics =
      compress<Compression<NofM<2, 4>, BaseQuantizer>>(read, sequences, {.bits = 4});
  write_network(path, read);
  const double solved = relative_error(network, read_network(path), unseen);
  std::filesystem::remove(path);

  // The same without activations: magnitudes and the nearest value.
  Network nearest = network;
  for (Matrix<float>& W : nearest.linears) {
    Matrix<float> identity(W.cols(), W.cols());
    for (index_t j = 0; j < W.cols(); ++j) identity(j, j) = 1;
    SparseGPTSolver<Compression<NofM<2, 4>, BaseQuantizer>, Cores, float> solver({.bits = 4});
    const auto calibration = Calibration<Cores, float>::from_hessian(identity);
    const auto linear = solver.solve(W, calibration);
    W = Cores::to_host(linear.weights.view());
  }
  const double rounded = relative_error(network, nearest, unseen);

  std::fputs(statistics_text(statistics).c_str(), stdout);
  std::printf("relative error of the outputs: %.3f, without activations %.3f\n", solved, rounded);
  return solved < rounded ? 0 : 1;
}
