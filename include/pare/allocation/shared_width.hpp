// Linears that get one width together: their rates as those of a linear with a single channel.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "pare/allocation/rate.hpp"
#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

/// What several linears cost and lose together where all their channels have one width: rates with
/// one channel, for allocate_rates. The choice of its mode and width holds for each of them.
/// @param members  at least one, all with as many modes and the same widths, in the same order
/// @return         as many modes, each with one channel
/// @throws argument_error when there are none, or they differ in modes or widths
inline LinearRates shared_rates(std::span<const LinearRates* const> members) {
  if (members.empty()) throw argument_error("members: expected at least one, got none");
  LinearRates shared;
  for (std::size_t m = 0; m < members.front()->modes.size(); ++m) {
    RateMode mode;
    mode.widths = members.front()->modes[m].widths;
    const std::size_t levels = mode.widths.size();
    mode.cost.assign(levels, 0.0);
    mode.distortion.assign(levels, 0.0);
    for (const LinearRates* member : members) {
      if (member->modes.size() != members.front()->modes.size() ||
          member->modes[m].widths != mode.widths)
        throw argument_error("members: expected as many modes in each, with the same widths, got " +
                             std::to_string(members.front()->modes.size()) + " and " +
                             std::to_string(member->modes.size()));
      const RateMode& of = member->modes[m];
      mode.fixed_bits += of.fixed_bits;
      for (std::size_t i = 0; i < of.cost.size(); ++i) {
        mode.cost[i % levels] += of.cost[i];
        mode.distortion[i % levels] += of.distortion[i];
      }
    }
    shared.modes.push_back(std::move(mode));
  }
  return shared;
}

}  // namespace pare
