// Times the compression of a whole model of opt-small's shape (6 layers, hidden 512, ffn 2048,
// random weights) with 128 x 512 random calibration tokens, at 50 % + 4 bit.
//
// times_gemm is its time over that of its forward passes and Hessians at the rate of Eigen's own
// product, measured in the same run.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <Eigen/Dense>
#include <chrono>
#include <random>

#include "pare/backend/eigen.hpp"
#include "pare/model/config_json.hpp"
#include "pare/model/random.hpp"
#include "pare/pipeline/compress.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;

constexpr index_t windows = 128, seqlen = 512;

/// Seconds per floating-point operation of Eigen's product, (2048, 512) x (512, 2048).
double gemm_seconds_per_flop() {
  using M = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const M a = M::Random(2048, 512), b = M::Random(512, 2048);
  M c(2048, 2048);
  c.noalias() = a * b;
  const auto start = std::chrono::steady_clock::now();
  constexpr int repeats = 20;
  for (int i = 0; i < repeats; ++i) {
    c.noalias() = a * b;
    benchmark::DoNotOptimize(c.data());
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  return passed.count() / repeats / (2.0 * 2048 * 512 * 2048);
}

void compress_opt_small_shape(benchmark::State& state) {
  const pare::Architecture config = pare::parse_architecture(
      "opt-small", R"({"model_type": "opt", "hidden_size": 512, "ffn_dim": 2048, "vocab_size": 8192,
                       "num_hidden_layers": 6, "num_attention_heads": 8,
                       "max_position_embeddings": 512})");
  pare::CalibrationWindows text{{}, seqlen};
  std::mt19937 generator(2);
  std::uniform_int_distribution<std::int32_t> token(3, std::int32_t(config.vocab_size - 1));
  for (index_t i = 0; i < windows * seqlen; ++i) text.ids.push_back(token(generator));

  // Per layer: all linears twice (down once), attention twice, the upper half of four Gram matrices.
  const double tokens = double(windows * seqlen), d = 512, f = 2048;
  const double linears = 2 * tokens * (2 * 4 * d * d + 2 * d * f + d * f);
  const double attention = 2 * tokens * (2 * d) * double(seqlen) / 2 * 2;
  const double grams = tokens * (3 * d * d + f * f);
  const double flops = 6 * (linears + attention + grams);
  double own = 0, gemm = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto model = pare::random_model<B, float>(config, 1);
    for (auto& layer : model.layers)
      for (auto* linear : layer.linears()) linear->dtype = pare::DType::f16;
    gemm += flops * gemm_seconds_per_flop();
    state.ResumeTiming();
    const auto start = std::chrono::steady_clock::now();
    using Config = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
    const auto statistics =
        pare::compress_model<Config>(model, text, {.solver = {.sparsity = 0.5, .bits = 4}});
    benchmark::DoNotOptimize(statistics.linears.data());
    own += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["gflop"] = flops / 1e9;
  state.counters["times_gemm"] = own / gemm;
  state.counters["peak_mib"] = double(usage.ru_maxrss) / 1024;
}
BENCHMARK(compress_opt_small_shape)
    ->Iterations(1)
    ->Unit(benchmark::kSecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

}  // namespace

BENCHMARK_MAIN();
