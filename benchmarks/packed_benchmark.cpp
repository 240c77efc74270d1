// Times the packed matrix-vector product beside Eigen's in float32 and the speed of memory.
//
// A repetition is one product, and repetitions of all benchmarks are interleaved: other matrices
// have passed through the caches since the last, as in a model, and a busy machine is busy for all.
// The smallest time counts. `bytes` are those of the matrix as it is stored.
#include <benchmark/benchmark.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "packed_support.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/backend/packed_product.hpp"
#include "pare/model/linear.hpp"

namespace {

using pare::index_t;
using pare::PackedLinear;
using pare::PackedMask;

constexpr index_t columns = 4096;

/// A linear of random codes and a random mask.
/// @param widths      given to the rows in turn
/// @param group_size  columns of a grid; 0: all of a row
PackedLinear random_linear(index_t rows, const std::vector<std::uint8_t>& widths, PackedMask kind,
                           index_t group_size) {
  pare::PackedLayout layout{.rows = rows, .columns = columns, .group_size = group_size};
  if (widths.size() == 1) layout.widths = widths;
  for (index_t i = 0; i < rows && widths.size() > 1; ++i)
    layout.widths.push_back(widths[std::size_t(i) % widths.size()]);
  std::shuffle(layout.widths.begin(), layout.widths.end(), std::mt19937_64(1));
  if (kind == PackedMask::bits) layout.pattern = pare::unstructured(0.5);
  if (kind == PackedMask::n_of_m) layout.pattern = pare::n_of_m(2, 4);
  return test::random_packed(layout, kind, pare::DType::f16, 1);
}

std::vector<float> random_vector(index_t n) {
  std::mt19937 generator(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = normal(generator);
  return x;
}

void set_threads([[maybe_unused]] int n) {
#if defined(_OPENMP)
  omp_set_num_threads(n);
#endif
}

void count(benchmark::State& state, double bytes) {
  state.counters["bytes"] = bytes;
  state.counters["bits_per_weight"] = 8 * bytes / double(state.range(0) * columns);
}

void packed(benchmark::State& state, const std::vector<std::uint8_t>& widths, PackedMask kind,
            index_t group_size) {
  set_threads(int(state.range(1)));
  // Every repetition multiplies the same.
  static std::map<std::tuple<index_t, std::vector<std::uint8_t>, PackedMask, index_t>, PackedLinear>
      linears;
  const auto key = std::tuple(index_t(state.range(0)), widths, kind, group_size);
  if (!linears.contains(key))
    linears[key] = random_linear(state.range(0), widths, kind, group_size);
  const PackedLinear& linear = linears[key];
  const std::vector<float> x = random_vector(columns);
  std::vector<float> y(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    pare::packed_product(linear, x, y);
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  count(state, double(linear.bytes()));
}

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

const RowMajor& dense(index_t rows) {
  static std::map<index_t, RowMajor> matrices;
  if (!matrices.contains(rows)) matrices[rows] = RowMajor::Random(rows, columns);
  return matrices[rows];
}

/// Eigen's product, a block of rows per thread: it uses a single one for a vector.
void float32(benchmark::State& state) {
  const index_t threads = state.range(1), rows = state.range(0);
  set_threads(int(threads));
  const RowMajor& W = dense(rows);
  const std::vector<float> x = random_vector(columns);
  Eigen::VectorXf y(rows);
  const Eigen::Map<const Eigen::VectorXf> v(x.data(), columns);
  for (auto _ : state) {
    pare::detail::host_parallel_for(threads, [&](index_t t) {
      const index_t begin = rows * t / threads, end = rows * (t + 1) / threads;
      y.segment(begin, end - begin).noalias() = W.middleRows(begin, end - begin) * v;
    });
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  count(state, 4.0 * double(W.size()));
}

/// Reads the same float32 matrix, eight rows at a time, and only adds it up: what memory gives.
void read_memory(benchmark::State& state) {
  const index_t threads = state.range(1), rows = state.range(0);
  set_threads(int(threads));
  const RowMajor& W = dense(rows);
  std::vector<float> sums(static_cast<std::size_t>(threads));
  for (auto _ : state) {
    pare::detail::host_parallel_for(threads, [&](index_t t) {
      const index_t begin = rows * t / threads, end = rows * (t + 1) / threads;
      using Part = Eigen::Array<float, 16, 1>;
      Part sum = Part::Zero();
      for (const float* at = W.row(begin).data(); at < W.data() + end * columns; at += 8 * columns)
        for (index_t j = 0; j < columns; j += 16) {
          const auto part = [&](index_t k) { return Eigen::Map<const Part>(at + k * columns + j); };
          sum += ((part(0) + part(1)) + (part(2) + part(3))) +
                 ((part(4) + part(5)) + (part(6) + part(7)));
        }
      sums[std::size_t(t)] = sum.sum();
    });
    benchmark::DoNotOptimize(sums.data());
    benchmark::ClobberMemory();
  }
  count(state, 4.0 * double(W.size()));
}

/// Some tokens through a 4-bit linear of a model: from the packed bytes one token after the other, or
/// with rows unpacked for all of them. Below where these meet is packed_tokens.
void few_tokens(benchmark::State& state, index_t tokens, PackedMask kind, index_t group_size,
                bool from_bytes) {
  using B = pare::backend::Eigen;
  set_threads(int(state.range(1)));
  const index_t rows = state.range(0);
  static std::map<std::tuple<index_t, PackedMask, index_t>, pare::Linear<B, float>> linears;
  pare::Linear<B, float>& linear = linears[{rows, kind, group_size}];
  if (!linear.packed)
    prepare_packed(linear, std::make_shared<const PackedLinear>(
                               random_linear(rows, {4}, kind, group_size)));
  auto unprepared = linear;
  unprepared.prepared.reset();
  const std::vector<float> x = random_vector(tokens * columns);
  std::vector<float> y(static_cast<std::size_t>(tokens * rows));
  const pare::MatrixView<const float> X(x.data(), tokens, columns);
  const pare::MatrixView<float> Y(y.data(), tokens, rows);
  pare::UnpackedRows<B, float> room;
  for (auto _ : state) {
    if (from_bytes)
      B::packed_multiply<float>(Y, X, *linear.prepared, {});
    else
      pare::detail::apply(unprepared, X, Y, room);
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  count(state, double(linear.packed->bytes()));
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  std::vector<index_t> counts{1};
  if (pare::detail::max_threads() > 1) counts.push_back(2);
  for (const index_t rows : {4096, 16384})
    for (const index_t threads : counts)
      benchmark::RegisterBenchmark(name.c_str(), run)
          ->ArgNames({"out", "threads"})
          ->Args({rows, threads})
          ->Iterations(1)
          ->UseRealTime()
          ->MeasureProcessCPUTime()  // of both threads: what other load cannot stretch
          ->Unit(benchmark::kMillisecond)
          ->ComputeStatistics("min", [](const std::vector<double>& times) {
            return *std::min_element(times.begin(), times.end());
          });
}

}  // namespace

int main(int argc, char** argv) {
  add("read_memory", read_memory);
  add("float32", float32);
  const auto add_packed = [](const char* name, std::vector<std::uint8_t> widths, PackedMask kind,
                             index_t group_size = 0) {
    add(name, [=](benchmark::State& state) { packed(state, widths, kind, group_size); });
  };
  for (const int bits : {2, 3, 4, 5, 6, 7, 8})
    add_packed(("bits_" + std::to_string(bits)).c_str(), {std::uint8_t(bits)}, PackedMask::none);
  // Time per byte beside bits_4: their times divided by their `bytes`.
  for (const int size : {32, 64, 128})
    add_packed(("bits_4_group_" + std::to_string(size)).c_str(), {4}, PackedMask::none, size);
  // Mean 3.0.
  const std::vector<std::uint8_t> mixed{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 6, 6, 8};
  add_packed("mixed_3", mixed, PackedMask::none);
  add_packed("half_4", {4}, PackedMask::bits);
  add_packed("half_mixed_3", mixed, PackedMask::bits);
  add_packed("two_of_four_4", {4}, PackedMask::n_of_m);
  for (const int tokens : {1, 4, 16, 32})
    for (const PackedMask kind : {PackedMask::none, PackedMask::bits})
      for (const bool from_bytes : {true, false}) {
        const bool masked = kind == PackedMask::bits;
        add("tokens_" + std::to_string(tokens) + (masked ? "_half" : "") +
                (from_bytes ? "" : "_unpacked"),
            [=](benchmark::State& state) {
              few_tokens(state, tokens, kind, masked ? 0 : 128, from_bytes);
            });
      }
#ifdef PARE_SPREADS_BYTES
  benchmark::AddCustomContext("vectors", "AVX-512 VBMI2");
#else
  benchmark::AddCustomContext("vectors", hwy::TargetName(HWY_TARGET));
#endif
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
