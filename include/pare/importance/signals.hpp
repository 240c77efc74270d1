// The signals that say how much a channel matters.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "pare/calibration/factor.hpp"
#include "pare/core/channel.hpp"
#include "pare/kernels/fit.hpp"
#include "pare/kernels/scores.hpp"
#include "pare/quantization/grid_map.hpp"

namespace pare::inline PARE_TARGET {

/// What a signal may look at. Matrices are in the backend's memory.
template <class B, class T>
struct ScoringInput {
  MatrixView<const T> weights;           // (out, in)
  const Calibration<B, T>& calibration;  ///< H and moments of the inputs
  const Factor<B, T>& factor;            ///< U
  int bits = 4;                          ///< width at which a rounding distortion is measured
  GridOptions grid = {};                 ///< and how its grid is fitted
  index_t group_size = 0;                ///< neighbouring inputs that share a grid; 0: whole rows
};

/// Throws unless weights can be read and calibration and factor are of their inputs.
/// @throws shape_error, argument_error
template <class B, class T>
void require_scorable(const ScoringInput<B, T>& in) {
  require_view("weights (out, in)", in.weights);
  const index_t rows = in.weights.rows, cols = in.weights.cols;
  require_shape("weights (out, in) against calibration (in)", {rows, in.calibration.in_features()},
                {rows, cols});
  require_shape("weights (out, in) against factor (in, in)", {rows, in.factor.in_features()},
                {rows, cols});
}

/// A signal of the channels of one axis: callable on ScoringInput, one number >= 0 per channel.
template <class S, class B, class T, ChannelAxis Axis>
concept Signal = S::axis == Axis&& requires(const S signal, const ScoringInput<B, T>& input) {
  { signal(input) } -> std::same_as<std::vector<double>>;
};

namespace detail {

/// P with w . p = w G w^T for every row w of W and p of P. Both (out, in).
///
/// G is symmetric: what lies left of a strip of columns counts twice, what lies right of it not at
/// all, which saves nearly half of the product W G.
template <class B, class T>
typename B::template matrix<T> quadratic_product(MatrixView<const T> W, MatrixView<const T> G) {
  constexpr index_t strip = 512;  // wide enough for fast products
  const index_t rows = W.rows, cols = W.cols;
  typename B::template matrix<T> product(rows, cols);
  typename B::template matrix<T> left(rows, cols);  // 2 W left of the strip, W in it
  B::copy(W, left.view());
  for (index_t begin = 0; begin < cols; begin += strip) {
    const index_t width = std::min(strip, cols - begin), end = begin + width;
    B::multiply(product.view().columns(begin, width),
                MatrixView<const T>(left.view().columns(0, end)), G.block(0, begin, end, width));
    const MatrixView<T> done = left.view().columns(begin, width);
    B::for_each_element(rows, width, kernels::DoubleElement<T>{done});
  }
  return product;
}

/// Grids of one width for all rows of a matrix, where the backend computes.
template <class B, class T>
struct RowGrids {
  typename B::template matrix<T> scale, zero, top;        // (grids, out)
  typename B::template matrix<std::int32_t> column_grid;  // (1, in)

  GridView<const T> view() const { return {scale.view(), zero.view(), top.view()}; }
  const std::int32_t* of_column() const { return column_grid.view().data; }
};

/// The grids of the given width that are fitted to the rows of W (out, in), or to groups of
/// group_size neighbouring columns of each.
template <class B, class T>
RowGrids<B, T> row_grids(MatrixView<const T> W, int bits, GridOptions options, index_t group_size) {
  const std::vector<std::uint8_t> widths{std::uint8_t(bits)};
  const GridMap map = grid_map(ChannelAxis::output, widths, W.cols, group_size);
  RowGrids<B, T> grids;
  for (auto* m : {&grids.scale, &grids.zero, &grids.top}) m->resize(map.grids(), W.rows);
  grids.column_grid = to_backend<B>(map.of_column);
  const auto begin = to_backend<B>(map.begin);
  const auto width = to_backend<B>(widths);
  B::fit_grids(
      kernels::GridFit<T>{.weights = W,
                          .begin = begin.view().data,
                          .bits = width.view().data,
                          .options = options,
                          .clip_steps = clip_steps_for(group_size),
                          .grids = {grids.scale.view(), grids.zero.view(), grids.top.view()}});
  return grids;
}

}  // namespace detail

/// Signals of input channels (columns of W), each (in). All are 0 for a dead input, which is not
/// worth a bit.
namespace input_signal {

/// mean |x_j|.
struct Activation {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return in.calibration.moments().mean_abs;
  }
};

/// U_jj, the published direction: it is large where the column is cheap to change.
struct Hessian {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    std::vector<double> signal(in.factor.order.size());
    for (std::size_t p = 0; p < signal.size(); ++p) {
      const std::size_t j = std::size_t(in.factor.order[p]);
      signal[j] = in.factor.dead[j] != 0 ? 0 : in.factor.upper_diagonal[p];
    }
    return signal;
  }
};

/// 1 / U_jj: large where changing the column costs much. The corrected direction of Hessian.
struct InverseHessian {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    std::vector<double> signal = Hessian{}(in);
    for (double& s : signal) s = s > 0 ? 1 / s : 0;
    return signal;
  }
};

