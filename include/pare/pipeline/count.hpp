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

}  // namespace pare::detail
