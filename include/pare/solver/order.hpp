// The order in which the solver visits the inputs.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "pare/core/matrix.hpp"

namespace pare {

/// Visit order of the inputs: wider input channels first, then (act-order) falling H_jj.
///
/// Groups of `group` consecutive inputs stay together, so that n:m still speaks of neighbours; a
/// group is placed by the means over its members, which are ordered by the same rule inside it.
/// @param diagonal   H_jj by input, (in)
/// @param bits       width by input, (in); empty when all are alike
/// @param act_order  whether H_jj counts
/// @param group      inputs that stay together, >= 1, divides in
/// @return           the input visited at each position, (in). Ties keep the natural order.
inline std::vector<index_t> visit_order(const std::vector<double>& diagonal,
                                        const std::vector<std::uint8_t>& bits, bool act_order,
                                        index_t group) {
  const index_t n = index_t(diagonal.size());
  std::vector<index_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), index_t{0});
  if (bits.empty() && !act_order) return order;

  const auto sort_by = [&](auto begin, auto end, const auto& width, const auto& energy) {
    std::stable_sort(begin, end, [&](index_t a, index_t b) {
      const auto wa = width(a), wb = width(b);
      return wa != wb ? wa > wb : act_order && energy(a) > energy(b);
    });
  };
  const auto width = [&](index_t j) { return bits.empty() ? 0 : int(bits[std::size_t(j)]); };
  const auto energy = [&](index_t j) { return diagonal[std::size_t(j)]; };

  std::vector<double> group_energy(std::size_t(n / group), 0.0);
  std::vector<int> group_width(std::size_t(n / group), 0);
  for (index_t j = 0; j < n; ++j) {
    group_energy[std::size_t(j / group)] += energy(j);
    group_width[std::size_t(j / group)] += width(j);
  }
  std::vector<index_t> groups(group_energy.size());
  std::iota(groups.begin(), groups.end(), index_t{0});
  sort_by(
      groups.begin(), groups.end(), [&](index_t g) { return group_width[std::size_t(g)]; },
      [&](index_t g) { return group_energy[std::size_t(g)]; });
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto first = order.begin() + index_t(g) * group;
    std::iota(first, first + group, groups[g] * group);
    sort_by(first, first + group, width, energy);
  }
  return order;
}

}  // namespace pare
