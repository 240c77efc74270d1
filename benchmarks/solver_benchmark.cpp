// Times the stages of a solve beside the machine's own Cholesky and product of the same size.
//
// Each iteration of a solve times Eigen's LLT and Eigen's product right before it, so the ratio
// holds when the machine's speed drifts. floor = 2 LLT(in) + 1/2 (out, in) x (in, in) product.
#include <benchmark/benchmark.h>

#include <Eigen/Dense>
#include <chrono>
#include <map>
#include <random>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// One linear with correlated activations.
struct Problem {
  pare::Matrix<float> W;  // (out, in)
  pare::Matrix<float> X;  // (tokens, in)
  pare::Calibration<B, float> calibration;

  Problem(index_t out, index_t in) : W(out, in), X(2 * in, in), calibration(in) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.02f * normal(generator);
    for (index_t t = 0; t < X.rows(); ++t) {
      float previous = 0;  // neighbours correlate, and scales differ by an order of magnitude
      for (index_t j = 0; j < in; ++j) {
        previous = 0.6f * previous + normal(generator);
        X(t, j) = previous * (1.0f + 9.0f * float(j % 17) / 17.0f);
      }
    }
    calibration.add(X.view(), 8);
  }
};

const Problem& problem(index_t out, index_t in) {
  static std::map<std::pair<index_t, index_t>, Problem> problems;
  return problems.try_emplace({out, in}, out, in).first->second;
}

template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Seconds of one LLT of H and one product W H, by Eigen.
std::pair<double, double> machine(const Problem& p) {
  static RowMajor product;
  static Eigen::MatrixXf H;
  const index_t in = p.W.cols();
  const auto gram = p.calibration.gram();
  const Eigen::Map<const RowMajor> G(gram.data, in, in), W(p.W.data(), p.W.rows(), in);
  H = G;
  H.diagonal().array() += 0.01f * H.diagonal().mean();
  const double llt = seconds([] {
    Eigen::LLT<Eigen::MatrixXf> factor(H);
    benchmark::DoNotOptimize(factor.info());
  });
  product.resize(p.W.rows(), in);
  const double gemm = seconds([&] {
    product.noalias() = W * G;
    benchmark::DoNotOptimize(product.data());
  });
  return {llt, gemm};
}

template <class Config>
void solve(benchmark::State& state, const pare::SolverOptions& options) {
  const Problem& p = problem(state.range(0), state.range(1));
  pare::SparseGPTSolver<Config, B, float> solver(options);
  solver.solve(p.W.view(), p.calibration);  // grows the workspace
  double llt = 0, gemm = 0, floor = 0, own = 0;
  for (auto _ : state) {
    const auto [l, g] = machine(p);
    const double s = seconds([&] {
      auto layer = solver.solve(p.W.view(), p.calibration);
      benchmark::DoNotOptimize(layer.loss);
    });
    state.SetIterationTime(s);
    llt += l;
    gemm += g;
    floor += 2 * l + g / 2;
    own += s;
  }
  const double n = double(state.iterations());
  state.counters["llt_ms"] = 1e3 * llt / n;
  state.counters["product_ms"] = 1e3 * gemm / n;
  state.counters["floor_ms"] = 1e3 * floor / n;
  state.counters["times_floor"] = own / floor;
}

void prune_50(benchmark::State& state) {
  solve<pare::Compression<pare::Unstructured>>(state, {.sparsity = 0.5});
}
void prune_2_of_4(benchmark::State& state) {
  solve<pare::Compression<pare::NofM<2, 4>>>(state, {});
}
void prune_50_bits_4(benchmark::State& state) {
  solve<pare::Compression<pare::Unstructured, pare::BaseQuantizer>>(state,
                                                                    {.sparsity = 0.5, .bits = 4});
}
void bits_4(benchmark::State& state) {
  solve<pare::Compression<pare::Dense, pare::BaseQuantizer>>(state, {.bits = 4});
}
void prune_50_budget_4_clip(benchmark::State& state) {
  solve<pare::Compression<pare::Unstructured, pare::BaseQuantizer,
                          pare::MixedPrecision<pare::Budget>>>(
      state,
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0, .grid = {.clip_search = true}});
}

/// Hessian accumulation; `of_peak` compares its arithmetic with that of Eigen's product.
void accumulate(benchmark::State& state) {
  const Problem& p = problem(state.range(0), state.range(1));
  const index_t in = p.X.cols();
  const Eigen::Map<const RowMajor> X(p.X.data(), p.X.rows(), in);
  RowMajor product(in, in);
  double own = 0, full = 0;
  for (auto _ : state) {
    full += seconds([&] {
      product.noalias() = X.transpose() * X;
      benchmark::DoNotOptimize(product.data());
    });
    pare::Calibration<B, float> calibration(in);
    const double s = seconds([&] { calibration.add(p.X.view()); });
    state.SetIterationTime(s);
    own += s;
  }
  state.counters["product_ms"] = 1e3 * full / double(state.iterations());
  state.counters["times_product"] = own / full;
}

/// U, beside the two LLTs and the inverse of the published code.
void factor(benchmark::State& state) {
  const Problem& p = problem(state.range(0), state.range(1));
  double own = 0, llt = 0;
  for (auto _ : state) {
    llt += machine(p).first;
    const double s = seconds([&] {
      auto f = pare::factorize(p.calibration);
      benchmark::DoNotOptimize(f.upper.data());
    });
    state.SetIterationTime(s);
    own += s;
  }
  state.counters["llt_ms"] = 1e3 * llt / double(state.iterations());
  state.counters["times_llt"] = own / llt;
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({768, 768})->Args({3072, 768})->Args({768, 3072})->Args({2048, 2048});
  b->ArgNames({"out", "in"})->UseManualTime()->Unit(benchmark::kMillisecond)->MinTime(1.0);
}

BENCHMARK(prune_50)->Apply(shapes);
BENCHMARK(prune_2_of_4)->Apply(shapes);
BENCHMARK(prune_50_bits_4)->Apply(shapes);
BENCHMARK(bits_4)->Apply(shapes);
BENCHMARK(prune_50_budget_4_clip)->Apply(shapes);
BENCHMARK(accumulate)->Apply(shapes);
BENCHMARK(factor)->Apply(shapes);

}  // namespace

BENCHMARK_MAIN();
