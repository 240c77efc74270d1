// The post-conditions of one solve, checked after every solve.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pare/allocation/tiers.hpp"
#include "pare/calibration/factor.hpp"
#include "pare/core/channel.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"
#include "pare/kernels/checks.hpp"
#include "pare/kernels/counts.hpp"
#include "pare/kernels/custom_grids.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/sparsity/select.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Rows whose loss is compared with its closed form; the form costs (in)^2 per row.
inline constexpr index_t verified_rows = 64;

/// Conditions 2 and 3 of the shapes: one width within 2..8 per channel, the grids of their GridMap
/// for every row, every column on its own. Returns the widths by row or by grid.
template <class B, class T>
std::vector<std::uint8_t> verify_grids(const CompressedLinear<B, T>& linear, index_t rows,
                                       index_t cols, bool quantized) {
  const bool by_row = linear.axis == ChannelAxis::output;
  const index_t channels = !quantized ? 0 : by_row ? rows : cols;
  if (index_t(linear.bits.size()) != channels)
    throw invariant_error(2, "expected " + std::to_string(channels) +
                                 " quantized channels, found " +
                                 std::to_string(linear.bits.size()));
  for (std::size_t c = 0; c < linear.bits.size(); ++c)
    if (linear.bits[c] < min_bits || linear.bits[c] > max_bits)
      throw invariant_error(3, "channel " + std::to_string(c) + " has " +
                                   std::to_string(linear.bits[c]) +
                                   " bits, no grid has that width");
  const GridMap map = grid_map(linear.axis, linear.bits, cols, linear.group_size);
  // Those of a quantizer of one's own are checked by it.
  if (!linear.custom_grids())
    for (const auto* m : {&linear.grids.scale, &linear.grids.zero, &linear.grids.top})
      if (m->rows() != map.grids() || (quantized && m->cols() != rows))
        throw invariant_error(3, "expected grids of shape " + shape_text(map.grids(), rows) +
                                     ", found " + shape_text(m->rows(), m->cols()));
  if (linear.grids.of_column.size() != map.of_column.size())
    throw invariant_error(3, "expected the grids of " + std::to_string(map.of_column.size()) +
                                 " columns, found " +
                                 std::to_string(linear.grids.of_column.size()));
  for (std::size_t j = 0; j < map.of_column.size(); ++j)
    if (linear.grids.of_column[j] != map.of_column[j])
      throw invariant_error(3, "column " + std::to_string(j) + " is on grid " +
                                   std::to_string(linear.grids.of_column[j]) +
                                   ", its width and group are those of grid " +
                                   std::to_string(map.of_column[j]));
  return by_row ? linear.bits : map.width;
}

/// Condition 3 of the grids of a quantizer of one's own.
template <class Q, class B, class T>
void verify_custom_grids(const CompressedLinear<B, T>& linear) {
  const index_t rows = linear.weights.rows();
  auto fault = zeros<B, std::int32_t>(1, rows);
  const auto column_grid = to_backend<B>(linear.grids.of_column);
  B::for_each_row(rows, kernels::CustomFaults<Q, T>{linear.weights.view(),
                                                    {linear.grids.custom.view()},
                                                    column_grid.view().data,
                                                    fault.view().data});
  const auto host = B::to_host(as_const(fault.view()));
  for (index_t i = 0; i < rows; ++i)
    if (host(0, i) != 0)
      throw invariant_error(3,
                            "row " + std::to_string(i) + " holds a value that is not on its grid");
}

