// The order in which the solver visits the inputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "pare/core/falling_order.hpp"
#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// Visit order of the inputs: wider input channels first, then (act-order) falling H_jj.
///
/// Runs of `of` consecutive inputs stay together, so that n:m still speaks of neighbours; a
/// run is placed by the means over its members, which are ordered by the same rule inside it.
/// @param diagonal   H_jj by input, (in)
/// @param bits       width by input, (in); empty when all are alike
/// @param act_order  whether H_jj counts
/// @param of         inputs that stay together, >= 1, divides in
/// @return           the input visited at each position, (in). Ties keep the natural order.
inline std::vector<index_t> visit_order(const std::vector<double>& diagonal,
                                        const std::vector<std::uint8_t>& bits, bool act_order,
                                        index_t of) {
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

  std::vector<double> run_energy(std::size_t(n / of), 0.0);
  std::vector<int> run_width(std::size_t(n / of), 0);
  for (index_t j = 0; j < n; ++j) {
    run_energy[std::size_t(j / of)] += energy(j);
    run_width[std::size_t(j / of)] += width(j);
  }
  if (!act_order) run_energy.assign(run_energy.size(), 0.0);
  std::vector<std::uint32_t> runs = detail::falling_order(run_energy);
  if (!bits.empty())
    std::stable_sort(runs.begin(), runs.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return run_width[a] > run_width[b]; });
  for (std::size_t g = 0; g < runs.size(); ++g) {
    const auto first = order.begin() + index_t(g) * of;
    std::iota(first, first + of, index_t(runs[g]) * of);
    if (of > 1) sort_by(first, first + of, width, energy);
  }
  return order;
}

}  // namespace pare
