// Run-time options of the solver, checked against what its configuration can use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/allocation/tiers.hpp"
#include "pare/core/channel.hpp"
#include "pare/core/text.hpp"
#include "pare/quantization/grid.hpp"
#include "pare/quantization/grid_map.hpp"
#include "pare/solver/compression.hpp"

namespace pare::inline PARE_TARGET {

/// What the grids of groups are fitted to: the dense weights before the sweep, or the weights as they
/// are when the sweep reaches the first of a group, moved by the errors of all before it.
enum class GroupFit : std::uint8_t { dense, compensated };

/// "dense" or "compensated".
constexpr std::string_view to_string(GroupFit fit) {
  return fit == GroupFit::dense ? "dense" : "compensated";
}

/// Options of one SparseGPTSolver. Those its configuration has no use for must stay unset.
struct SolverOptions {
  std::optional<double> sparsity = {};  ///< Unstructured: share of weights zeroed, [0, 1)
  std::optional<int> zeros = {};        ///< NofM<>: weights zeroed of every `of`
  std::optional<int> of = {};           ///< NofM<>: consecutive inputs that lose `zeros`
  // With MixedPrecision<Assigned> these three stay unset.
  std::optional<int> bits = {};                    ///< BaseQuantizer: width, 2..8
  std::optional<double> target_average_bits = {};  ///< MixedPrecision: mean bits per channel
  std::optional<std::vector<int>> tiers = {};  ///< MixedPrecision: widths; {2,3,4,6,8} when unset
  ChannelAxis axis = ChannelAxis::output;      ///< MixedPrecision: what a channel is
  GridOptions grid = {};                       ///< of quantizers
  /// Quantizers: inputs that share a grid; 0: all of a row; or dividing_group_size.
  index_t group_size = 0;
  GroupFit group_fit = GroupFit::dense;  ///< quantizers: what the grids of groups are fitted to
  double damping = 0.01;                 ///< share of mean(diag H) added to the diagonal
  index_t block_size = 128;              ///< columns per block; the mask's region
  bool act_order = false;                ///< visit inputs by falling H_jj
  /// DynamicSearch: how the mask is found.
  MaskSearch mask_search = MaskSearch::greedy;
  /// DynamicSearch: solve the weights that a greedy or given mask leaves exactly.
  bool refine = false;
  /// What an unstructured mask of a search is counted over; the whole linear when unset.
  std::optional<MaskRegion> mask_region = {};