/// Looks for faults against conditions 3, 4 (n:m) and 5 in every row: the RowFaults on their way to the
/// host, (1, out).
template <class B, class T>
auto start_rows(const CompressedLinear<B, T>& linear, const std::vector<std::uint8_t>& widths,
                MatrixView<const std::uint8_t> given = {}) {
  const index_t rows = linear.weights.rows();
  const index_t by_row = linear.axis == ChannelAxis::output ? 1 : 0;
  typename B::template matrix<std::int32_t> fault(1, rows);
  const auto column_grid = to_backend<B>(linear.grids.of_column);
  const auto bits = to_backend<B>(widths);
  B::reduce_rows(rows, kernels::RowFaults<T>{linear.weights.view(),
                                             linear.mask.view(),
                                             {linear.grids.scale.view(), linear.grids.zero.view(),
                                              linear.grids.top.view()},
                                             column_grid.view().data,
                                             bits.view().data,
                                             1 - by_row,
                                             by_row,
                                             fault.view().data,
                                             given});
  if (linear.pattern.of > 0)
    B::reduce_rows(rows, kernels::RunFaults{linear.mask.view(), linear.pattern.zeros,
                                            linear.pattern.of, fault.view().data, given});
  return start_to_host<B>(as_const(fault.view()));
}

/// Conditions 3, 4 (n:m) and 5.
/// @param faults  of every row, (1, out)
template <class B, class T>
void verify_rows(const CompressedLinear<B, T>& linear, const Matrix<std::int32_t>& faults,
                 MatrixView<const std::uint8_t> given = {}) {
  for (index_t i = 0; i < faults.cols(); ++i) {
    const auto fault = kernels::RowFault(faults(0, i));
    if (fault == kernels::RowFault::none) continue;
    const std::string row = "row " + std::to_string(i);
    switch (fault) {
      case kernels::RowFault::none:
        break;
      case kernels::RowFault::grid_width:
        throw invariant_error(3, row + " has a grid of another width than its channel's");
      case kernels::RowFault::off_grid:
        throw invariant_error(3, row + " holds a value that is not on its grid");
      case kernels::RowFault::run_count:
        throw invariant_error(4, row + " has " + std::to_string(linear.pattern.of) +
                                     " consecutive inputs with another number of zeros than " +
                                     std::to_string(linear.pattern.zeros) +
                                     (given.rows > 0 ? " or those of the given mask" : ""));
      case kernels::RowFault::not_zero:
        throw invariant_error(5, row + " has a pruned weight that is not zero");
    }
  }
}

/// Counts the weights that a mask (out, in) marks in every block of columns in visit order: their
/// moments over rows, (3, blocks), on their way to the host.
/// @param order       input visited at each position, (in), in the backend's memory
/// @param block_size  columns of a block
template <class B, class T>
auto start_marked(MatrixView<const std::uint8_t> mask, const index_t* order, index_t block_size) {
  const index_t blocks = (mask.cols + block_size - 1) / block_size;
  typename B::template matrix<T> counts(mask.rows, blocks);
  const kernels::CountBlocks<T> count{mask, order, block_size, counts.view()};
  B::reduce_rows(count.rows(), count);
  typename B::template matrix<double> moments(3, blocks);
  B::column_moments(as_const(counts.view()), moments.view());
  return start_to_host<B>(as_const(moments.view()));
}

/// The counts of start_marked() of a mask of so many rows.
inline std::vector<index_t> marked_in_blocks(const Matrix<double>& moments, index_t rows) {
  std::vector<index_t> marked;
  for (index_t b = 0; b < moments.cols(); ++b)
    marked.push_back(index_t(std::llround(moments(1, b) * double(rows))));  // from their mean
  return marked;
}

/// Condition 4 of the unstructured mask where it is counted over rows or the whole linear.
template <class B, class T>
void verify_region(const CompressedLinear<B, T>& linear, MatrixView<const std::uint8_t> given) {
  const index_t rows = linear.mask.rows(), cols = linear.mask.cols();
  const auto marked = [&](MatrixView<const std::uint8_t> mask) {
    typename B::template matrix<std::int64_t> counts(1, rows);
    B::reduce_rows(rows, kernels::CountKept{mask, counts.view()});
    const auto host = B::to_host(as_const(counts.view()));
    std::vector<index_t> result(linear.mask_region == MaskRegion::row ? std::size_t(rows) : 1);
    for (index_t i = 0; i < rows; ++i) result[std::size_t(i) % result.size()] += cols - host(0, i);
    return result;
  };
  const std::vector<index_t> found = marked(linear.mask.view());
  const std::vector<index_t> forced =
      given.rows > 0 ? marked(given) : std::vector<index_t>(found.size(), 0);
  const index_t size = rows * cols / index_t(found.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const index_t expected = std::max(forced[i], pruned_count(linear.pattern.sparsity, size));
    if (found[i] != expected)
      throw invariant_error(4, (found.size() > 1 ? "row " + std::to_string(i)
                                                 : std::string("the linear")) +
                                   ": expected " + std::to_string(expected) +
                                   " pruned weights, found " + std::to_string(found[i]));
  }
}

