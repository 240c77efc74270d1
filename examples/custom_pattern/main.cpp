// Patterns of one's own: whole columns, and n:m over inputs in an order of one's own.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using namespace pare;
using Cores = backend::Eigen;

// [columns]
/// Zeroes a share of the columns of every block, those whose removal costs least: an input that no
/// row reads need not be computed.
struct WholeColumns : PatternOption {
  static index_t pruned_columns(index_t columns, const SolverOptions& options) {
    return pruned_count(options.sparsity.value_or(0), columns);
  }

  template <class B, class T>
  static void mark(const MaskBlock<T>& block, const SolverOptions& options,
                   MatrixView<std::uint8_t> mask) {
    const Matrix<T> W = B::to_host(block.weights), u = B::to_host(block.diagonal);
    Matrix<std::uint8_t> marks = B::to_host(MatrixView<const std::uint8_t>(mask));
    std::vector<double> cost(std::size_t(W.cols()), 0.0);
    std::vector<index_t> columns(cost.size());
    std::iota(columns.begin(), columns.end(), index_t(0));
    for (index_t j = 0; j < W.cols(); ++j) {
      for (index_t i = 0; i < W.rows(); ++i)
        cost[std::size_t(j)] += std::pow(double(W(i, j)) / double(u(0, j)), 2);
      if (marks(0, j) != 0) cost[std::size_t(j)] = -1;  // a caller's mask has it already
    }
    std::stable_sort(columns.begin(), columns.end(), [&](index_t a, index_t b) {
      return cost[std::size_t(a)] < cost[std::size_t(b)];
    });
    for (index_t k = 0; k < pruned_columns(W.cols(), options); ++k)
      for (index_t i = 0; i < W.rows(); ++i) marks(i, columns[std::size_t(k)]) = 1;
    const auto there = B::from_host(MatrixView<const std::uint8_t>(marks.view()));
    B::copy(MatrixView<const std::uint8_t>(there.view()), mask);
  }

  static std::string fault(MatrixView<const std::uint8_t> mask, std::span<const index_t>,
                           const SolverOptions& options) {
    index_t expected = 0, found = 0;
    for (index_t begin = 0; begin < mask.cols; begin += options.block_size)
      expected += pruned_columns(std::min(options.block_size, mask.cols - begin), options);
    for (index_t j = 0; j < mask.cols; ++j) found += mask(0, j) != 0;
    if (const std::string parts = refusal(mask, options); !parts.empty()) return parts;
    if (found >= expected) return {};  // more only where a caller's mask has more
    return "expected " + std::to_string(expected) + " columns, found " + std::to_string(found);
  }

  static std::string refusal(MatrixView<const std::uint8_t> given, const SolverOptions&) {
    for (index_t j = 0; j < given.cols; ++j)
      for (index_t i = 1; i < given.rows; ++i)
        if ((given(i, j) != 0) != (given(0, j) != 0))
          return "column " + std::to_string(j) + " is marked in part";
    return {};
  }
};
// [columns]

// [permuted]
/// 4:8 over inputs that are not neighbours: inputs are sorted by the size of what passes them and
/// dealt out to groups of 8, so that each group has strong and weak ones. CompressedLinear::order
/// says which inputs belong together.
struct PermutedFourOfEight : PatternOption {
  static constexpr index_t of = 8, zeros = 4;

  static index_t together(const SolverOptions&) { return of; }

  static std::vector<index_t> visit_order(const std::vector<double>& diagonal,
                                          const SolverOptions&) {
    std::vector<index_t> falling(diagonal.size()), order(diagonal.size());
    std::iota(falling.begin(), falling.end(), index_t(0));
    std::stable_sort(falling.begin(), falling.end(), [&](index_t a, index_t b) {
      return diagonal[std::size_t(a)] > diagonal[std::size_t(b)];
    });
    const std::size_t groups = diagonal.size() / std::size_t(of);
    for (std::size_t k = 0; k < falling.size(); ++k)
      order[k % groups * std::size_t(of) + k / groups] = falling[k];
    return order;
  }

  template <class B, class T>
  static void mark(const MaskBlock<T>& block, const SolverOptions&, MatrixView<std::uint8_t> mask) {
    const Matrix<T> W = B::to_host(block.weights), u = B::to_host(block.diagonal);
    Matrix<std::uint8_t> marks(W.rows(), W.cols());
    for (index_t i = 0; i < W.rows(); ++i)
      for (index_t j = 0; j < W.cols(); ++j) {
        const index_t first = j - j % of;
        const auto cost = [&](int k) { return std::abs(W(i, first + k)) / u(0, first + k); };
        marks(i, j) = among_smallest(cost, int(j % of), int(of), int(zeros)) ? 1 : 0;
      }
    const auto there = B::from_host(MatrixView<const std::uint8_t>(marks.view()));
    B::copy(MatrixView<const std::uint8_t>(there.view()), mask);
  }

  static std::string fault(MatrixView<const std::uint8_t> mask, std::span<const index_t> order,
                           const SolverOptions&) {
    for (index_t i = 0; i < mask.rows; ++i)
      for (index_t first = 0; first < mask.cols; first += of) {
        index_t found = 0;
        for (index_t k = 0; k < of; ++k) found += mask(i, order[std::size_t(first + k)]) != 0;
        if (found != zeros)
          return "row " + std::to_string(i) + " has " + std::to_string(found) +
                 " zeros of 8 inputs that belong together";
      }
    return {};
  }
};
// [permuted]

int main() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 256), X(1024, 256);
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.05f * normal(random);
  for (index_t t = 0; t < X.rows(); ++t)  // neighbours are of one size
    for (index_t j = 0; j < X.cols(); ++j)
      X(t, j) = std::exp2(0.5f * float(j / 8 % 8)) * normal(random);
  Calibration<Cores, float> calibration(W.cols());
  calibration.add(X);

  // [use]
  // A pattern is named in the configuration, as Unstructured is; it goes with every quantizer.
  SparseGPTSolver<Compression<WholeColumns, BaseQuantizer>, Cores, float> columns(
      {.sparsity = 0.25, .bits = 4});
  const auto by_columns = columns.solve(W, calibration);
  SparseGPTSolver<Compression<PermutedFourOfEight>, Cores, float> permuted({});
  const auto by_permuted = permuted.solve(W, calibration);
  // [use]
  SparseGPTSolver<Compression<NofM<4, 8>>, Cores, float> neighbours({});
  const auto by_neighbours = neighbours.solve(W, calibration);

  index_t zero_columns = 0;
  for (index_t j = 0; j < W.cols(); ++j) zero_columns += by_columns.mask(0, j);
  std::printf("columns that are zero:        %td of %td\n", zero_columns, W.cols());
  std::printf("4:8 of neighbours:            loss %.0f\n", by_neighbours.loss);
  std::printf("4:8 of inputs dealt to groups: loss %.0f\n", by_permuted.loss);
  return zero_columns == W.cols() / 4 && by_permuted.loss < by_neighbours.loss ? 0 : 1;
}
