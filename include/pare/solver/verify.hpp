// The post-conditions of one solve, checked after every solve.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "pare/calibration/factor.hpp"
#include "pare/core/scalar.hpp"
#include "pare/quantization/grid.hpp"
#include "pare/solver/layer.hpp"
#include "pare/sparsity/select.hpp"

namespace pare {

namespace detail {

/// Rows whose loss is compared with its closed form; the form costs (in)^2 per row.
inline constexpr index_t verified_rows = 64;

/// First broken condition of each row: 0 none, 3 off the grid, 4 n:m count, 5 pruned not zero.
template <class T>
struct VerifyRow {
  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> mask;  // (out, in)
  GridView<const T> grids;
  const std::int32_t* column_grid;  ///< (in), null without a quantizer
  int zeros, group;
  std::int32_t* broken;  ///< (out)

  PARE_HOST_DEVICE void operator()(index_t i) const {
    const T* q = weights.row(i);
    const std::uint8_t* m = mask.row(i);
    bool on_grid = true, pruned_zero = true, counted = true;
    for (index_t j = 0; j < weights.cols; ++j)
      pruned_zero &= m[j] == 0 || q[j] == T(0);
    if (column_grid != nullptr)
      for (index_t j = 0; j < weights.cols; ++j) {
        const index_t g = column_grid[j];
        on_grid &=
            round_to_grid(q[j], grids.scale(g, i), grids.zero(g, i), grids.top(g, i)) == q[j];
      }
    if (group > 0)
      for (index_t j = 0; j < weights.cols; j += group) {
        int count = 0;
        for (int k = 0; k < group; ++k) count += m[j + k];
        counted &= count == zeros;
      }
    broken[i] = !on_grid ? 3 : !counted ? 4 : !pruned_zero ? 5 : 0;
  }
};

/// Marked weights of each block of columns in visit order, by row. T holds such counts exactly.
template <class T>
struct CountBlock {
  MatrixView<const std::uint8_t> mask;  // (out, in)
  const index_t* order;                 ///< (in)
  index_t block_size;
  MatrixView<T> counts;  // (out, blocks)

  PARE_HOST_DEVICE void operator()(index_t i) const {
    for (index_t b = 0; b < counts.cols; ++b) {
      const index_t end = (b + 1) * block_size;
      index_t count = 0;
      for (index_t p = b * block_size; p < end && p < mask.cols; ++p) count += mask(i, order[p]);
      counts(i, b) = T(count);
    }
  }
};

/// (W - Q) of chosen rows, dead inputs of W zeroed.
template <class T>
struct Difference {
  MatrixView<const T> before, after;  // (out, in)
  const std::uint8_t* dead;           ///< (in)
  index_t step;                       ///< row r of `out` is row r * step of the weights
  MatrixView<T> out;                  // (checked, in)
  PARE_HOST_DEVICE void operator()(index_t r, index_t j) const {
    const T w = dead[j] != 0 ? T(0) : before(r * step, j);
    out(r, j) = w - after(r * step, j);
  }
};

/// Closed form of each row's loss, and how far rounding alone may move it.
template <class T>
struct ClosedLoss {
  MatrixView<const T> before;               // (out, in)
  MatrixView<const T> difference, product;  // (checked, in): D and D G
  MatrixView<const T> gram;                 // (in, in)
  const std::uint8_t* dead;                 ///< (in), dead inputs have H_jj = 1
  index_t step;                             ///< row r is row r * step of the weights
  double scale, added;                      ///< H = scale G, damping
  MatrixView<double> out;                   // (2, checked): loss, rounding noise