/// Condition 4 of the unstructured mask; without one no weight may be marked but those of a given
/// mask.
/// @param found   marked in every block
/// @param forced  of these by the given mask
template <class B, class T>
void verify_blocks(const CompressedLinear<B, T>& linear, const std::vector<index_t>& found,
                   const std::vector<index_t>& forced) {
  const index_t rows = linear.mask.rows(), cols = linear.mask.cols();
  for (std::size_t b = 0; b < found.size(); ++b) {
    const index_t width = std::min(linear.block_size, cols - index_t(b) * linear.block_size);
    const index_t expected =
        std::max(forced[b], pruned_count(linear.pattern.sparsity, rows * width));
    if (found[b] != expected)
      throw invariant_error(4, "block " + std::to_string(b) + ": expected " +
                                   std::to_string(expected) + " pruned weights, found " +
                                   std::to_string(found[b]));
  }
}

/// 1/2 tr((W-Q) (H + damping) (W-Q)^T) of some rows, in units of 1 / unit^2, and how far rounding
/// alone may move it.
struct LossForm {
  double loss = 0, noise = 0, spread = 0, unit = 1;

  /// How far the loss may be from what was reported.
  /// @param reported   of the same rows
  /// @param tolerance  relative
  double limit(double reported, double tolerance) const {
    const double largest = std::max(reported * unit * unit, loss);
    // (d + e) H (d + e)^T with e H e^T = noise differs by up to 2 sqrt(loss noise) + noise. It only
    // counts where the weights lie almost on their grid; the spread only where H is
    // ill-conditioned.
    return tolerance * largest + 2 * std::sqrt(largest * noise) + noise + spread;
  }
  bool agrees(double reported, double tolerance) const {
    return std::isfinite(loss) &&
           std::abs(reported * unit * unit - loss) <= limit(reported, tolerance);
  }
  /// In the unit of H.
  double value() const { return loss / unit / unit; }
};

/// Begins the closed form of the loss of rows 0, step, 2 step, ...
/// @param W         the dense weights (out, in)
/// @param Q         the compressed ones
/// @param factor    of calibration's H; U, dead inputs
/// @param added     damping added to the diagonal
/// @param checked   how many rows
/// @param unit      kernels::loss_unit() of about their loss, (1), in the backend's memory
/// @param order     input visited at each position, (in), in the backend's memory
/// @return what loss_form() takes, (4, checked), on its way to the host
template <class B, class T>
auto start_closed_loss(MatrixView<const T> W, MatrixView<const T> Q,
                       const Calibration<B, T>& calibration, const Factor<B, T>& factor,
                       double added, index_t checked, index_t step, const double* unit,
                       const index_t* order) {
  const auto dead = to_backend<B>(factor.dead);
  typename B::template matrix<double> upper_diagonal(1, W.cols);  // by input
  B::for_each_row(W.cols, kernels::TakeDiagonal<T>{.matrix = factor.upper.view(),
                                                   .diagonal = upper_diagonal.view(),
                                                   .order = order});
  typename B::template matrix<T> difference(checked, W.cols), product(checked, W.cols);
  B::for_each_element(checked, W.cols,
                      kernels::Difference<T>{W, Q, dead.view().data, step, unit,
                                             difference.view()});
  B::multiply(product.view(), as_const(difference.view()), calibration.gram());
  typename B::template matrix<double> forms(4, checked);
  B::reduce_rows(checked,
                 kernels::ClosedLoss<T>{W, difference.view(), product.view(), calibration.gram(),
                                        dead.view().data, factor.identity,
                                        upper_diagonal.view().data, step, unit,
                                        calibration.hessian_scale(), added, forms.view()});
  return start_to_host<B>(as_const(forms.view()));
}

