// Counts over masks and weights, made where they lie: only a few numbers per channel travel.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "pare/kernels/counts.hpp"
#include "pare/kernels/matrices.hpp"
#include "pare/solver/compressed_linear.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Sums over the weights of one linear.
struct WeightCounts {
  double pruned = 0;                     ///< weights the mask pruned
  double zeros = 0;                      ///< weights that are zero, rounded ones too
  std::vector<std::uint64_t> kept_bits;  ///< of the codes that each row keeps, (out)
};

/// Counts what a solved linear holds.
/// @param dense_bits  bits of a weight that is not quantized
template <class B, class T>
WeightCounts count_weights(const CompressedLinear<B, T>& linear, int dense_bits) {
  const index_t rows = linear.weights.rows();
  const bool by_row = linear.quantized() && linear.axis == ChannelAxis::output;
  const bool by_column = linear.quantized() && linear.axis == ChannelAxis::input;
  const std::vector<std::uint8_t> widths =
      linear.quantized() ? linear.bits : std::vector<std::uint8_t>{std::uint8_t(dense_bits)};
  const auto on_backend = to_backend<B>(widths);
  auto counts = zeros<B, std::int64_t>(rows, 3);
  B::reduce_rows(rows, kernels::CountWeights<T>{linear.weights.view(), linear.mask.view(),
                                                on_backend.view().data, by_row ? 1 : 0,
                                                by_column ? 1 : 0, counts.view()});
  const Matrix<std::int64_t> host = B::to_host(MatrixView<const std::int64_t>(counts.view()));
  WeightCounts sums;
  for (index_t i = 0; i < rows; ++i) {
    sums.pruned += double(host(i, 0));
    sums.zeros += double(host(i, 1));
    sums.kept_bits.push_back(std::uint64_t(host(i, 2)));
  }
  return sums;
}

/// Share of every channel's weights that a mask leaves.
/// @param mask    (out, in), in the backend's memory, 1 = pruned
/// @param by_row  whether a channel is a row
template <class B, class T>
std::vector<double> kept_shares(MatrixView<const std::uint8_t> mask, bool by_row) {
  const index_t channels = by_row ? mask.rows : mask.cols, size = by_row ? mask.cols : mask.rows;
  std::vector<index_t> kept;  // of each channel
  if (by_row) {
    auto counts = zeros<B, std::int64_t>(1, mask.rows);
    B::reduce_rows(mask.rows, kernels::CountKept{mask, counts.view()});
    const Matrix<std::int64_t> host = B::to_host(as_const(counts.view()));
    kept.assign(host.data(), host.data() + channels);
  } else {
    typename B::template matrix<T> ones(mask.rows, mask.cols);
    B::for_each_element(mask.rows, mask.cols, kernels::KeptElement<T>{mask, ones.view()});
    const Matrix<double> moments = column_moments<B>(as_const(ones.view()));
    for (index_t j = 0; j < channels; ++j)
      kept.push_back(index_t(std::llround(moments(1, j) * double(size))));  // from their mean
  }
  // Added one by one: the digits of earlier plans.
  std::vector<double> share_of(1, 0.0);
  share_of.reserve(std::size_t(size) + 1);
  for (index_t n = 0; n < size; ++n) share_of.push_back(share_of.back() + 1 / double(size));
  std::vector<double> shares;
  shares.reserve(kept.size());
  for (const index_t n : kept) shares.push_back(share_of[std::size_t(n)]);
  return shares;
}

}  // namespace pare::detail
