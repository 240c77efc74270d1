// The search for a mask by the alternating direction method of multipliers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "pare/kernels/counts.hpp"
#include "pare/solver/normalized.hpp"
#include "pare/sparsity/mask_search.hpp"
#include "pare/sparsity/pattern.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Penalty that a search begins with, and the most steps it takes.
inline constexpr double first_penalty = 0.1;
inline constexpr int search_steps = 300;
/// Steps after which the support is compared with what it was.
inline constexpr int penalty_steps = 3;

/// By what the penalty grows.
/// @param changed  weights that went or came since the last time, as a share of those that stay
constexpr double penalty_growth(double changed) {
  return changed > 0.1 ? 1.3 : changed > 0.005 ? 1.2 : 1.1;
}

/// Marks what a search's iterate loses.
template <class B, class T>
class Projection {
 public:
  /// @param linear      shape and order
  /// @param pattern     what is pruned; prunes()
  /// @param region      of an unstructured count
  /// @param block_size  columns of a block
  /// @param given       (out, in), in visit order: what must be pruned; may be empty
  Projection(index_t rows, index_t cols, const Pattern& pattern, MaskRegion region,
             index_t block_size, MatrixView<const std::uint8_t> given)
      : pattern_(pattern), region_(region), block_size_(block_size), given_(given) {
    if (pattern.kind == PatternKind::n_of_m) return;
    if (region == MaskRegion::linear) block_size_ = cols;
    if (region == MaskRegion::row) {
      std::vector<std::int64_t> wanted(std::size_t(rows), pruned_count(pattern.sparsity, cols));
      if (given.rows > 0) {
        const std::vector<std::int64_t> left = kept_by_row(given);
        for (std::size_t i = 0; i < wanted.size(); ++i)
          wanted[i] = std::max<std::int64_t>(0, wanted[i] - (cols - left[i]));
      }
      wanted_ = to_backend<B>(wanted);
      return;
    }
    ones_ = to_backend<B>(std::vector<T>(std::size_t(cols), T(1)));
    for (index_t begin = 0; begin < cols; begin += block_size_) {
      const index_t width = std::min(block_size_, cols - begin);
      index_t k = pruned_count(pattern.sparsity, rows * width);
      if (given.rows > 0) {
        index_t forced = rows * width;
        for (const std::int64_t left : kept_by_row(given.columns(begin, width))) forced -= left;
        k = std::max<index_t>(0, k - forced);
      }
      counts_.push_back(k);
    }
  }

  /// Marks in `mask` (out, in) what S (out, in) loses, both in visit order.
  /// @param room  (out, in), overwritten where a mask is given
  void operator()(MatrixView<const T> S, MatrixView<std::uint8_t> mask, MatrixView<T> room) const {
    const index_t rows = S.rows, cols = S.cols;
    if (pattern_.kind == PatternKind::n_of_m) {
      B::for_each_element(rows, cols / pattern_.of,
                          kernels::ChooseRuns<T>{S, given_, mask, pattern_.zeros, pattern_.of});
      return;
    }
    if (region_ == MaskRegion::row) {
      by_row(S, mask);
      return;
    }
    if (given_.rows > 0) {
      B::for_each_element(rows, cols, kernels::HideMarked<T>{S, given_, room});
      S = room;
    }
    for (std::size_t b = 0; b < counts_.size(); ++b) {
      const index_t begin = index_t(b) * block_size_;
      const index_t width = std::min(block_size_, cols - begin);
      B::select_smallest(S.columns(begin, width), as_const(ones_.view()).columns(begin, width),
                         counts_[b], mask.columns(begin, width));
    }
    if (given_.rows > 0) B::for_each_element(rows, cols, kernels::AddMarks{given_, mask});
  }

 private:
  static std::vector<std::int64_t> kept_by_row(MatrixView<const std::uint8_t> mask) {
    typename B::template matrix<std::int64_t> counts(1, mask.rows);
    B::reduce_rows(mask.rows, kernels::CountKept{mask, counts.view()});
    const auto host = B::to_host(as_const(counts.view()));
    return {host.data(), host.data() + host.size()};
  }

  void by_row(MatrixView<const T> S, MatrixView<std::uint8_t> mask) const {
    auto threshold = zeros<B, std::int64_t>(1, S.rows);
    const auto k = as_const(wanted_.view());
    for (int bit = kernels::magnitude_bits<T>; bit >= 0; --bit)
      B::reduce_rows(S.rows, kernels::RaiseThreshold<T>{S, given_, k, threshold.view(),
                                                        std::int64_t{1} << bit});
    B::for_each_row(S.rows, kernels::MarkBelow<T>{S, given_, k, as_const(threshold.view()), mask});
  }