/// The sum over the rows of start_closed_loss().
inline LossForm loss_form(const Matrix<double>& forms) {
  LossForm form;
  form.unit = forms(3, 0);
  for (index_t r = 0; r < forms.cols(); ++r) {
    form.loss += forms(0, r);
    form.noise += forms(1, r);
    form.spread += forms(2, r);
  }
  form.noise = std::min(form.noise, std::numeric_limits<double>::max());  // 0 * inf is no limit
  return form;
}

/// The closed form of the loss of rows 0, step, 2 step, ...; see start_closed_loss().
/// @param around  about the loss that is expected
template <class B, class T>
LossForm closed_loss(MatrixView<const T> W, MatrixView<const T> Q,
                     const Calibration<B, T>& calibration, const Factor<B, T>& factor, double added,
                     index_t checked, index_t step, double around) {
  const auto unit = to_backend<B>(std::vector<double>{kernels::loss_unit(around)});
  const auto order = to_backend<B>(factor.order);
  auto forms = start_closed_loss<B, T>(W, Q, calibration, factor, added, checked, step,
                                       unit.view().data, order.view().data);
  return loss_form(forms.get());
}

/// Rows whose loss is compared with its closed form: 0, step, ...
struct VerifiedRows {
  index_t count, step;
  explicit VerifiedRows(index_t rows) : count(std::min(rows, verified_rows)), step(rows / count) {}
};

/// The part of condition 6 that needs no product: the loss is the sum of the rows' losses.
template <class B, class T>
void verify_sum(const CompressedLinear<B, T>& linear, index_t rows) {
  const double sum = std::accumulate(linear.row_loss.begin(), linear.row_loss.end(), 0.0);
  if (index_t(linear.row_loss.size()) != rows || !(std::abs(linear.loss - sum) <= 1e-9 * sum))
    throw invariant_error(6, "the loss " + number_text(linear.loss) + " is not the sum of " +
                                 std::to_string(rows) + " rows' losses");
}

/// Condition 6.
/// @param form  of the VerifiedRows
template <class B, class T>
void verify_loss(const CompressedLinear<B, T>& linear, const LossForm& form) {
  const index_t rows = linear.weights.rows();
  verify_sum(linear, rows);
  const VerifiedRows verified(rows);
  double reported = 0;
  for (index_t r = 0; r < verified.count; ++r)
    reported += linear.row_loss[std::size_t(r * verified.step)];
  if (!form.agrees(reported, scalar_traits<T>::tolerance))
    throw invariant_error(6, "the loss of " + std::to_string(verified.count) + " rows is " +
                                 number_text(reported) + ", recomputed " +
                                 number_text(form.value()) + "; H may be too ill-conditioned for " +
                                 std::string(scalar_traits<T>::name) + ": raise the damping");
}

/// verify_linear() in two steps. The constructor begins what conditions 3 to 6 need; finish() waits for it
/// and checks it. Between the two the losses of the rows may be put into the linear. Keeps
/// references to the linear and to the given mask.
template <class B, class T>
class Verification {
 public:
  /// @param W            the dense weights (out, in)
  /// @param calibration  of its inputs (in)
  /// @param row_loss     (1, out), in the backend's memory
  /// @param order        input visited at each position, (in), in the backend's memory
  /// @throws shape_error, and invariant_error where condition 2, or 3 for the shapes, does not hold
  Verification(MatrixView<const T> W, const Calibration<B, T>& calibration,
               const Factor<B, T>& factor, const CompressedLinear<B, T>& linear, bool quantized,
               MatrixView<const std::uint8_t> given, MatrixView<const double> row_loss,
               const index_t* order)
      : linear_(linear),
        given_(given),
        faults_(start_faults(W, quantized)),
        forms_(start_forms(W, calibration, factor, row_loss, order)) {
    // Only a pattern of one's own can count what it marks.
    if (linear.pattern.kind == PatternKind::n_of_m || linear.custom_pattern ||
        linear.mask_region != MaskRegion::block)
      return;
    for (const auto& mask : {MatrixView<const std::uint8_t>(linear.mask.view()), given})
      if (mask.rows > 0) marked_.push_back(start_marked<B, T>(mask, order, linear.block_size));
  }

