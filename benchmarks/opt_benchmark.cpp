// Times the compression of whole models with random weights and random calibration tokens, at 50 % +
// 4 bit: opt-small's shape (6 layers, hidden 512, ffn 2048) with 128 x 512 tokens, and SmolLM2-135M's
// (30 layers, hidden 576, ffn 1536, three key-value heads) with 16 x 512.
//
// times_gemm is the time over that of all its products at the rate of Eigen's own product, measured in
// the same run; gemm_seconds is the latter.
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

constexpr index_t seqlen = 512;

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

/// Floating-point operations of the products of a run, a multiply-add as two: forward passes,
/// Hessians, factors of Hessians, updates with what rounding loses, and the loss of what is stored.
/// Every layer runs twice, the first time without its last linear; the last layer runs once.
double operations(const pare::Architecture& c, double tokens) {
  const double layers = double(c.num_hidden_layers);
  double weights = 0, last = 0, solves = 0;  // of a layer
  for (const pare::LinearSpec& linear : c.linears) {
    const double in = double(columns_of(c, linear.role));
    const double size = double(rows_of(c, linear.role)) * in;
    weights += size;
    if (linear.role == pare::LinearRole::down) last = size;
    solves += size * in + 2 * size * in;  // updates of the inputs to the right; E H
  }
  const double h = double(c.hidden_size), q = double(c.query_size());
  const double f = double(c.intermediate_size);
  const double linears = 2 * tokens * (layers * (weights - last) + (layers - 1) * weights);
  const double attention = 2 * tokens * (2 * q) * double(seqlen) / 2 * (2 * layers - 1);
  const double grams = tokens * (2 * h * h + q * q + f * f);               // the upper halves
  const double factors = (2 * h * h * h + q * q * q + f * f * f) * 2 / 3;  // Cholesky and inverse
  return linears + attention + layers * (grams + factors + solves);
}

void compress_shape(benchmark::State& state, const char* json, index_t windows) {
  const pare::Architecture config = pare::parse_architecture("config.json", json);
  pare::CalibrationWindows text{{}, seqlen};
  std::mt19937 generator(2);
  std::uniform_int_distribution<std::int32_t> token(3, std::int32_t(config.vocab_size - 1));
  for (index_t i = 0; i < windows * seqlen; ++i) text.ids.push_back(token(generator));
  const double flops = operations(config, double(windows * seqlen));
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
  state.counters["gemm_seconds"] = gemm;
  state.counters["times_gemm"] = own / gemm;
  state.counters["peak_mib"] = double(usage.ru_maxrss) / 1024;
}

void compress_opt_small_shape(benchmark::State& state) {
  compress_shape(state,
                 R"({"model_type": "opt", "hidden_size": 512, "ffn_dim": 2048, "vocab_size": 8192,
                     "num_hidden_layers": 6, "num_attention_heads": 8,
                     "max_position_embeddings": 512})",
                 128);
}

void compress_smollm2_shape(benchmark::State& state) {
  compress_shape(state,
                 R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
                     "vocab_size": 49152, "num_hidden_layers": 30, "num_attention_heads": 9,
                     "num_key_value_heads": 3, "max_position_embeddings": 2048,
                     "rope_theta": 100000, "tie_word_embeddings": true})",
                 16);
}

BENCHMARK(compress_opt_small_shape)
    ->Iterations(1)
    ->Unit(benchmark::kSecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();
BENCHMARK(compress_smollm2_shape)
    ->Iterations(1)
    ->Unit(benchmark::kSecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

}  // namespace

BENCHMARK_MAIN();
