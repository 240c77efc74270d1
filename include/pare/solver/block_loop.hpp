// The loop over blocks of columns: masks, sweep and updates of linears that are solved together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "pare/kernels/hessian.hpp"
#include "pare/kernels/masks.hpp"
#include "pare/kernels/sweep.hpp"
#include "pare/solver/custom_parts.hpp"
#include "pare/solver/fit_grids.hpp"
#include "pare/solver/stack.hpp"
#include "pare/solver/updates.hpp"
#include "pare/solver/verify.hpp"

namespace pare::inline PARE_TARGET::detail {

/// The kind of a configuration's pattern; dense for one of one's own.
template <class Config>
inline constexpr PatternKind pattern_kind = [] {
  using Given = typename Config::pattern;
  if constexpr (is_custom_pattern<Given>)
    return PatternKind::dense;
  else
    return Pattern(Given{}).kind;
}();

/// Goes through the columns of linears that lie one below the other.
template <class Config, class B, class T>
class BlockLoop {
  template <class U>
  using Owner = typename B::template matrix<U>;
  using Linear = CompressedLinear<B, T>;
  using Parts = std::span<const StackedLinear<B, T, Config::assigned>>;
  using UserPattern = typename Config::pattern;
  static constexpr bool custom_pattern = is_custom_pattern<UserPattern>;
  static constexpr kernels::MaskSource mask_source =
      pattern_kind<Config> == PatternKind::n_of_m ? kernels::MaskSource::n_of_m
      : pattern_kind<Config> == PatternKind::unstructured || custom_pattern
          ? kernels::MaskSource::given
          : kernels::MaskSource::none;

 public:
  Owner<T> weights;           // (rows, in), of all linears, in visit order
  Owner<std::uint8_t> marks;  // the same, 1 = pruned

  /// Prunes and rounds `weights`, and writes `marks`, which has their shape.
  /// @param all    has the widths and grids of all linears; gets grids that are fitted on the way
  /// @param order  input visited at each position, (in), in the backend's memory
  /// @return       the losses of the rows, (1, rows)
  Owner<double> run(const SolverOptions& options, Parts parts, Linear& all,
                    const Factor<B, T>& factor, const index_t* order) {
    const index_t rows = weights.rows(), cols = weights.cols();
    const index_t width = std::min(all.block_size, cols);
    const auto forced = begin_masks(parts, all, order);
    auto row_loss = zeros<B, double>(1, rows);
    std::vector<std::int32_t> visited_grid(all.grids.of_column.size());
    for (std::size_t p = 0; p < visited_grid.size(); ++p)
      visited_grid[p] = all.grids.of_column[std::size_t(factor.order[p])];
    const auto column_grid = to_backend<B>(visited_grid);
    const bool fits_groups = Config::quantizes && options.group_fit == GroupFit::compensated;
    const auto widths = to_backend<B>(fits_groups ? all.bits : std::vector<std::uint8_t>{});
    // A group that is fitted when the sweep reaches it needs all its columns up to date.
    updates_.start(rows, cols, width, !fits_groups);
    Owner<T> u(1, cols);
    B::for_each_row(cols, kernels::TakeDiagonal<T, T>{factor.upper.view(), u.view()});

    for (index_t begin = 0; begin < cols; begin += width) {
      const index_t count = std::min(width, cols - begin);
      const MatrixView<const T> block = as_const(weights.view()).columns(begin, count);
      const MatrixView<std::uint8_t> mask = marks.view().columns(begin, count);
      const auto divisor = as_const(u.view()).columns(begin, count);
      if constexpr (custom_pattern) {
        const std::span<const index_t> inputs(factor.order);
        for (const auto& part : parts)
          part.named([&] {
            UserPattern::template mark<B, T>(
                {part.rows_of(block), divisor,
                 inputs.subspan(std::size_t(begin), std::size_t(count)), cols},
                options, part.rows_of(mask));
          });
      } else if constexpr (mask_source == kernels::MaskSource::given) {
        select(parts, all.pattern, block, mask, divisor, forced, std::size_t(begin / width));
      }
      // In one piece, or, where a group is fitted to what the columns before it leave, up to there.
      for (index_t at = begin; at < begin + count;) {
        index_t size = begin + count - at;
        if (fits_groups) {
          const index_t group = all.group_size, in_group = at % group;
          if constexpr (Config::quantizes)
            if (in_group == 0)
              fit_group(options, parts, all, at / group, at, std::min(group, cols - at),
                        widths.view().data);
          size = std::min(size, group - in_group);
        }
        sweep_columns(all, factor, at, size, column_grid.view().data, row_loss.view().data);
        at += size;
      }
    }
    return row_loss;
  }

