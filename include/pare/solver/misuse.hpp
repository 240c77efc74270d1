// What the solver's solve() says to arguments that do not fit it, at compile time.
#pragma once

#include <concepts>

#include "pare/calibration/calibration.hpp"

namespace pare::inline PARE_TARGET::detail {

template <class>
inline constexpr bool never = false;
template <class T>
inline constexpr bool is_calibration = false;
template <class B, class T>
inline constexpr bool is_calibration<Calibration<B, T>> = true;

/// Says why a calibration does not fit a solver; never compiles.
template <class Given, class Expected>
[[noreturn]] void refuse_calibration() {
  static_assert(is_calibration<Given>,
                "pare: solve(W, calibration) with something that is not a Calibration: the "
                "solver needs H of the linear's inputs; write Calibration<B, T> and add() "
                "activations, or Calibration<B, T>::from_hessian(H)");
  if constexpr (is_calibration<Given>) {
    constexpr bool same_backend =
        std::same_as<typename Given::backend_type, typename Expected::backend_type>;
    static_assert(same_backend,
                  "pare: a Calibration of another backend than the solver's: their memories "
                  "differ; write Calibration<B, T> with the B of SparseGPTSolver<Config, B, T>");
    static_assert(!same_backend ||
                      std::same_as<typename Given::scalar_type, typename Expected::scalar_type>,
                  "pare: a Calibration of another scalar than the solver's: H would have to be "
                  "converted; write Calibration<B, T> with the T of SparseGPTSolver<Config, B, T>");
  }
}

/// The forms of solve() that a configuration has; always true, one message per misuse.
template <class Config, bool WithWidths>
constexpr bool check_widths() {
  static_assert(!Config::assigned || WithWidths,
                "pare: solve() without widths under MixedPrecision<Assigned>: nothing else says "
                "them; write solve(W, calibration, solver.prepare(calibration), bits) with one "
                "width per channel");
  static_assert(Config::assigned || !WithWidths,
                "pare: solve(W, calibration, factor, bits) without MixedPrecision<Assigned>: the "
                "configuration says the widths, those given would be ignored; write "
                "Compression<Pattern, BaseQuantizer, MixedPrecision<Assigned>>, or leave bits out");
  return Config::assigned == WithWidths;
}

}  // namespace pare::detail