  /// @throws invariant_error
  void finish() {
    verify_rows(linear_, faults_.get(), given_);
    if (!marked_.empty()) {
      const auto found = marked_in_blocks(marked_[0].get(), linear_.mask.rows());
      verify_blocks(linear_, found,
                    marked_.size() > 1 ? marked_in_blocks(marked_[1].get(), linear_.mask.rows())
                                       : std::vector<index_t>(found.size(), 0));
    } else if (linear_.pattern.kind != PatternKind::n_of_m && !linear_.custom_pattern) {
      verify_region(linear_, given_);
    }
    verify_loss(linear_, loss_form(forms_.get()));
  }

 private:
  auto start_faults(MatrixView<const T> W, bool quantized) const {
    const auto shape = std::pair{W.rows, W.cols};
    require_shape("compressed weights", shape, {linear_.weights.rows(), linear_.weights.cols()});
    require_shape("mask", shape, {linear_.mask.rows(), linear_.mask.cols()});
    return start_rows(linear_, verify_grids(linear_, W.rows, W.cols, quantized), given_);
  }

  auto start_forms(MatrixView<const T> W, const Calibration<B, T>& calibration,
                   const Factor<B, T>& factor, MatrixView<const double> row_loss,
                   const index_t* order) const {
    const VerifiedRows verified(W.rows);
    typename B::template matrix<double> unit(1, 1);
    B::for_each_row(1,
                    kernels::LossUnit{row_loss, verified.count, verified.step, unit.view().data});
    return start_closed_loss<B, T>(W, linear_.weights.view(), calibration, factor, factor.added,
                                   verified.count, verified.step, unit.view().data, order);
  }

  const CompressedLinear<B, T>& linear_;
  MatrixView<const std::uint8_t> given_;
  decltype(start_to_host<B>(MatrixView<const std::int32_t>())) faults_;
  decltype(start_to_host<B>(MatrixView<const double>())) forms_;
  std::vector<decltype(start_to_host<B>(MatrixView<const double>()))> marked_;
};

}  // namespace detail

/// Checks post-conditions 2, 3, 4, 5 and 6 of one solved linear.
///
/// 2: there is one width per channel, none without a quantizer.
/// 3: there is one grid per row and group (output channels) or per row, width present and group
///    (input channels), see GridMap, of 2^b values, and every value lies on its grid. So a row holds
///    at most 2^b values per grid, and
///    equals its dense weights only where these held no more: rounding cannot have been left out,
///    nor can a grid have been fitted to single weights.
/// 4: every block lost exactly floor(share * size) weights, or every row, or the linear, whatever
///    the mask was counted over; every m inputs of n:m exactly n; more only where a given mask
///    marks more.
/// 5: what the mask pruned is exactly zero, and what a given mask marks was pruned.
/// 6: row losses equal 1/2 d (H + damping) d^T up to rounding, on up to 64 evenly spaced rows; the
///    loss is their sum.
/// @param W            the dense weights (out, in)
/// @param calibration  of its inputs (in)
/// @param factor       the one the solve used
/// @param linear       what the solve returned
/// @param quantized    whether the configuration has a quantizer
/// @param given        the mask that the solve was given, (out, in); empty: none
/// @throws invariant_error with the number of the violated condition; shape_error when the result
///         has another shape than W
template <class B, class T>
void verify_linear(MatrixView<const T> W, const Calibration<B, T>& calibration,
                   const Factor<B, T>& factor, const CompressedLinear<B, T>& linear, bool quantized,
                   MatrixView<const std::uint8_t> given = {}) {
  detail::verify_sum(linear, W.rows);  // as many are read
  const auto row_loss = detail::to_backend<B>(linear.row_loss);
  const auto order = detail::to_backend<B>(factor.order);
  detail::Verification<B, T>(W, calibration, factor, linear, quantized, given,
                             detail::as_const(row_loss.view()), order.view().data)
      .finish();
}

}  // namespace pare
