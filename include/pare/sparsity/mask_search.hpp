// Who chooses which weights go, and what becomes of those that stay.
#pragma once

#include <cstdint>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// How a mask is found.
enum class MaskSearch : std::uint8_t {
  greedy,       ///< block by block in the sweep, as in SparseGPT
  alternating,  ///< for the whole linear at once, by the alternating direction method of multipliers
};

/// "greedy" or "admm", as the tools have it.
constexpr const char* to_string(MaskSearch search) {
  return search == MaskSearch::greedy ? "greedy" : "admm";
}

/// What the exact count of an unstructured mask is taken over.
enum class MaskRegion : std::uint8_t {
  block,   ///< every block of columns in visit order; the greedy mask's
  row,     ///< every row
  linear,  ///< the whole linear
};

/// "block", "row" or "linear".
constexpr const char* to_string(MaskRegion region) {
  return region == MaskRegion::block ? "block" : region == MaskRegion::row ? "row" : "linear";
}

/// In a Compression: masks by the alternating direction method of multipliers, the weights that
/// stay by an exact solve (Meng et al. 2024, ALPS). The greedy result is computed as well, and the
/// one with the lower loss is kept.
struct Alternating {};

/// In a Compression: the greedy mask, or one that is given, and the weights that stay by an exact
/// solve. What was there before is kept where its loss is lower.
struct Refined {};

/// In a Compression: the solver's options `.mask_search` and `.refine` say which of these it is, if
/// any.
struct DynamicSearch {};

}  // namespace pare
