// Times solves beside the machine's own Cholesky and product of the same size.
//
// Each iteration of a solve times Eigen's LLT and Eigen's product right before it, so the ratio
// holds when the machine's speed drifts. floor = 2 LLT(in) + 1/2 (out, in) x (in, in) product.
#include <benchmark/benchmark.h>

#include <map>
#include <random>

#include "machine.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;

/// One linear with correlated activations.
struct Problem {
  pare::Matrix<float> W;  // (out, in)
  pare::Calibration<B, float> calibration;

  Problem(index_t out, index_t in) : W(out, in), calibration(in) {
    pare::Matrix<float> X(2 * in, in);  // (tokens, in)
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

template <class Config>
void solve(benchmark::State& state, const pare::SolverOptions& options) {
  const Problem& p = problem(state.range(0), state.range(1));
  pare::SparseGPTSolver<Config, B, float> solver(options);
  solver.solve(p.W.view(), p.calibration);  // grows the workspace
  const Eigen::MatrixXf H = machine::damped(p.calibration.gram());
  double llt = 0, gemm = 0, floor = 0, own = 0;
  for (auto _ : state) {
    const double l = machine::llt_seconds(H);
    const double g =
        machine::product_seconds(machine::view(p.W.view()), machine::view(p.calibration.gram()));
    const double s = machine::seconds([&] {
      auto linear = solver.solve(p.W.view(), p.calibration);
      benchmark::DoNotOptimize(linear.loss);
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

/// A search for the mask by ADMM beside the solve with the greedy mask, one of each per iteration.
template <class Pattern>
void search(benchmark::State& state, const pare::SolverOptions& options) {
  const Problem& p = problem(state.range(0), state.range(1));
  pare::SparseGPTSolver<pare::Compression<Pattern>, B, float> greedy(options);
  pare::SparseGPTSolver<pare::Compression<Pattern, pare::Alternating>, B, float> solver(options);
  greedy.solve(p.W.view(), p.calibration);  // grows the workspace
  double own = 0, plain = 0, loss = 0;
  for (auto _ : state) {
    plain += machine::seconds([&] {
      auto linear = greedy.solve(p.W.view(), p.calibration);
      benchmark::DoNotOptimize(linear.loss);
    });
    const double s = machine::seconds([&] {
      const auto linear = solver.solve(p.W.view(), p.calibration);
      loss = double(linear.loss) / double(linear.greedy_loss.value_or(linear.loss));
    });
    state.SetIterationTime(s);
    own += s;
  }
  state.counters["times_greedy"] = own / plain;
  state.counters["loss_of_greedy"] = loss;
}

void search_2_of_4(benchmark::State& state) { search<pare::NofM<2, 4>>(state, {}); }
void search_50(benchmark::State& state) { search<pare::Unstructured>(state, {.sparsity = 0.5}); }

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({768, 768})->Args({3072, 768})->Args({768, 3072})->Args({2048, 2048});
  b->ArgNames({"out", "in"})->UseManualTime()->Unit(benchmark::kMillisecond)->MinTime(1.0);
}

void search_shapes(benchmark::internal::Benchmark* b) {  // seconds each
  b->Args({768, 768})->Args({2048, 2048})->ArgNames({"out", "in"});
  b->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);
}

BENCHMARK(prune_50)->Apply(shapes);
BENCHMARK(prune_2_of_4)->Apply(shapes);
BENCHMARK(prune_50_bits_4)->Apply(shapes);
BENCHMARK(bits_4)->Apply(shapes);
BENCHMARK(prune_50_budget_4_clip)->Apply(shapes);
BENCHMARK(search_2_of_4)->Apply(search_shapes);
BENCHMARK(search_50)->Apply(search_shapes);

}  // namespace

BENCHMARK_MAIN();
