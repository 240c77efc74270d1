// What the loop over layers asks for every linear: its weights as they are solved, who solves them,
// and what rounding to the type that is stored adds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/calibration/calibration.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/rotate.hpp"
#include "pare/model/linear.hpp"
#include "pare/solver/sparsegpt.hpp"

namespace pare::inline PARE_TARGET {
namespace detail {

/// The linears of a layer that are calibrated in one pass: they read inputs first <= i <= last.
struct CalibrationStage {
  index_t first, last;
  bool holds(index_t input) const { return input >= first && input <= last; }
};

/// The weights of a linear as the solver takes them; `converted` is used where types differ.
template <class B, class S, class T = compute_scalar<S>>
MatrixView<const T> dense_weights(const Linear<B, S>& linear,
                                  typename B::template matrix<T>& converted) {
  if constexpr (std::is_same_v<S, T>) {
    return linear.weight.view();
  } else {
    converted.resize(linear.weight.rows(), linear.weight.cols());
    convert<B>(linear.weight.view(), converted.view());
    return converted.view();
  }
}

/// Rounds compressed weights to the type the checkpoint stores, so that what is evaluated and
/// counted is what is saved. Throws non_finite_error naming the linear when one is beyond that
/// type.
template <class B, class S, class T = compute_scalar<S>>
void round_stored(const Linear<B, S>& linear, CompressedLinear<B, T>& compressed) {
  const MatrixView<T> Q = compressed.weights.view();
  B::for_each_element(Q.rows, Q.cols, kernels::RoundStored<T, S>{Q, linear.dtype});
  require_finite<B, T>(linear.name + ": compressed weights in the checkpoint's type", Q);
}

/// X R^T: the inputs, or the weights, that a linear is solved for where there is a rotation.
/// @param X       (rows, in)
/// @param turned  grows to the shape of X; the result lies there
template <class B, class S, class T>
MatrixView<const T> turned_rows(MatrixView<const S> X, const kernels::HadamardRotation& rotation,
                                typename B::template matrix<T>& turned) {
  turned.resize(X.rows, X.cols);
  if constexpr (std::is_same_v<S, T>) {
    rotate_rows<B, T>(X, turned.view(), rotation);
  } else {
    convert<B>(X, turned.view());
    rotate_rows<B, T>(as_const(turned.view()), turned.view(), rotation);
  }
  return as_const(turned.view());
}

/// Turns weights in place.
template <class B, class T>
void turn_weights(typename B::template matrix<T>& weights,
                  const kernels::HadamardRotation& rotation, Turn turn) {
  rotate_rows<B, T>(as_const(weights.view()), weights.view(), rotation, turn);
}

/// H of inputs that are turned, from H of the inputs: no pass over these is needed.
/// @param plain  of the inputs as they are
template <class B, class T>
Calibration<B, T> turned_calibration(const Calibration<B, T>& plain,
                                     const kernels::HadamardRotation& rotation) {
  const index_t n = plain.in_features();
  typename B::template matrix<T> H(n, n);
  B::for_each_element(n, n, kernels::ScaledCopy<T>{plain.gram(), H.view(), plain.hessian_scale()});
  rotate_hessian<B, T>(H.view(), rotation);
  return Calibration<B, T>::from_hessian(as_const(H.view()));
}

/// Puts compressed weights that are rounded to the type the checkpoint stores into the model.
template <class B, class S, class T = compute_scalar<S>>
void replace_weights(Linear<B, S>& linear, CompressedLinear<B, T>&& compressed) {
  if constexpr (std::is_same_v<S, T>)
    linear.weight = std::move(compressed.weights);
  else
    convert<B>(as_const(compressed.weights.view()), linear.weight.view());
}

/// What rounding to the type the checkpoint stores has added to the loss of a solved linear; 0
/// where it changes the loss of up to verified_rows evenly spaced rows by less than the scalar's
/// tolerance. Every row costs a product with H.
/// @param W           what was solved (out, in)
/// @param compressed  solved, its weights rounded
template <class B, class T>
double rounding_loss(MatrixView<const T> W, const Calibration<B, T>& calibration,
                     const Factor<B, T>& factor, const CompressedLinear<B, T>& compressed) {
  const double added = compressed.damping * factor.mean_diagonal;
  const auto form = [&](index_t checked, index_t step, double around) {
    return closed_loss<B, T>(W, compressed.weights.view(), calibration, factor, added, checked,
                             step, around);
  };
  const VerifiedRows verified(W.rows);
  double solved = 0;
  for (index_t r = 0; r < verified.count; ++r)
    solved += compressed.row_loss[std::size_t(r * verified.step)];
  if (form(verified.count, verified.step, solved).agrees(solved, scalar_traits<T>::tolerance))
    return 0;
  return form(W.rows, 1, compressed.loss).value() - compressed.loss;
}

template <class B, class T>
Calibration<B, T> identity_calibration(index_t n) {
  typename B::template matrix<T> I(n, n);
  B::for_each_element(n, n, kernels::SetIdentity<T>{I.view()});
  return Calibration<B, T>::from_hessian(I.view());
}

/// A linear as it is to be solved.
template <class T>
struct LinearToSolve {
  std::string name;
  MatrixView<const T> weights;          // (out, in)
  MatrixView<const std::uint8_t> zero;  // (out, in), 1 where a weight must be zero; may be empty
};

/// Who solves the linears that compress_layers brings. Not a template parameter of it: a program
/// that knows a dozen configurations would compile the loop over layers as often.
template <class B, class T>
struct LinearWork {
  /// Linears with equal patterns and inputs share a factor.
  std::function<Pattern(const std::string& name)> pattern;
  std::function<Factor<B, T>(const std::string& name, const Calibration<B, T>& calibration)>
      prepare;
  /// Whether linears are solved side by side; otherwise `solve` is called with one at a time, whose
  /// copies take less memory.
  bool together = false;
  /// Solves linears that share a factor; names each in what is thrown.
  std::function<std::vector<CompressedLinear<B, T>>(std::span<const LinearToSolve<T>> linears,
                                                    const Calibration<B, T>& calibration,
                                                    const Factor<B, T>& factor)>
      solve;
  /// Whether the inputs of a linear are turned, where there is a rotation; none: all are.
  std::function<bool(const std::string& name)> rotated = {};
};

/// The same of an object that has these functions and outlives it.
template <class B, class T, class Work>
LinearWork<B, T> linear_work(Work& work) {
  bool together = false;
  if constexpr (requires { work.solver.solves_together(); })
    together = work.solver.solves_together();
  return {[&](const auto&... given) { return work.pattern(given...); },
          [&](const auto&... given) { return work.prepare(given...); }, together,
          [&](const auto&... given) { return work.solve(given...); },
          [&](const std::string& name) {
            if constexpr (requires { work.rotated(name); })
              return work.rotated(name);
            else
              return true;
          }};
}

/// Compresses every linear by one configuration.
template <class Config, class B, class T>
struct ConfiguredWork {
  SparseGPTSolver<Config, B, T> solver;

  Pattern pattern(const std::string&) const { return {}; }
  Factor<B, T> prepare(const std::string&, const Calibration<B, T>& calibration) const {
    return solver.prepare(calibration);
  }
  std::vector<CompressedLinear<B, T>> solve(std::span<const LinearToSolve<T>> linears,
                                            const Calibration<B, T>& calibration,
                                            const Factor<B, T>& factor) {
    std::vector<SolveInputs<B, T, Config::assigned>> inputs;
    for (const LinearToSolve<T>& linear : linears)
      inputs.push_back({.weights = linear.weights,
                        .calibration = calibration,
                        .factor = factor,
                        .mask = linear.zero,
                        .name = linear.name});
    return solver.solve_together(inputs);
  }
};

}  // namespace detail
}  // namespace pare