 private:
  /// Fits grid g of every row to some columns, its group as compensated so far.
  /// @param bits  of every row, (rows), in the backend's memory
  void fit_group(const SolverOptions& options, Parts parts, Linear& all, index_t g, index_t begin,
                 index_t count, const std::uint8_t* bits) const {
    const GridFitter<Config, B, T> fitter(options);
    fitter.fit(all, weights.view().columns(begin, count), nullptr, bits, true, g, 1);
    if constexpr (custom_pattern)  // which is shown finite numbers
      if (auto scales = fitter.start_check(all, g, 1))
        require_half_scales(parts, scales->get(), weights.rows());
  }

  /// Begins the masks of all linears with what is given, and counts it: marked weights of every block of
  /// each linear, none where no mask is given.
  /// @param all    of all linears
  /// @param order  input visited at each position, (in), in the backend's memory
  std::vector<std::vector<index_t>> begin_masks(Parts parts, const Linear& all,
                                                const index_t* order) {
    std::vector<std::vector<index_t>> forced(parts.size());
    if (!all.given_mask) {
      if constexpr (custom_pattern || mask_source == kernels::MaskSource::none)
        B::for_each_element(marks.rows(), marks.cols(),
                            kernels::SetZero<std::uint8_t>{marks.view()});
      return forced;
    }
    const index_t width = std::min(all.block_size, marks.cols());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const MatrixView<const std::uint8_t> zero = parts[i].zero();
      const MatrixView<std::uint8_t> mask = parts[i].rows_of(marks.view());
      if (zero.rows == 0) {
        B::for_each_element(mask.rows, mask.cols, kernels::SetZero<std::uint8_t>{mask});
      } else {
        forced[i] = marked_in_blocks(start_marked<B, T>(zero, order, width).get(), zero.rows);
        B::for_each_element(mask.rows, mask.cols, kernels::GatherMarks{zero, mask, order});
      }
    }
    return forced;
  }

  /// Completes the mask of a block in every linear.
  /// @param block   (rows, count) of weights
  /// @param mask    (rows, count) of marks
  /// @param u       U_jj of these columns, (1, count)
  /// @param forced  what begin_masks() has counted
  /// @param number  of the block
  void select(Parts parts, const Pattern& pattern, MatrixView<const T> block,
              MatrixView<std::uint8_t> mask, MatrixView<const T> u,
              const std::vector<std::vector<index_t>>& forced, std::size_t number) const {
    std::vector<kernels::RowRun> runs;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto& part = parts[i];
      const index_t k = pruned_count(pattern.sparsity, part.rows() * block.cols);
      if (forced[i].empty())
        runs.push_back({part.begin, part.rows(), k});
      else if (const index_t more = k - forced[i][number]; more > 0)
        select_beside(part.rows_of(block), u, more, part.rows_of(mask));
    }
    select_smallest_of<B>(block, u, std::span<const kernels::RowRun>(runs), mask);
  }

  /// Adds the k smallest of a block to its mask, in which the first are marked.
  void select_beside(MatrixView<const T> block, MatrixView<const T> divisor, index_t k,
                     MatrixView<std::uint8_t> mask) const {
    Owner<T> hidden(block.rows, block.cols);
    Owner<std::uint8_t> chosen(block.rows, block.cols);
    B::for_each_element(block.rows, block.cols,
                        kernels::HideMarked<T>{block, as_const(mask), hidden.view()});
    B::select_smallest(as_const(hidden.view()), divisor, k, chosen.view());
    B::for_each_element(block.rows, block.cols, kernels::AddMarks{as_const(chosen.view()), mask});
  }

  /// Sweeps neighbouring columns of weights and feeds their errors to all columns after them.
  /// @param grid  of each column of weights, (in), in the backend's memory
  void sweep_columns(const Linear& linear, const Factor<B, T>& factor, index_t begin, index_t count,
                     const std::int32_t* grid, double* row_loss) {
    const MatrixView<T> errors = updates_.errors(begin, count);
    const MatrixView<const T> upper = factor.upper.view();
    const auto sweep = [&]<kernels::MaskSource Mask>() {
      const auto with = [&]<class Grids>(const Grids& grids) {
        return kernels::RowSweep<T, Mask, Config::quantizes, Grids>{
            weights.view().columns(begin, count),
            errors,
            marks.view().columns(begin, count),
            upper.block(begin, begin, count, count),
            grids,
            Config::quantizes ? grid + begin : nullptr,
            row_loss,
            linear.pattern.zeros,
            linear.pattern.of};
      };
      if constexpr (has_custom_grids<Config>)
        B::for_each_row(weights.rows(), with(OwnGrids<Config, T>{linear.grids.custom.view()}));
      else
        B::row_sweep(with(GridView<const T>{linear.grids.scale.view(), linear.grids.zero.view(),
                                            linear.grids.top.view()}));
    };
    if (!linear.given_mask)
      sweep.template operator()<mask_source>();
    else if constexpr (mask_source == kernels::MaskSource::n_of_m)
      sweep.template operator()<kernels::MaskSource::n_of_m_beside>();
    else
      sweep.template operator()<kernels::MaskSource::given>();
    updates_.feed(weights.view(), upper, begin, count);
  }

  Updates<B, T> updates_;
};

}  // namespace pare::inline PARE_TARGET::detail
