// What solving one linear gives.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/matrix.hpp"
#include "pare/sparsity/mask_search.hpp"
#include "pare/sparsity/pattern.hpp"

namespace pare::inline PARE_TARGET {

/// A compressed linear. Matrices lie in the backend's memory, vectors in the host's.
template <class B, class T>
struct CompressedLinear {
  typename B::template matrix<T> weights;          // (out, in), dense values
  typename B::template matrix<std::uint8_t> mask;  // (out, in), 1 = pruned by the mask
  struct {
    typename B::template matrix<T> scale;  // (grids, out)
    typename B::template matrix<T> zero;   // (grids, out)
    typename B::template matrix<T> top;    // (grids, out), 2^bits - 1
    std::vector<std::int32_t> of_column;   ///< grid of each input, (in)
    /// Instead of scale, zero and top: the grids of a quantizer of one's own, see CustomGrids.
    typename B::template matrix<T> custom;  // (grids * numbers of a grid, out)
    double custom_bits = 0;                 ///< what a file needs for them
  } grids;                                  ///< empty without a quantizer
  /// What a channel is.
  ChannelAxis axis = ChannelAxis::output;
  std::vector<std::uint8_t> bits;  ///< width per channel of `axis`; empty without a quantizer
  index_t group_size = 0;          ///< inputs that share a grid, 0: all of a row or tier
  bool mixed_widths = false;       ///< every channel has its own width, to be stored with it
  std::vector<double> scores;      ///< importance per channel; empty unless a policy used it
  std::vector<index_t> order;      ///< input visited at each position
  index_t block_size = 0;          ///< columns per block in force
  Pattern pattern;                 ///< what the mask was asked to prune
  bool given_mask = false;         ///< and what a caller's mask marks
  bool custom_pattern = false;     ///< or what a pattern of one's own marks
  /// What an unstructured mask has an exact count over.
  MaskRegion mask_region = MaskRegion::block;
  /// How the mask was found, of what was asked for.
  MaskSearch mask_search = MaskSearch::greedy;
  int search_steps = 0;               ///< of the search for the mask; 0 without one
  bool refined = false;               ///< the weights that stay were solved exactly, then rounded
  std::optional<double> greedy_loss;  ///< of the greedy result, where more was asked for
  double loss = 0;                    ///< half the sum of squared compensated errors
  std::vector<double> row_loss;       ///< the same per row, (out)
  double damping = 0;                 ///< share of mean(diag H) in force
  int damping_retries = 0;            ///< how often it was raised
  /// Wall time of solve(), with the factor unless it was given; of linears that are solved together,
  /// shared out by rows.
  double seconds = 0;

  /// Whether weights were rounded to grids.
  bool quantized() const { return !bits.empty(); }
  /// Whether they were rounded by a quantizer of one's own.
  bool custom_grids() const { return grids.custom.rows() > 0; }
  /// Whether a mask was asked for.
  bool pruned() const { return pattern.prunes() || given_mask || custom_pattern; }
};

}  // namespace pare
