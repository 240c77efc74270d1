// A linear in units in which H has unit diagonal: where a mask is searched for and weights are
// solved exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/calibration/factor.hpp"
#include "pare/kernels/alternating.hpp"
#include "pare/kernels/exact_solve.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Sum of a row (1, n) that a reduction has written.
template <class B, class U>
U sum_of(const typename B::template matrix<U>& row) {
  const Matrix<U> host = B::to_host(as_const(row.view()));
  U sum = 0;
  for (index_t i = 0; i < host.size(); ++i) sum += host.data()[i];
  return sum;
}

/// Weights X = W D and the Hessian A = inv(D) (H + damping) inv(D), D^2 its diagonal, both in visit
/// order; X in a unit in which its largest element is about one. Refers to the calibration.
template <class B, class T>
class Normalized {
 public:
  template <class U>
  using Owner = typename B::template matrix<U>;

  /// @param W            (out, in), zero where inputs are dead
  /// @param calibration  of the inputs
  /// @param factor       of calibration's H
  Normalized(MatrixView<const T> W, const Calibration<B, T>& calibration,
             const Factor<B, T>& factor)
      : gram_(calibration.gram()), scale_(calibration.hessian_scale()) {
    std::vector<double> root;
    root.reserve(factor.order.size());
    for (const index_t input : factor.order)
      root.push_back(std::sqrt(factor.hessian_diagonal[std::size_t(input)] + factor.added));
    order_ = to_backend<B>(factor.order);
    root_ = to_backend<B>(root);
    // A power of two rounds nothing; without it squares may leave the range of the scalar.
    auto largest = zeros<B, double>(1, W.rows);
    B::reduce_rows(W.rows, kernels::LargestWeight<T>{W, order(), this->root(), largest.view()});
    const Matrix<double> by_row = B::to_host(as_const(largest.view()));
    const double size = *std::max_element(by_row.data(), by_row.data() + by_row.size());
    if (std::isnormal(size)) unit_ = std::exp2(-std::ilogb(size));
    for (double& r : root) r *= unit_;
    root_ = to_backend<B>(root);
    X_ = normalize(W);
  }

  index_t rows() const { return X_.rows(); }
  index_t cols() const { return X_.cols(); }
  /// The dense weights (out, in).
  MatrixView<const T> X() const { return X_.view(); }
  /// A loss in these units over that in the unit of H, in two factors.
  double unit() const { return unit_; }
  /// (in), square roots of the damped diagonal times unit() by position, where the backend can reach them.
  const double* root() const { return root_.view().data; }
  /// (in), input at each position, where the backend can reach it.
  const index_t* order() const { return order_.view().data; }

  /// A + shift I into `out` (in, in).
  void hessian(double shift, MatrixView<T> out) const {
    B::for_each_element(out.rows, out.cols,
                        kernels::NormalizedHessian<T>{gram_, out, order(), root(), scale_, unit_,
                                                      shift});
  }

  /// Other weights of the linear (out, in) in these units.
  Owner<T> normalize(MatrixView<const T> W) const {
    Owner<T> out(W.rows, W.cols);
    B::for_each_element(W.rows, W.cols,
                        kernels::NormalizeWeights<T>{W, out.view(), order(), root()});
    return out;
  }

  /// Z (out, in) in the units of the linear, exact zeros where the mask prunes.
  Owner<T> restore(MatrixView<const T> Z, MatrixView<const std::uint8_t> mask) const {
    Owner<T> out(Z.rows, Z.cols);
    B::for_each_element(Z.rows, Z.cols,
                        kernels::RestoreWeights<T>{Z, mask, out.view(), order(), root()});
    return out;
  }

  /// A mask (out, in) as the linear has it, in visit order; and back.
  Owner<std::uint8_t> gather(MatrixView<const std::uint8_t> mask) const {
    Owner<std::uint8_t> out(mask.rows, mask.cols);
    B::for_each_element(mask.rows, mask.cols, kernels::GatherMarks{mask, out.view(), order()});
    return out;
  }
  Owner<std::uint8_t> scatter(MatrixView<const std::uint8_t> mask) const {
    Owner<std::uint8_t> out(mask.rows, mask.cols);
    B::for_each_element(mask.rows, mask.cols,
                        kernels::ScatterColumns<std::uint8_t>{mask, out.view(), order()});
    return out;
  }

 private:
  MatrixView<const T> gram_;
  double scale_, unit_ = 1;
  Owner<double> root_;    // (1, in)
  Owner<index_t> order_;  // (1, in)
  Owner<T> X_;            // (out, in)
};

}  // namespace pare::detail
