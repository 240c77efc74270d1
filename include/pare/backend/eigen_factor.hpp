// Blocked factorisation of the inverse Hessian on all cores, on Eigen's products.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "pare/core/config.hpp"
#include "pare/core/matrix.hpp"

namespace pare::backend::eigen_detail {

template <class T>
using Dense = ::Eigen::Matrix<T, ::Eigen::Dynamic, ::Eigen::Dynamic, ::Eigen::RowMajor>;
template <class T>
using Map = ::Eigen::Map<std::conditional_t<std::is_const_v<T>, const Dense<std::remove_const_t<T>>,
                                            Dense<T>>,
                         ::Eigen::Unaligned, ::Eigen::OuterStride<>>;

/// An Eigen map of a view, no copy.
template <class T>
Map<T> map(MatrixView<T> v) {
  return Map<T>(v.data, v.rows, v.cols, ::Eigen::OuterStride<>(v.stride));
}

/// Columns per panel of the factorisation, and rows of one task.
inline constexpr index_t panel = 128;

/// R R^T = A for one diagonal block, R upper triangular, in place; unblocked, last column first.
template <class T>
bool reversed_cholesky(MatrixView<T> A) {
  const index_t n = A.rows;
  Dense<T> reversed = map(A).reverse();  // J A J = L L^T  <=>  A = (J L J)(J L J)^T
  ::Eigen::LLT<::Eigen::Ref<Dense<T>>> llt(reversed);
  if (llt.info() != ::Eigen::Success) return false;
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j)
      A(i, j) = j < i ? T(0) : reversed(n - 1 - i, n - 1 - j);
    if (!std::isfinite(A(i, i)) || !(A(i, i) > 0)) return false;
  }
  return true;
}

/// Overwrites the upper triangle of A with R, A = R R^T. Right-looking, from the last panel.
template <class T>
bool blocked_reversed_cholesky(MatrixView<T> A) {
  const index_t n = A.rows;
  for (index_t end = n; end > 0;) {
    const index_t width = std::min(panel, end), begin = end - width;
    const MatrixView<T> diagonal = A.block(begin, begin, width, width);
    if (!reversed_cholesky(diagonal)) return false;
    const index_t strips = (begin + panel - 1) / panel;
    // R_ik = A_ik inv(R_kk)^T for the rows above.
    detail::host_parallel_for(strips, [&](index_t s) {
      const index_t row = s * panel, height = std::min(panel, begin - row);
      auto above = map(A.block(row, begin, height, width));
      map(diagonal)
          .transpose()
          .template triangularView<::Eigen::Lower>()
          .template solveInPlace<::Eigen::OnTheRight>(above);
    });
    // A_ij -= R_ik R_jk^T on and above the diagonal; wide strips first, they take longest.
    detail::host_parallel_for(strips, [&](index_t s) {
      const index_t row = s * panel, height = std::min(panel, begin - row);
      map(A.block(row, row, height, begin - row)).noalias() -=
          map(A.block(row, begin, height, width)) *
          map(A.block(row, begin, begin - row, width)).transpose();
    });
    end = begin;
  }
  return true;
}

/// Overwrites the upper triangle of R with U = inv(R) and clears what lies below.
template <class T>
void blocked_upper_inverse(MatrixView<T> R) {
  const index_t n = R.rows;
  Dense<T> product(n, panel);
  for (index_t begin = 0; begin < n; begin += panel) {
    const index_t width = std::min(panel, n - begin);
    auto diagonal = map(R.block(begin, begin, width, width));
    Dense<T> inverse = Dense<T>::Identity(width, width);
    diagonal.template triangularView<::Eigen::Upper>().solveInPlace(inverse);
    // U_ij = -(sum_k U_ik R_kj) U_jj: the sums first, they read what the last step overwrites.
    const index_t strips = begin / panel;
    detail::host_parallel_for(strips, [&](index_t s) {
      const index_t row = s * panel;
      product.block(row, 0, panel, width).noalias() =
          map(R.block(row, row, panel, begin - row)) *
          map(R.block(row, begin, begin - row, width));
    });
    detail::host_parallel_for(strips, [&](index_t s) {
      map(R.block(s * panel, begin, panel, width)).noalias() =
          -product.block(s * panel, 0, panel, width) * inverse;
    });
    diagonal = inverse;
    map(R.block(begin, 0, width, begin)).setZero();
  }
}

}  // namespace pare::backend::eigen_detail