  PARE_HOST_DEVICE void operator()(index_t r) const {
    double loss = 0, noise = 0;
    for (index_t j = 0; j < difference.cols; ++j) add_column(r, j, loss, noise);
    finish(r, loss, noise);
  }
  PARE_HOST_DEVICE void add_column(index_t r, index_t j, double& loss, double& noise) const {
    const double diagonal = added + (dead[j] != 0 ? 1.0 : 0.0);
    const double d = difference(r, j), w = dead[j] != 0 ? T(0) : before(r * step, j);
    loss += 0.5 * d * (scale * double(product(r, j)) + diagonal * d);
    noise += 0.5 * w * w * (scale * double(gram(j, j)) + diagonal);
  }
  PARE_HOST_DEVICE void finish(index_t r, double loss, double noise) const {
    const double epsilon = double(std::numeric_limits<T>::epsilon());
    out(0, r) = loss;
    // A weight takes part in up to `in` updates, each rounded to epsilon |w|.
    out(1, r) = epsilon * epsilon * double(difference.cols) * noise;
  }
};

template <class T>
MatrixView<const T> as_const(MatrixView<T> v) { return v; }

}  // namespace detail

/// Checks post-conditions 3, 4, 5 and 6 of one solved linear.
///
/// 3: every value lies on its row's grid, so a row holds at most 2^b values per grid.
/// 4: every block lost exactly floor(share * size) weights, every n:m group exactly n.
/// 5: what the mask pruned is exactly zero.
/// 6: row losses equal 1/2 d (H + damping) d^T up to rounding, on up to 64 evenly spaced rows.
/// @param W  the dense weights (out, in)
/// @throws invariant_error with the number of the violated condition
template <class B, class T>
void verify_layer(MatrixView<const T> W, const Calibration<B, T>& calibration,
                  const Factor<B, T>& factor, const CompressedLayer<B, T>& layer) {
  const index_t rows = W.rows, cols = W.cols;
  const MatrixView<const T> Q = layer.weights.view();
  const MatrixView<const std::uint8_t> mask = layer.mask.view();

  auto broken = detail::zeros<B, std::int32_t>(1, rows);
  const auto column_grid = detail::to_backend<B>(layer.grids.of_column);
  B::for_each_row(
      rows, detail::VerifyRow<T>{Q, mask,
                                 {layer.grids.scale.view(), layer.grids.zero.view(),
                                  layer.grids.top.view()},
                                 layer.quantized() ? column_grid.view().data : nullptr,
                                 layer.zeros, layer.group, broken.view().data});
  const auto broken_host = B::to_host(detail::as_const(broken.view()));
  for (index_t i = 0; i < rows; ++i)
    if (broken_host(0, i) != 0) {
      const int condition = broken_host(0, i);
      throw invariant_error(condition,
                            "row " + std::to_string(i) +
                                (condition == 3   ? " holds a value that is not on its grid"
                                 : condition == 4 ? " has a group with another number of zeros"
                                                  : " has a pruned weight that is not zero"));
    }

  if (layer.group == 0) {
    const index_t blocks = (cols + layer.block_size - 1) / layer.block_size;
    auto counts = detail::zeros<B, T>(rows, blocks);
    const auto order = detail::to_backend<B>(layer.order);
    B::for_each_row(rows, detail::CountBlock<T>{mask, order.view().data, layer.block_size,
                                                counts.view()});
    auto moments = detail::zeros<B, double>(3, blocks);
    B::column_moments(detail::as_const(counts.view()), moments.view());
    const auto host = B::to_host(detail::as_const(moments.view()));
    for (index_t b = 0; b < blocks; ++b) {
      const index_t width = std::min(layer.block_size, cols - b * layer.block_size);
      const index_t found = index_t(std::llround(host(1, b) * double(rows)));
      const index_t expected = pruned_count(layer.sparsity, rows * width);
      if (found != expected)
        throw invariant_error(4, "block " + std::to_string(b) + ": expected " +
                                     std::to_string(expected) + " pruned weights, found " +
                                     std::to_string(found));
    }
  }

  const index_t checked = std::min(rows, detail::verified_rows);
  const index_t step = rows / checked;
  const auto dead = detail::to_backend<B>(factor.dead);
  typename B::template matrix<T> difference, product;
  difference.resize(checked, cols);
  product.resize(checked, cols);
  B::for_each_element(checked, cols, detail::Difference<T>{W, Q, dead.view().data, step,
                                                           difference.view()});
  B::multiply(product.view(), detail::as_const(difference.view()), calibration.gram());
  auto forms = detail::zeros<B, double>(2, checked);
  B::for_each_row(checked, detail::ClosedLoss<T>{W, difference.view(), product.view(),
                                                 calibration.gram(), dead.view().data, step,
                                                 calibration.hessian_scale(), factor.added,
                                                 forms.view()});
  const auto host = B::to_host(detail::as_const(forms.view()));
  double reported = 0, recomputed = 0, noise = 0;
  for (index_t r = 0; r < checked; ++r) {
    reported += layer.row_loss[std::size_t(r * step)];
    recomputed += host(0, r);
    noise += host(1, r);
  }
  // (d + e) H (d + e)^T with e H e^T = noise differs by up to 2 sqrt(loss noise) + noise. It only
  // counts where the weights lie almost on their grid.
  const double largest = std::max(reported, recomputed);
  const double limit =
      scalar_traits<T>::tolerance * largest + 2 * std::sqrt(largest * noise) + noise;
  if (!(std::abs(reported - recomputed) <= limit))
    throw invariant_error(6, "the loss of " + std::to_string(checked) + " rows is " +
                                 std::to_string(reported) + ", recomputed " +
                                 std::to_string(recomputed) +
                                 "; H may be too ill-conditioned for " +
                                 std::string(scalar_traits<T>::name) + ": raise the damping");
}

}  // namespace pare