/// mean_i |w_ij|.
struct Weight {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    typename B::template matrix<T> room;
    const Matrix<double> m =
        detail::column_moments<B>(detail::live_weights<B, T>(in.weights, in.factor, room));
    return {m.view().row(0), m.view().row(0) + m.cols()};
  }
};

/// sqrt(mean_i w_ij^2 (mean |x_j|)^2).
struct OutputSensitivity {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    const Matrix<double> m = detail::column_moments<B>(in.weights);
    std::vector<double> signal = in.calibration.moments().mean_abs;
    for (index_t j = 0; j < m.cols(); ++j) {
      const double mean_square = m(2, j) / double(in.weights.rows) + m(1, j) * m(1, j);
      signal[std::size_t(j)] *= std::sqrt(mean_square);
    }
    return signal;
  }
};

/// var(x_j).
struct Stability {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::input;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return in.calibration.moments().variance;
  }
};

}  // namespace input_signal

/// What the five signals of output channels share, per output y_i = w_i x (without bias).
struct OutputMoments {
  std::vector<double> mean_abs;    ///< E|y_i|, folded normal
  std::vector<double> energy;      ///< sqrt(w_i H w_i^T)
  std::vector<double> weight;      ///< mean_j |w_ij|, weights of dead inputs taken as 0
  std::vector<double> distortion;  ///< sqrt(sum_j (w_ij - round(w_ij))^2 H_jj)
  std::vector<double> variance;    ///< var(y_i) = w_i Cov(x) w_i^T
};

/// Computes OutputMoments without a second pass over activations.
/// @return  of every output channel, (out) each
/// @throws  what require_scorable throws
template <class B, class T>
OutputMoments output_moments(const ScoringInput<B, T>& in) {
  require_scorable(in);
  const index_t rows = in.weights.rows, cols = in.weights.cols;
  typename B::template matrix<T> room;
  const MatrixView<const T> W = detail::live_weights<B, T>(in.weights, in.factor, room);
  const auto product = detail::quadratic_product<B, T>(W, in.calibration.gram());
  const InputMoments moments = in.calibration.moments();
  const auto mean = detail::to_backend<B>(moments.mean);
  const auto diagonal = detail::to_backend<B>(in.calibration.hessian_diagonal());
  const auto grids = detail::row_grids<B, T>(W, in.bits, in.grid, in.group_size);
  auto sums = detail::zeros<B, double>(rows, 5);
  B::reduce_rows(rows,
                 kernels::ScoreSums<T>{W, product.view(), mean.view().data, diagonal.view().data,
                                       grids.view(), grids.of_column(), sums.view()});
  const Matrix<double> s = B::to_host(MatrixView<const double>(sums.view()));

  const double scale = in.calibration.hessian_scale();
  // gram() is a sum over tokens, or H in an unknown unit that every signal's mean divides out.
  const double tokens = in.calibration.hessian_only() ? 1.0 : double(in.calibration.tokens());
  OutputMoments out;
  for (auto* v : {&out.mean_abs, &out.energy, &out.weight, &out.distortion, &out.variance})
    v->resize(std::size_t(rows));
  for (index_t i = 0; i < rows; ++i) {
    const std::size_t at = std::size_t(i);
    const double mu = s(i, 0), quadratic = std::max(0.0, s(i, 1));
    // Of outputs that hardly vary the difference is rounding error, which a signal divided by its
    // mean would take for the order of the channels.
    const double noise = 8 * double(std::numeric_limits<T>::epsilon()) * std::sqrt(double(cols)) *
                         s(i, 4) / (scale * tokens);
    const double difference = quadratic / tokens - mu * mu;
    const double variance = difference > noise ? difference : 0;
    const double sigma = std::sqrt(variance);
    out.mean_abs[at] =
        sigma > 0 ? sigma * std::sqrt(2 / std::numbers::pi) * std::exp(-0.5 * mu * mu / variance) +
                        mu * std::erf(mu / (sigma * std::sqrt(2.0)))
                  : std::abs(mu);
    out.energy[at] = std::sqrt(scale * quadratic);
    out.weight[at] = s(i, 2) / double(cols);
    out.distortion[at] = std::sqrt(s(i, 3));
    out.variance[at] = variance;
  }
  return out;
}

/// Signals of output channels (rows of W), each (out).
namespace output_signal {

/// E|y_i| of the folded normal with the mean and variance of y_i.
struct Activation {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::output;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return output_moments(in).mean_abs;
  }
};

/// sqrt(w_i H w_i^T).
struct Hessian {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::output;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return output_moments(in).energy;
  }
};

/// mean_j |w_ij|.
struct Weight {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::output;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return output_moments(in).weight;
  }
};

/// The row's distortion when rounded at `bits`: sqrt(sum_j (w_ij - q_ij)^2 H_jj).
struct OutputSensitivity {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::output;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return output_moments(in).distortion;
  }
};

/// var(y_i).
struct Stability {
  /// What a channel is.
  static constexpr ChannelAxis axis = ChannelAxis::output;
  /// One number >= 0 per channel.
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    return output_moments(in).variance;
  }
};

}  // namespace output_signal

}  // namespace pare
