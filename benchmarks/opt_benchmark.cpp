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
#include "pare/pare.hpp"
#include "pare/pipeline/compress.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;
using pare::Matrix;

constexpr index_t windows = 128, seqlen = 512;

struct Random {
  std::mt19937 generator{1};
  std::normal_distribution<float> normal;
  Matrix<float> operator()(index_t rows, index_t cols, float scale, float mean = 0) {
    Matrix<float> m(rows, cols);
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = mean + scale * normal(generator);
    return m;
  }
};

pare::OptModel<B, float> random_model(const pare::OptConfig& config) {
  Random random;
  const index_t hidden = config.hidden_size, ffn = config.ffn_dim;
  const auto linear = [&](std::string name, index_t out, index_t in) {
    const float scale = 1 / std::sqrt(float(in));
    return pare::Linear<B, float>{name, name, pare::DType::f16, random(out, in, scale),
                                  random(1, out, 0.1f)};
  };
  const auto norm = [&] {
    return pare::LayerNorm<B, float>{random(1, hidden, 0.1f, 1), random(1, hidden, 0.1f)};
  };
  pare::OptModel<B, float> model;
  model.config = config;
  model.embed_tokens = random(config.vocab_size, hidden, 1);
  model.embed_positions =
      random(config.max_position_embeddings + pare::opt_position_offset, hidden, 0.3f);
  for (index_t i = 0; i < config.num_hidden_layers; ++i) {
    const auto names = pare::opt_linear_names(i);
    pare::OptLayer<B, float> layer;
    layer.k_proj = linear(names[0], hidden, hidden);
    layer.v_proj = linear(names[1], hidden, hidden);
    layer.q_proj = linear(names[2], hidden, hidden);
    layer.out_proj = linear(names[3], hidden, hidden);
    layer.fc1 = linear(names[4], ffn, hidden);
    layer.fc2 = linear(names[5], hidden, ffn);
    layer.self_attn_layer_norm = norm();
    layer.final_layer_norm = norm();
    model.layers.push_back(std::move(layer));
  }
  model.final_layer_norm = norm();
  return model;
}

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
  pare::OptConfig config;
  config.hidden_size = config.word_embed_proj_dim = 512;
  config.ffn_dim = 2048;
  config.num_hidden_layers = 6;
  config.num_attention_heads = 8;
  config.vocab_size = 8192;
  config.max_position_embeddings = seqlen;
  pare::CalibrationWindows text{{}, seqlen};
  std::mt19937 generator(2);
  std::uniform_int_distribution<std::int32_t> token(3, std::int32_t(config.vocab_size - 1));
  for (index_t i = 0; i < windows * seqlen; ++i) text.ids.push_back(token(generator));

  // Per layer: all linears twice (fc2 once), attention twice, the upper half of four Gram matrices.
  const double tokens = double(windows * seqlen), d = 512, f = 2048;
  const double linears = 2 * tokens * (2 * 4 * d * d + 2 * d * f + d * f);
  const double attention = 2 * tokens * (2 * d) * double(seqlen) / 2 * 2;
  const double grams = tokens * (3 * d * d + f * f);
  const double flops = 6 * (linears + attention + grams);
  double own = 0, gemm = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto model = random_model(config);
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
