// Patterns of one's own: whole columns, and n:m over inputs in an order of one's own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "pare/pare.hpp"

// [columns]
/// Zeroes a share of the columns of every block, those whose removal costs least: an input that no
/// row reads need not be computed.
struct WholeColumns : pare::PatternOption {
  static pare::index_t pruned_columns(pare::index_t columns, const pare::SolverOptions& options) {
    return pare::pruned_count(options.sparsity.value_or(0), columns);
  }

  template <class B, class T>
  static void mark(const pare::MaskBlock<T>& block, const pare::SolverOptions& options,
                   pare::MatrixView<std::uint8_t> mask) {
    const pare::Matrix<T> W = B::to_host(block.weights), u = B::to_host(block.diagonal);
    pare::Matrix<std::uint8_t> marks = B::to_host(pare::MatrixView<const std::uint8_t>(mask));
    std::vector<double> cost(std::size_t(W.cols()), 0.0);
    std::vector<pare::index_t> columns(cost.size());
    std::iota(columns.begin(), columns.end(), pare::index_t(0));
    for (pare::index_t j = 0; j < W.cols(); ++j) {
      for (pare::index_t i = 0; i < W.rows(); ++i)
        cost[std::size_t(j)] += std::pow(double(W(i, j)) / double(u(0, j)), 2);
      if (marks(0, j) != 0) cost[std::size_t(j)] = -1;  // a caller's mask has it already
    }
    std::stable_sort(columns.begin(), columns.end(), [&](pare::index_t a, pare::index_t b) {
      return cost[std::size_t(a)] < cost[std::size_t(b)];
    });
    for (pare::index_t k = 0; k < pruned_columns(W.cols(), options); ++k)
      for (pare::index_t i = 0; i < W.rows(); ++i) marks(i, columns[std::size_t(k)]) = 1;
    const auto there = B::from_host(pare::MatrixView<const std::uint8_t>(marks.view()));
    B::copy(pare::MatrixView<const std::uint8_t>(there.view()), mask);
  }

  static std::string fault(pare::MatrixView<const std::uint8_t> mask,
                           std::span<const pare::index_t>, const pare::SolverOptions& options) {
    pare::index_t expected = 0, found = 0;
    for (pare::index_t begin = 0; begin < mask.cols; begin += options.block_size)
      expected += pruned_columns(std::min(options.block_size, mask.cols - begin), options);
    for (pare::index_t j = 0; j < mask.cols; ++j) found += mask(0, j) != 0;
    if (const std::string parts = refusal(mask, options); !parts.empty()) return parts;
    if (found >= expected) return {};  // more only where a caller's mask has more
    return "expected " + std::to_string(expected) + " columns, found " + std::to_string(found);
  }

  static std::string refusal(pare::MatrixView<const std::uint8_t> given,
                             const pare::SolverOptions&) {
    for (pare::index_t j = 0; j < given.cols; ++j)
      for (pare::index_t i = 1; i < given.rows; ++i)
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
struct PermutedFourOfEight : pare::PatternOption {
  static constexpr pare::index_t of = 8, zeros = 4;

  static pare::index_t together(const pare::SolverOptions&) { return of; }

  static std::vector<pare::index_t> visit_order(const std::vector<double>& diagonal,
                                                const pare::SolverOptions&) {
    std::vector<pare::index_t> falling(diagonal.size()), order(diagonal.size());
    std::iota(falling.begin(), falling.end(), pare::index_t(0));
    std::stable_sort(falling.begin(), falling.end(), [&](pare::index_t a, pare::index_t b) {
      return diagonal[std::size_t(a)] > diagonal[std::size_t(b)];
    });
    const std::size_t groups = diagonal.size() / std::size_t(of);
    for (std::size_t k = 0; k < falling.size(); ++k)
      order[k % groups * std::size_t(of) + k / groups] = falling[k];
    return order;
  }

  template <class B, class T>
  static void mark(const pare::MaskBlock<T>& block, const pare::SolverOptions&,
                   pare::MatrixView<std::uint8_t> mask) {
    const pare::Matrix<T> W = B::to_host(block.weights), u = B::to_host(block.diagonal);
    pare::Matrix<std::uint8_t> marks(W.rows(), W.cols());
    for (pare::index_t i = 0; i < W.rows(); ++i)
      for (pare::index_t j = 0; j < W.cols(); ++j) {
        const pare::index_t first = j - j % of;
        const auto cost = [&](int k) { return std::abs(W(i, first + k)) / u(0, first + k); };
        marks(i, j) = pare::among_smallest(cost, int(j % of), int(of), int(zeros)) ? 1 : 0;
      }
    const auto there = B::from_host(pare::MatrixView<const std::uint8_t>(marks.view()));
    B::copy(pare::MatrixView<const std::uint8_t>(there.view()), mask);
  }

  static std::string fault(pare::MatrixView<const std::uint8_t> mask,
                           std::span<const pare::index_t> order, const pare::SolverOptions&) {
    for (pare::index_t i = 0; i < mask.rows; ++i)
      for (pare::index_t first = 0; first < mask.cols; first += of) {
        pare::index_t found = 0;
        for (pare::index_t k = 0; k < of; ++k) found += mask(i, order[std::size_t(first + k)]) != 0;
        if (found != zeros)
          return "row " + std::to_string(i) + " has " + std::to_string(found) +
                 " zeros of 8 inputs that belong together";
      }
    return {};
  }
};
// [permuted]
