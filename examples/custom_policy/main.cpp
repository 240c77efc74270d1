// A signal and an allocation policy of one's own, in one solve.

// [headers]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

using namespace pare;
using Cores = backend::Eigen;
// [headers]

// [signal]
/// peak(0, i) = max_j |w_ij|: a reduction of rows, which any backend can run.
template <class T>
struct RowPeak {
  using partial = kernels::Largest<double>;  // what some columns of a row hold
  MatrixView<const T> weights;               // (out, in)
  MatrixView<double> peak;                   // (1, out)
  PARE_HOST_DEVICE index_t columns() const { return weights.cols; }
  PARE_HOST_DEVICE void add(index_t i, index_t j, partial& most) const {
    most.add(std::abs(double(weights(i, j))));
  }
  PARE_HOST_DEVICE void finish(index_t i, const partial& most) const { peak(0, i) = most.value; }
};

/// The largest weight of every output channel.
struct PeakWeight {
  static constexpr ChannelAxis axis = ChannelAxis::output;
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& in) const {
    typename B::template matrix<double> peak(1, in.weights.rows);
    B::reduce_rows(in.weights.rows, RowPeak<T>{in.weights, peak.view()});
    const Matrix<double> host = B::to_host(MatrixView<const double>(peak.view()));
    return {host.data(), host.data() + host.size()};
  }
};
// [signal]

// [objective]
/// The five-signal score with the largest weight of a channel in place of the mean weight.
struct FiveWithPeak : ObjectiveOption {
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis) const {
    return ImportanceScorer<5, B, T>::template with<2>(PeakWeight{}).score(input).score;
  }
};
// [objective]

// [policy]
/// Walks the channels from the most important to the least; each gets the widest tier that leaves
/// the lowest for all behind it.
struct MostImportantFirst {
  static constexpr bool needs_target = true;

  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double> target) const {
    const std::size_t n = scores.size();
    std::vector<std::size_t> rank(n);
    std::iota(rank.begin(), rank.end(), std::size_t{0});
    std::stable_sort(rank.begin(), rank.end(),
                     [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    int left = int(std::floor((*target - tiers.front()) * double(n) + 1e-6));
    std::vector<std::uint8_t> bits(n);
    for (const std::size_t channel : rank) {
      int width = tiers.front();
      for (const int tier : tiers)
        if (tier - tiers.front() <= left) width = tier;
      bits[channel] = std::uint8_t(width);
      left -= width - tiers.front();
    }
    return bits;
  }
};
static_assert(AllocationPolicy<MostImportantFirst>);
// [policy]

namespace {

/// "2 bits: 5, 8 bits: 7"
void print_widths(const char* name, const std::vector<std::uint8_t>& bits) {
  std::printf("%-34s", name);
  int sum = 0;
  for (int width = min_bits; width <= max_bits; ++width) {
    const auto count = std::count(bits.begin(), bits.end(), std::uint8_t(width));
    sum += width * int(count);
    if (count > 0) std::printf(" %d bits: %td,", width, count);
  }
  std::printf(" mean %.3f\n", double(sum) / double(bits.size()));
}

int different(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

}  // namespace

int main() {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  Matrix<float> W(96, 128), X(512, 128);
  for (index_t i = 0; i < W.rows(); ++i) {  // rows of growing size, an outlier in every fifth
    for (index_t j = 0; j < W.cols(); ++j)
      W(i, j) = 0.05f * std::exp2(0.02f * float(i)) * normal(random);
    if (i % 5 == 0) W(i, i) *= 20;
  }
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = normal(random);
  Calibration<Cores, float> calibration(W.cols());
  calibration.add(X);

  const auto built_in =
      SparseGPTSolver<Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>, Cores,
                      float>({.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0})
          .solve(W, calibration);

  // [use policy]
  // A policy is named in the configuration, as the built-in ones are.
  using Mine = Compression<Unstructured, BaseQuantizer, MixedPrecision<MostImportantFirst>>;
  SparseGPTSolver<Mine, Cores, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0});
  const auto by_policy = solver.solve(W, calibration);
  // [use policy]

  // [use signal]
  // Signals of one's own go into a scorer; the widths that follow are given to the solve.
  using Given = Compression<Unstructured, BaseQuantizer, MixedPrecision<Assigned>>;
  SparseGPTSolver<Given, Cores, float> given({.sparsity = 0.5});
  const auto factor = given.prepare(calibration);

  const ImportanceScorer<2, Cores, float> scorer({0.7, 0.3}, PeakWeight{},
                                                 output_signal::Activation{});
  const std::vector<double> scores = scorer.score({W, calibration, factor}).score;
  const BitAllocator<MostImportantFirst> allocator({.target_average_bits = 4.0});
  const std::vector<std::uint8_t> bits = allocator.allocate(scores).bits;
  const auto by_signal =
      given.solve({.weights = W, .calibration = calibration, .factor = factor, .bits = bits});
  // [use signal]

  // [use objective]
  // The solver scores every linear with it.
  using Peaked = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget, FiveWithPeak>>;
  const auto by_objective = SparseGPTSolver<Peaked, Cores, float>(
                                {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0})
                                .solve(W, calibration);
  // [use objective]

  print_widths("five signals, Budget:", built_in.bits);
  print_widths("five signals, MostImportantFirst:", by_policy.bits);
  print_widths("own signal, MostImportantFirst:", by_signal.bits);
  print_widths("own objective, Budget:", by_objective.bits);
  const int objective = different(built_in.bits, by_objective.bits);
  const int policy = different(built_in.bits, by_policy.bits);
  const int signal = different(by_policy.bits, by_signal.bits);
  std::printf("channels that the policy changed: %s\n", policy > 0 ? "some" : "none");
  std::printf("channels that the signal changed: %s\n", signal > 0 ? "some" : "none");
  std::printf("channels that the objective changed: %s\n", objective > 0 ? "some" : "none");
  return policy > 0 && signal > 0 && objective > 0 && by_signal.bits == bits ? 0 : 1;
}
