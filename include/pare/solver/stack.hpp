// Linears that are solved together: their rows lie one below the other.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pare/calibration/factor.hpp"
#include "pare/solver/compressed_linear.hpp"
#include "pare/solver/fit_grids.hpp"
#include "pare/solver/inputs.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Calls f(), with a linear's name in front of what is thrown, if it has one.
template <class F>
auto in_linear(std::string_view name, const F& f) {
  return name.empty() ? f() : in_context(name, f);
}

/// One of them, and where its rows begin. Refers to its inputs.
template <class B, class T, bool Assigned>
struct StackedLinear {
  const SolveInputs<B, T, Assigned>* inputs;
  index_t begin;

  MatrixView<const T> weights() const { return inputs->weights; }             // (out, in)
  MatrixView<const std::uint8_t> zero() const { return inputs->mask.get(); }  // (out, in), or empty
  index_t rows() const { return weights().rows; }
  index_t end() const { return begin + rows(); }

  /// Its rows of a matrix that has those of all linears.
  template <class U>
  MatrixView<U> rows_of(MatrixView<U> all) const {
    return all.block(begin, 0, rows(), all.cols);
  }
  /// Its columns of a matrix that has a column for each row of all linears.
  template <class U>
  MatrixView<U> columns_of(MatrixView<U> all) const {
    return all.columns(begin, rows());
  }
  /// Calls f(), with the linear's name in front of what is thrown.
  template <class F>
  auto named(const F& f) const {
    return in_linear(inputs->name, f);
  }
};

/// The linears as a stack.
/// @throws argument_error for none, or when their calibrations or factors differ
template <class B, class T, bool Assigned>
std::vector<StackedLinear<B, T, Assigned>> stacked(
    std::span<const SolveInputs<B, T, Assigned>> linears) {
  if (linears.empty()) throw argument_error("linears: expected at least one, got none");
  std::vector<StackedLinear<B, T, Assigned>> stack;
  for (const auto& inputs : linears) {
    stack.push_back({&inputs, stack.empty() ? 0 : stack.back().end()});
    stack.back().named([&] {
      if (&inputs.calibration.get() != &linears[0].calibration.get() ||
          inputs.factor.get() != linears[0].factor.get())
        throw argument_error(
            "linears: expected the calibration and the factor of the first, got others");
    });
  }
  return stack;
}

/// Solves linears one after the other, with one factor.
/// @param solver  its prepare() makes the factor where none is given
/// @throws what stacked() and its solve() throw
template <class Solver>
std::vector<typename Solver::Compressed> solve_in_turn(
    Solver& solver, std::span<const typename Solver::Inputs> linears) {
  const auto first = stacked(linears).front();
  decltype(solver.prepare(first.inputs->calibration)) shared;
  const bool given = first.inputs->factor.get() != nullptr;
  if (!given) shared = first.named([&] { return solver.prepare(first.inputs->calibration); });
  std::vector<typename Solver::Compressed> solved;
  for (typename Solver::Inputs inputs : linears) {
    if (!given) inputs.factor = shared;
    solved.push_back(solver.solve(inputs));
  }
  return solved;
}

/// Throws argument_error naming the first row with a scale that float16 cannot hold.
/// @param at    of the scale among those of all linears, or -1
/// @param rows  of all linears
template <class B, class T, bool Assigned>
void require_half_scales(std::span<const StackedLinear<B, T, Assigned>> linears, index_t at,
                         index_t rows) {
  if (at < 0) return;
  for (const auto& linear : linears)
    if (const index_t row = at % rows - linear.begin; row >= 0 && row < linear.rows())
      linear.named([&] {
        throw argument_error("grid.half_scale: row " + std::to_string(row) +
                             " of the weights needs a scale beyond 65504, the largest float16; "
                             "scale the weights down, or leave it unset");
      });
}

/// The weights of all linears (rows, in), those of dead inputs zero; the weights themselves of one
/// linear without dead inputs.
/// @param room  where the result lies otherwise
template <class B, class T, bool Assigned>
MatrixView<const T> stacked_weights(std::span<const StackedLinear<B, T, Assigned>> linears,
                                    const Factor<B, T>& factor,
                                    typename B::template matrix<T>& room) {
  if (linears.size() == 1) return live_weights<B, T>(linears[0].weights(), factor, room);
  room.resize(linears.back().end(), factor.in_features());
  const bool some_dead = has_dead_inputs(factor);
  const auto dead = to_backend<B>(factor.dead);
  for (const auto& linear : linears) {
    const MatrixView<const T> W = linear.weights();
    const MatrixView<T> to = linear.rows_of(room.view());
    if (some_dead)
      B::for_each_element(W.rows, W.cols, kernels::LiveWeights<T>{W, to, dead.view().data});
    else
      B::copy(W, to);
  }
  return as_const(room.view());
}

/// Columns of a matrix, copied.
template <class B, class U>
typename B::template matrix<U> copied_columns(const typename B::template matrix<U>& from,
                                              index_t begin, index_t count) {
  typename B::template matrix<U> to(from.rows(), count);
  if (to.rows() > 0) B::copy(as_const(from.view()).columns(begin, count), to.view());
  return to;
}

/// Gives a linear its part of the grids of all.
/// @param linear  its widths are known
template <class Config, class B, class T, bool Assigned>
void take_grids(const StackedLinear<B, T, Assigned>& part, const CompressedLinear<B, T>& all,
                CompressedLinear<B, T>& linear) {
  const auto take = [&](const auto& from) {
    return copied_columns<B, T>(from, part.begin, part.rows());
  };
  linear.grids.of_column = all.grids.of_column;
  if constexpr (has_custom_grids<Config>) {
    linear.grids.custom = take(all.grids.custom);
  } else if constexpr (Config::quantizes) {
    linear.grids.scale = take(all.grids.scale);
    linear.grids.zero = take(all.grids.zero);
    linear.grids.top = take(all.grids.top);
  }
}

}  // namespace pare::inline PARE_TARGET::detail
