// What solve() reads of one linear, and what it answers to something else when compiled.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pare/calibration/factor.hpp"
#include "pare/core/matrix_argument.hpp"
#include "pare/core/scalar.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

template <class T>
inline constexpr bool is_calibration = false;
template <class B, class T>
inline constexpr bool is_calibration<Calibration<B, T>> = true;

/// Always true for what a solver of B and T calibrates with. One message per misuse.
template <class Given, class B, class T>
constexpr bool check_calibration() {
  static_assert(is_calibration<Given>,
                "pare: a solve or prepare() with something that is not a Calibration: the solver "
                "needs H of the linear's inputs; write Calibration<B, T> and add() activations, or "
                "Calibration<B, T>::from_hessian(H)");
  if constexpr (is_calibration<Given>) {
    constexpr bool same_backend = std::same_as<typename Given::backend_type, B>;
    static_assert(same_backend,
                  "pare: a Calibration of another backend than the solver's: their memories "
                  "differ; write Calibration<B, T> with the B of SparseGPTSolver<Config, B, T>");
    static_assert(!same_backend || std::same_as<typename Given::scalar_type, T>,
                  "pare: a Calibration of another scalar than the solver's: H would have to be "
                  "converted; write Calibration<B, T> with the T of SparseGPTSolver<Config, B, T>");
  }
  return true;
}

/// A calibration as an argument; refers to it.
template <class B, class T>
class CalibrationArgument {
 public:
  CalibrationArgument(const Calibration<B, T>& given) : given_(&given) {}
  template <class Given>
  CalibrationArgument(const Given&) {
    static_assert(check_calibration<Given, B, T>());
  }
  const Calibration<B, T>& get() const { return *given_; }

 private:
  const Calibration<B, T>* given_ = nullptr;
};

/// A factor as an argument, or none; refers to it.
template <class B, class T>
class FactorArgument {
 public:
  FactorArgument() = default;
  FactorArgument(const Factor<B, T>& given) : given_(&given) {}
  template <class Given>
  FactorArgument(const Given&) {
    static_assert(never<Given>,
                  "pare: solve({.factor = U}) with a factor of another backend or scalar, or none: "
                  "U belongs to one solver's kind; write the result of the solver's prepare()");
  }
  const Factor<B, T>* get() const { return given_; }

 private:
  const Factor<B, T>* given_ = nullptr;
};

/// Widths as an argument, which only MixedPrecision<Assigned> takes, and must.
template <bool Assigned>
class WidthsArgument {
 public:
  static WidthsArgument none() { return {}; }
  template <class Given>
  WidthsArgument(const Given& given) {
    static_assert(Assigned,
                  "pare: solve({.bits = widths}) without MixedPrecision<Assigned>: the "
                  "configuration says the widths, those given would be ignored; write "
                  "Compression<Pattern, BaseQuantizer, MixedPrecision<Assigned>>, or leave .bits "
                  "out");
    if constexpr (Assigned) {
      constexpr bool bytes = std::convertible_to<const Given&, std::span<const std::uint8_t>>;
      static_assert(bytes,
                    "pare: solve({.bits = widths}) with widths that are not bytes side by side: "
                    "one width per channel is expected; write std::vector<std::uint8_t>");
      if constexpr (bytes) given_ = given;
    }
  }
  std::span<const std::uint8_t> get() const { return given_; }

 private:
  WidthsArgument() = default;
  std::span<const std::uint8_t> given_;
};

/// A mask as an argument, or none.
class MaskArgument {
 public:
  MaskArgument() = default;
  template <class Given>
  MaskArgument(const Given& given) {
    constexpr bool bytes = std::convertible_to<const Given&, MatrixView<const std::uint8_t>>;
    static_assert(bytes,
                  "pare: solve({.mask = mask}) with a mask that is not a view of bytes: 1 is "
                  "expected where a weight must be zero; write MatrixView<const std::uint8_t>");
    if constexpr (bytes) given_ = given;
  }
  MatrixView<const std::uint8_t> get() const { return given_; }

 private:
  MatrixView<const std::uint8_t> given_;
};

// What stands in for an argument that was left out; called only then.

template <class B, class T>
MatrixArgument<T> no_weights() {
  static_assert(never<B>,
                "pare: solve({...}) without weights: there is nothing to compress; write "
                "solve({.weights = W, .calibration = calibration})");
  return {};
}
template <class B, class T>
CalibrationArgument<B, T> no_calibration() {
  static_assert(never<B>,
                "pare: solve({...}) without a calibration: the solver needs H of the linear's "
                "inputs; write solve({.weights = W, .calibration = calibration})");
  return no_calibration<B, T>();
}
template <bool Assigned>
WidthsArgument<Assigned> no_widths() {
  static_assert(!Assigned,
                "pare: a solve without widths under MixedPrecision<Assigned>: nothing else says "
                "them; write solve({.weights = W, .calibration = calibration, .bits = bits}) with "
                "one width per channel");
  return WidthsArgument<Assigned>::none();
}

/// Throws shape_error or argument_error unless there is a width within 2..8 for every channel.
inline void require_widths(std::span<const std::uint8_t> bits, index_t channels) {
  if (index_t(bits.size()) != channels)
    throw shape_error("bits: expected one width for each of " + std::to_string(channels) +
                      " channels, got " + std::to_string(bits.size()));
  for (std::size_t c = 0; c < bits.size(); ++c)
    if (bits[c] < min_bits || bits[c] > max_bits)
      throw argument_error("bits: expected widths within 2..8, got " + std::to_string(bits[c]) +
                           " for channel " + std::to_string(c));
}

/// Throws shape_error, argument_error for a mask that cannot be one of W (out, in). An empty one
/// is accepted.
template <class T>
void require_mask(MatrixView<const std::uint8_t> zero, MatrixView<const T> W) {
  if (zero.rows == 0 && zero.cols == 0) return;
  require_view("mask (out, in)", zero);
  require_shape("mask (out, in)", {W.rows, W.cols}, {zero.rows, zero.cols});
}

}  // namespace detail

/// What solve() reads. Everything is referred to and must last until it returns.
/// @tparam Assigned  whether the configuration has MixedPrecision<Assigned>
template <class B, class T, bool Assigned>
struct SolveInputs {
  /// (out, in), finite, in the backend's memory; not changed.
  MatrixArgument<T> weights = detail::no_weights<B, T>();
  /// Of the linear's inputs (in).
  detail::CalibrationArgument<B, T> calibration = detail::no_calibration<B, T>();
  /// From the solver's prepare(), which may serve several linears; none: solve() makes it.
  detail::FactorArgument<B, T> factor = {};
  /// With MixedPrecision<Assigned>, and only then: a width within 2..8 for every channel of the
  /// option axis.
  detail::WidthsArgument<Assigned> bits = detail::no_widths<Assigned>();
  /// (out, in), 1 where a weight must be zero, in the backend's memory; none: anywhere.
  detail::MaskArgument mask = {};
  /// Put in front of the messages of what is thrown; none: nothing is.
  std::string_view name = {};
};

}  // namespace pare
