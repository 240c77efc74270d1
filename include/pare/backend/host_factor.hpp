// Blocked factorisation of the inverse Hessian.
#pragma once

#include <algorithm>

#include "pare/backend/host_kernels.hpp"

namespace pare::inline PARE_TARGET::backend::host_detail {

/// Columns per panel of the factorisation, and rows of one task.
inline constexpr index_t panel = 128;

/// Overwrites the upper triangle of A with R, A = R R^T. Right-looking, from the last panel.
/// False when A is not positive definite.
template <class Tasks, class Kernels, class T>
bool blocked_reversed_cholesky(MatrixView<T> A) {
  for (index_t end = A.rows; end > 0;) {
    const index_t width = std::min(panel, end), begin = end - width;
    const MatrixView<T> diagonal = A.block(begin, begin, width, width);
    bool definite = false;
    Tasks::run(index_t{1}, [&](index_t) { definite = Kernels::reversed_cholesky(diagonal); });
    if (!definite) return false;
    const index_t strips = (begin + panel - 1) / panel;
    // R_ik = A_ik inv(R_kk)^T for the rows above.
    Tasks::run(strips, [&](index_t s) {
      const index_t row = s * panel, height = std::min(panel, begin - row);
      Kernels::solve_transposed(A.block(row, begin, height, width), MatrixView<const T>(diagonal));
    });
    // A_ij -= R_ik R_jk^T on and above the diagonal; wide strips first, they take longest.
    Tasks::run(strips, [&](index_t s) {
      const index_t row = s * panel, height = std::min(panel, begin - row);
      Kernels::template product<Update::subtract>(A.block(row, row, height, begin - row),
                                                  A.block(row, begin, height, width),
                                                  transposed(
                                                      A.block(row, begin, begin - row, width)));
    });
    end = begin;
  }
  return true;
}

/// Overwrites the upper triangle of R with U = inv(R) and clears what lies below.
template <class Tasks, class Kernels, class T>
void blocked_upper_inverse(MatrixView<T> R) {
  const index_t n = R.rows;
  Matrix<T> sums(n, panel);
  for (index_t begin = 0; begin < n; begin += panel) {
    const index_t width = std::min(panel, n - begin), strips = begin / panel;
    for (index_t r = begin; r < begin + width; ++r) std::fill_n(R.row(r), r, T(0));
    const MatrixView<T> inverse = R.block(begin, begin, width, width);
    Tasks::run(index_t{1}, [&](index_t) { Kernels::upper_inverse(inverse); });
    // U_ij = -(sum_k U_ik R_kj) U_jj: the sums first, they read what the last step overwrites.
    Tasks::run(strips, [&](index_t s) {
      const index_t row = s * panel;
      Kernels::template product<Update::set>(sums.view().block(row, 0, panel, width),
                                             R.block(row, row, panel, begin - row),
                                             R.block(row, begin, begin - row, width));
    });
    Tasks::run(strips, [&](index_t s) {
      const MatrixView<T> above = R.block(s * panel, begin, panel, width);
      for (index_t r = 0; r < panel; ++r) std::fill_n(above.row(r), width, T(0));
      Kernels::template product<Update::subtract>(above,
                                                  sums.view().block(s * panel, 0, panel, width),
                                                  inverse);
    });
  }
}

}  // namespace pare::backend::host_detail
