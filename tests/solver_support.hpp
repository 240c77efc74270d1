// What the tests of the solver share: configurations, linears to solve, results as bytes.
#pragma once

#include <string>
#include <type_traits>

#include "pare/solver/sparsegpt.hpp"
#include "support.hpp"

namespace test {

using namespace pare;

using Prune = Compression<Unstructured>;
using PruneGroups = Compression<NofM<>>;
using Round = Compression<Dense, BaseQuantizer>;
using Joint = Compression<Unstructured, BaseQuantizer>;
using JointBudget = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;
using JointDistortion =
    Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, GridDistortion>>;
using RoundQuantile = Compression<Dense, BaseQuantizer, MixedPrecision<Quantile>>;
using GroupsBudget = Compression<NofM<>, BaseQuantizer, MixedPrecision<Budget>>;

/// One linear to be solved.
struct Problem {
  index_t rows = 12, cols = 40;
  std::vector<index_t> dead = {};
  std::uint64_t seed = 1;
  double weight_scale = 1, input_scale = 1;
};

template <class B, class T>
struct Data {
  Matrix<T> W;
  std::vector<double> H;  // as the library has it
  typename B::template matrix<T> weights;
  Calibration<B, T> calibration;

  explicit Data(const Problem& p)
      : W(random_normal<T>(p.rows, p.cols, p.seed, 0.1 * p.weight_scale)),
        weights(upload<B>(W)),
        calibration(p.cols) {
    Matrix<T> X = correlated_activations<T>(2 * p.cols + 10, p.cols, p.seed + 100, 0.1);
    for (index_t i = 0; i < X.size(); ++i) X.data()[i] *= T(p.input_scale);
    for (const index_t j : p.dead)
      for (index_t t = 0; t < X.rows(); ++t) X(t, j) = 0;
    const auto device = upload<B>(X);
    calibration.add(device.view(), 4);
    H = doubles(calibration.hessian());
  }
};

/// A backend whose factorisation and check of weights are known only when they are asked for.
template <class Base>
struct Defers : Base {
  template <class R>
  struct Awaited {
    R result;
    auto get() { return result.get(); }
  };
  template <class T>
  static auto start_find_non_finite(MatrixView<const T> A) {
    return Awaited<decltype(detail::start_find_non_finite<Base>(A))>{
        detail::start_find_non_finite<Base>(A)};
  }
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    return start_find_non_finite(A).get();
  }
  template <class T>
  static auto start_inverse_factor(MatrixView<T> A) {
    return Awaited<decltype(detail::start_inverse_factor<Base>(A))>{
        detail::start_inverse_factor<Base>(A)};
  }
  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    return start_inverse_factor(A).get();
  }
};

template <class B, class T>
std::string layer_bytes(const CompressedLinear<B, T>& linear) {
  std::string bytes;
  const auto append = [&](const auto* data, std::size_t count) {
    bytes.append(reinterpret_cast<const char*>(data), count * sizeof(*data));
    bytes += '|';
  };
  const auto matrix = [&](const auto& m) {
    const auto host = download<B>(m);
    append(host.data(), std::size_t(host.size()));
  };
  matrix(linear.weights);
  matrix(linear.mask);
  if (linear.quantized()) {
    matrix(linear.grids.scale);
    matrix(linear.grids.zero);
    matrix(linear.grids.top);
  }
  append(linear.grids.of_column.data(), linear.grids.of_column.size());
  append(linear.bits.data(), linear.bits.size());
  append(linear.scores.data(), linear.scores.size());
  append(linear.order.data(), linear.order.size());
  append(linear.row_loss.data(), linear.row_loss.size());
  append(&linear.loss, 1);
  return bytes;
}

/// Calls check(solver options, type) for configurations that between them use every path.
template <class Check>
void for_each_config(const Check& check) {
  check(std::type_identity<Prune>{}, SolverOptions{.sparsity = 0.5});
  check(std::type_identity<PruneGroups>{}, SolverOptions{.zeros = 2, .of = 4, .act_order = true});
  check(std::type_identity<Joint>{}, SolverOptions{.sparsity = 0.5, .bits = 3});
  check(std::type_identity<JointBudget>{}, SolverOptions{.sparsity = 0.5,
                                                         .bits = 4,
                                                         .target_average_bits = 3.0,
                                                         .axis = ChannelAxis::input,
                                                         .act_order = true});
  check(std::type_identity<RoundQuantile>{},
        SolverOptions{.bits = 4, .target_average_bits = 3.0, .grid = {.clip_search = true}});
}

}  // namespace test