  Pattern pattern_;
  MaskRegion region_;
  index_t block_size_;
  MatrixView<const std::uint8_t> given_;              // (out, in), or empty
  typename B::template matrix<T> ones_;               // (1, in)
  typename B::template matrix<std::int64_t> wanted_;  // (1, out), by row
  std::vector<index_t> counts_;                       // by block, without what is given
};

/// inv(A + shift I) (in, in) of the Hessian that `linear` has, by one factorisation.
template <class B, class T>
typename B::template matrix<T> shifted_inverse(const Normalized<B, T>& linear, double shift) {
  const index_t n = linear.cols();
  typename B::template matrix<T> upper(n, n);
  linear.hessian(shift, upper.view());
  if (!B::inverse_factor(upper.view()))
    throw factorization_error("Hessian " + shape_text(n, n) + " of unit diagonal and " +
                              std::to_string(shift) +
                              ": not positive definite, although H is; it may not be symmetric");
  auto inverse = zeros<B, T>(n, n);
  B::gram_accumulate(inverse.view(), as_const(upper.view()));  // U^T U
  return inverse;
}

/// A B, in fewer digits where the backend has that: enough to rank weights.
template <class B, class T>
void rough_product(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> M) {
  if constexpr (requires { B::rough_multiply(C, A, M); })
    B::rough_multiply(C, A, M);
  else
    B::multiply(C, A, M);
}

/// A mask and weights, in normalized units and visit order.
template <class B, class T>
struct MaskedWeights {
  typename B::template matrix<T> weights;          // (out, in)
  typename B::template matrix<std::uint8_t> mask;  // (out, in), 1 = pruned
  int steps = 0;                                   ///< of the search
};

/// Minimises 1/2 tr((X - Z) A (X - Z)^T) over Z of a pattern by the alternating direction method of
/// multipliers.
///
/// Z = B for one that may be any matrix and one that has the pattern: B is the minimum with a
/// penalty rho on the distance from Z, Z the projection of B + V / rho, V the sum of what they
/// differ by. rho grows while the support of Z changes. One product per step for all rows, one
/// inverse per value of rho.
/// @param linear    X and A
/// @param project   marks what an iterate loses
/// @param inverses  of the values of rho, made here where they are not there yet
/// Source: Meng et al. 2024 (ALPS, arXiv 2406.07831), Algorithm 1.
template <class B, class T>
MaskedWeights<B, T> search_mask(const Normalized<B, T>& linear, const Projection<B, T>& project,
                                ShiftedInverses<B, T>& inverses) {
  using Owner = typename B::template matrix<T>;
  using Marks = typename B::template matrix<std::uint8_t>;
  const index_t rows = linear.rows(), cols = linear.cols();
  const MatrixView<const T> X = linear.X();
  MaskedWeights<B, T> found{Owner(rows, cols), Marks(rows, cols), 0};
  const MatrixView<T> S = found.weights.view();
  const MatrixView<std::uint8_t> mask = found.mask.view();
  Owner right(rows, cols), step(rows, cols);
  Marks before(rows, cols);
  typename B::template matrix<std::int64_t> counts(1, rows);

  B::copy(X, S);
  project(as_const(S), mask, right.view());
  B::copy(as_const(mask), before.view());
  B::reduce_rows(rows, kernels::CountKept{as_const(mask), counts.view()});
  const double kept = double(std::max<std::int64_t>(1, sum_of<B, std::int64_t>(counts)));

  double penalty = first_penalty, last = 0;
  while (found.steps < search_steps) {
    const auto inverse = inverses.of(penalty, [&] { return shifted_inverse(linear, penalty); });
    for (int i = 0; i < penalty_steps; ++i, ++found.steps) {
      B::for_each_element(rows, cols,
                          kernels::AlternatingRight<T>{X, as_const(S), as_const(mask), right.view(),
                                                       T(penalty), T(last)});
      rough_product<B, T>(step.view(), as_const(right.view()),
                          MatrixView<const T>(inverse->view()));
      B::for_each_element(rows, cols,
                          kernels::AlternatingTarget<T>{X, as_const(step.view()), as_const(mask), S,
                                                        T(last / penalty)});
      project(as_const(S), mask, right.view());
      last = penalty;
    }
    B::reduce_rows(rows,
                   kernels::CountChanges{as_const(mask), as_const(before.view()), counts.view()});
    const std::int64_t changed = sum_of<B, std::int64_t>(counts);
    if (changed == 0) break;
    B::copy(as_const(mask), before.view());
    penalty *= penalty_growth(double(changed) / kept);
  }
  B::for_each_element(rows, cols, kernels::PruneElement<T>{as_const(mask), S});
  return found;
}

}  // namespace pare::detail
