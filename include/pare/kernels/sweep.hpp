// The column loop inside one block of columns: prune, round, feed the error forward.
#pragma once

#include <cmath>
#include <cstdint>

#include "pare/core/backend.hpp"
#include "pare/quantization/grid.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// One function of one row, or of `Lanes` neighbouring rows at once; rows never talk to each other.
///
/// For column j in order: q = quantize(mask ? 0 : w_j), e = (w_j - q) / U_jj and
/// w_k -= e U_jk for k > j (Frantar & Alistarh 2023, Algorithm 1). Plain data: it runs on every
/// host backend and on devices. Deterministic: the result of a row depends on that row only.
/// @tparam Grids  uniform grids, which a backend's `row_sweep` takes; with those of a quantizer of
///                one's own, CustomGrids, the sweep runs by `for_each_row`
template <class T, MaskSource Mask, bool Quantize, class Grids>
struct RowSweep {
  /// What the sweep computes in.
  using scalar_type = T;
  /// Where the mask comes from.
  static constexpr MaskSource mask_source = Mask;

  MatrixView<T> weights;            // (out, block): current weights in, result out
  MatrixView<T> errors;             // (out, block): e, for the columns behind the block
  MatrixView<std::uint8_t> mask;    // (out, block): in when given, out with n:m, both when beside
  MatrixView<const T> factor;       // (block, block): U of the block
  Grids grids;                      // (grids, out)
  const std::int32_t* column_grid;  ///< (block): grid of each column; null without a quantizer
  double* row_loss;                 ///< (out): += half the sum of e^2
  int zeros, of;                    ///< n:m

  /// Sweeps one row in place.
  PARE_HOST_DEVICE void operator()(index_t row) const {
    sweep<1>(row, weights.row(row), errors.row(row), mask.row(row));
  }

  /// Sweeps rows row .. row + Lanes - 1. The panels are column-major, a lane per row.
  /// @param row  the first row
  /// @param w  (block, Lanes) current weights in, result out
  /// @param e  (block, Lanes) errors out
  /// @param m  (block, Lanes) mask
  template <int Lanes>
  PARE_HOST_DEVICE PARE_INLINE void sweep(index_t row, T* PARE_RESTRICT w, T* PARE_RESTRICT e,
                                          std::uint8_t* PARE_RESTRICT m) const {
    const index_t count = weights.cols;
    double loss[Lanes] = {};
    for (index_t j = 0; j < count; ++j) {
      const T* PARE_RESTRICT u = factor.row(j);
      T* PARE_RESTRICT wj = w + j * Lanes;
      T* PARE_RESTRICT ej = e + j * Lanes;
      std::uint8_t* PARE_RESTRICT mj = m + j * Lanes;
      if constexpr (Mask == MaskSource::n_of_m)
        if (j % of == 0) choose_n_of_m<Lanes>(wj, mj, j);
      if constexpr (Mask == MaskSource::n_of_m_beside)
        if (j % of == 0) choose_beside<Lanes>(wj, mj, j);
      T kept[Lanes];
      for (int l = 0; l < Lanes; ++l) kept[l] = wj[l];
      if constexpr (Mask != MaskSource::none)
        for (int l = 0; l < Lanes; ++l) kept[l] = mj[l] != 0 ? T(0) : kept[l];
      if constexpr (Quantize) grids.template round<Lanes>(kept, column_grid[j], row);
      const T diagonal = u[j];
      T error[Lanes];
      for (int l = 0; l < Lanes; ++l) {
        error[l] = (wj[l] - kept[l]) / diagonal;
        loss[l] += 0.5 * double(error[l]) * double(error[l]);
        wj[l] = kept[l];
        ej[l] = error[l];
      }
      for (index_t k = j + 1; k < count; ++k) {
        T* PARE_RESTRICT wk = w + k * Lanes;
        const T u_jk = u[k];
        for (int l = 0; l < Lanes; ++l) wk[l] -= error[l] * u_jk;
      }
    }
    for (int l = 0; l < Lanes; ++l) row_loss[row + l] += loss[l];
  }

 private:
  /// Marks the `zeros` smallest |w| / U_jj of each row's `of` columns from j on.
  template <int Lanes>
  PARE_HOST_DEVICE void choose_n_of_m(const T* w, std::uint8_t* m, index_t j) const {
    for (int at = 0; at < of; ++at)
      for (int l = 0; l < Lanes; ++l) {
        const auto score = [&](int i) { return std::abs(w[i * Lanes + l]) / factor(j + i, j + i); };
        m[at * Lanes + l] = among_smallest(score, at, of, zeros) ? 1 : 0;
      }
  }

  /// The same, but what is marked comes first and stays marked, however many they are.
  template <int Lanes>
  PARE_HOST_DEVICE void choose_beside(const T* w, std::uint8_t* m, index_t j) const {
    for (int at = 0; at < of; ++at)
      for (int l = 0; l < Lanes; ++l) {
        const auto score = [&](int i) {
          return (m[i * Lanes + l] & 1) != 0 ? T(-1)
                                             : std::abs(w[i * Lanes + l]) / factor(j + i, j + i);
        };
        if (among_smallest(score, at, of, zeros)) m[at * Lanes + l] |= 2;  // bit 0 is still asked
      }
    for (int i = 0; i < of * Lanes; ++i) m[i] = m[i] != 0;
  }
};

}  // namespace pare::kernels