  /// Whether every option is the same.
  friend bool operator==(const SolverOptions&, const SolverOptions&) = default;
};

/// What the options say is pruned.
inline Pattern pattern_of(const SolverOptions& options) {
  if (options.zeros || options.of) return n_of_m(options.zeros.value_or(0), options.of.value_or(0));
  return options.sparsity ? unstructured(*options.sparsity) : Pattern{};
}

/// The options with what is pruned set to `pattern`.
inline SolverOptions with_pattern(SolverOptions options, const Pattern& pattern) {
  options.sparsity.reset();
  options.zeros.reset();
  options.of.reset();
  if (pattern.kind == PatternKind::unstructured) options.sparsity = pattern.sparsity;
  if (pattern.kind == PatternKind::n_of_m) {
    options.zeros = pattern.zeros;
    options.of = pattern.of;
  }
  return options;
}

/// The options without a search for masks.
inline SolverOptions without_search(SolverOptions options) {
  options.mask_search = MaskSearch::greedy;
  options.refine = false;
  options.mask_region.reset();
  return options;
}

/// The options with what a plan says left unset: pattern, group size and widths.
inline SolverOptions without_choices(SolverOptions options) {
  options = with_pattern(std::move(options), {});
  options.group_size = 0;
  options.bits.reset();
  options.target_average_bits.reset();
  options.tiers.reset();
  return options;
}

namespace detail {

inline void require_unset(bool set, const char* option, const char* needs) {
  if (set)
    throw argument_error(std::string(option) + ": the configuration has no " + needs +
                         ", the option would be ignored; leave it unset or add the " + needs);
}

inline void require_unassigned(bool set, const char* option) {
  if (set)
    throw argument_error(std::string(option) +
                         ": with MixedPrecision<Assigned> the widths are "
                         "given to solve(), the option would be ignored; leave it unset");
}

/// Throws argument_error for a group size that is none, and where the sweep would not reach groups
/// one after the other.
inline void require_groups(const SolverOptions& options) {
  if (options.group_size < 0 && options.group_size != dividing_group_size)
    throw argument_error("group_size: expected a number of inputs, or 0 for whole rows, got " +
                         std::to_string(options.group_size));
  if (options.group_fit == GroupFit::dense) return;
  const auto fail = [](const std::string& why) {
    throw argument_error("group_fit: compensated " + why);
  };
  if (options.group_size == 0)
    fail("without group_size: the grid of a whole row is fitted before the sweep; set group_size");
  if (options.act_order || options.axis == ChannelAxis::input)
    fail(std::string(options.act_order ? "with act_order" : "with input channels") +
         ": the sweep does not visit the inputs of a group one after the other; leave it dense");
  const index_t least = resolved_group_size(options.group_size, 1);  // divides those it may be
  if (options.of && least % *options.of != 0)
    fail("with n:m: expected a group_size that is a multiple of m, " + std::to_string(*options.of) +
         ", got " + std::to_string(least));
}

/// Throws argument_error unless the search that the options ask for fits the configuration; fills
/// in static values.
template <class Config>
void validate_search(SolverOptions& options) {
  using Search = typename Config::search;
  if constexpr (!Config::searches) {
    require_unset(options.mask_search != MaskSearch::greedy, "mask_search", "search for masks");
    require_unset(options.refine, "refine", "search for masks");
  } else if constexpr (!std::is_same_v<Search, DynamicSearch>) {
    if (options.mask_search != MaskSearch::greedy || options.refine)
      throw argument_error("mask_search, refine: the search is static, leave both unset");
    options.mask_search =
        std::is_same_v<Search, Alternating> ? MaskSearch::alternating : MaskSearch::greedy;
    options.refine = std::is_same_v<Search, Refined>;
  }
  const bool alternating = options.mask_search == MaskSearch::alternating;
  if (alternating && options.refine)
    throw argument_error(
        "refine: with mask_search alternating the weights that stay are solved exactly, the option "
        "would be ignored; leave it unset");
  require_unset(alternating && !Config::prunes, "mask_search", "pattern");
  if (alternating && is_custom_pattern<typename Config::pattern>)
    throw argument_error(
        "mask_search: the search knows how to project on Unstructured and NofM<> alone, not on a "
        "pattern of one's own; leave it greedy, or set refine");
  if (options.mask_region && !(alternating && is_unstructured<typename Config::pattern>))
    throw argument_error(
        "mask_region: only an unstructured mask by mask_search alternating is counted over "
        "anything but blocks, the option would be ignored; leave it unset");
  if (alternating && is_unstructured<typename Config::pattern>)
    options.mask_region = options.mask_region.value_or(MaskRegion::linear);
}

/// Throws argument_error unless the options fit the configuration; fills in static values.
template <class Config>
SolverOptions validated(SolverOptions options) {
  using Pattern = typename Config::pattern;
  constexpr bool own_pattern = is_custom_pattern<Pattern>;  // reads and refuses by itself
  if constexpr (is_unstructured<Pattern>) {
    if (!options.sparsity) throw argument_error("sparsity: Unstructured needs a share, got none");
    if (!(*options.sparsity >= 0 && *options.sparsity < 1))
      throw argument_error("sparsity: expected a share within [0, 1), got " +
                           number_text(*options.sparsity));
  } else if constexpr (!own_pattern) {
    require_unset(options.sparsity.has_value(), "sparsity", "Unstructured pattern");
  }
  if constexpr (is_n_of_m<Pattern>) {
    if constexpr (Pattern::zeros != dynamic) {
      if ((options.zeros && *options.zeros != Pattern::zeros) ||
          (options.of && *options.of != Pattern::of))
        throw argument_error("zeros, of: the pattern is static, leave both unset");
      options.zeros = Pattern::zeros;
      options.of = Pattern::of;
    }
    if (!options.zeros || !options.of)
      throw argument_error("zeros, of: NofM<> needs both, for instance 2 and 4");
    if (!(*options.zeros > 0 && *options.zeros < *options.of))
      throw argument_error("zeros, of: expected 0 < zeros < of, got " +
                           std::to_string(*options.zeros) + " and " + std::to_string(*options.of));
  } else if constexpr (!own_pattern) {
    require_unset(options.zeros || options.of, "zeros, of", "NofM pattern");
  }
  if constexpr (Config::assigned) {
    require_unassigned(options.bits.has_value(), "bits");
    require_unassigned(options.target_average_bits.has_value(), "target_average_bits");
    require_unassigned(options.tiers.has_value(), "tiers");
  } else if constexpr (Config::quantizes) {
    if constexpr (Config::quantizer::bits != dynamic) {
      if (options.bits && *options.bits != Config::quantizer::bits)
        throw argument_error("bits: the quantizer's width is static, leave it unset");
      options.bits = Config::quantizer::bits;
    }
    if (!options.bits) throw argument_error("bits: BaseQuantizer needs a width, got none");
    if (*options.bits < min_bits || *options.bits > max_bits)
      throw argument_error("bits: expected a width within 2..8, got " +
                           std::to_string(*options.bits));
  } else {
    require_unset(options.bits.has_value(), "bits", "BaseQuantizer");
    require_unset(options.group_size != 0, "group_size", "BaseQuantizer");
    require_unset(options.group_fit != GroupFit::dense, "group_fit", "BaseQuantizer");
  }
  if constexpr (!takes_grid_options<typename Config::quantizer>) {
    const char* const needs =
        Config::quantizes ? "quantizer with takes_grid_options" : "BaseQuantizer";
    require_unset(options.grid.symmetric, "grid.symmetric", needs);
    require_unset(options.grid.clip_search, "grid.clip_search", needs);
    require_unset(options.grid.half_scale, "grid.half_scale", needs);
    require_unset(options.grid.scale_digits != half_scale_digits, "grid.scale_digits", needs);
  }
  if (options.grid.scale_digits < 1 || options.grid.scale_digits > half_scale_digits)
    throw argument_error("grid.scale_digits: expected a number within 1..11, got " +
                         std::to_string(options.grid.scale_digits));
  require_unset(options.grid.scale_digits != half_scale_digits && !options.grid.half_scale,
                "grid.scale_digits", "half_scale");
  require_groups(options);
  if constexpr (!Config::mixed) {
    require_unset(options.target_average_bits.has_value(), "target_average_bits", "MixedPrecision");
    require_unset(options.tiers.has_value(), "tiers", "MixedPrecision");
    require_unset(options.axis != ChannelAxis::output, "axis", "MixedPrecision");
  } else if constexpr (!Config::assigned) {
    using Fixed = typename Config::mixed_precision;
    if constexpr (!std::is_void_v<typename Fixed::tiers>) {
      const auto& values = Fixed::tiers::values;
      const std::vector<int> tiers(values.begin(), values.end());
      if (options.tiers && *options.tiers != tiers)
        throw argument_error("tiers: the configuration's are static, leave them unset");
      options.tiers = tiers;
    }
    if constexpr (!std::is_void_v<typename Fixed::target>) {
      if (options.target_average_bits && *options.target_average_bits != Fixed::target::value)
        throw argument_error("target_average_bits: the configuration's is static, leave it unset");
      options.target_average_bits = Fixed::target::value;
    }
  }
  validate_search<Config>(options);
  if (options.block_size < 1)
    throw argument_error("block_size: expected at least 1, got " +
                         std::to_string(options.block_size));
  if (!(options.damping >= 0 && options.damping <= 1))
    throw argument_error("damping: expected a number within 0..1, got " +
                         number_text(options.damping));
  return options;
}

}  // namespace detail
}  // namespace pare
