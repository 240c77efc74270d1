// Times what stands between the products of a decoder layer, in the shape of SmolLM2-135M, on the
// Eigen backend with one thread and with all. Each iteration times the layer's seven products right
// before it, so that the share holds when the machine's speed drifts.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "machine.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/kernels/activations.hpp"
#include "pare/model/model_backend.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;
using pare::Matrix;
using pare::MatrixView;
using pare::kernels::Activation;
static_assert(pare::ModelBackend<B, float>);

constexpr index_t hidden = 576, ffn = 1536, heads = 9, kv_heads = 3, head_dim = 64;
constexpr index_t seqlen = 512, tokens = 4 * seqlen;

Matrix<float> random(index_t rows, index_t cols, float scale) {
  static std::mt19937 generator{1};
  std::normal_distribution<float> normal(0, scale);
  Matrix<float> m(rows, cols);
  for (index_t i = 0; i < m.size(); ++i) m.data()[i] = normal(generator);
  return m;
}

/// A layer's weights and what lies between them.
struct Layer {
  Matrix<float> square = random(hidden, hidden, 0.04f);               // q_proj, o_proj
  Matrix<float> narrow = random(kv_heads * head_dim, hidden, 0.04f);  // k_proj, v_proj
  Matrix<float> wide = random(ffn, hidden, 0.04f);                    // gate_proj, up_proj
  Matrix<float> down = random(hidden, ffn, 0.04f);
  Matrix<float> norm = random(1, hidden, 1);
  Matrix<float> x = random(tokens, hidden, 1), y{tokens, hidden};
  Matrix<float> k = random(tokens, kv_heads*head_dim, 1), v = k;
  Matrix<float> gate = random(tokens, ffn, 3), up = random(tokens, ffn, 1), product{tokens, ffn};
  Matrix<float> cosines = random(seqlen, head_dim / 2, 0.7f), sines = cosines;

  /// Its seven products.
  void multiply() {
    for (auto* out : {&k, &v}) linear(*out, x, narrow);
    for (int i = 0; i < 2; ++i) linear(y, x, square);
    for (auto* out : {&gate, &up}) linear(*out, x, wide);
    linear(y, product, down);
  }
  void attention(double soft_cap, index_t window) {
    B::attention<float>(y, x, k, v, {},
                        {.heads = heads,
                         .kv_heads = kv_heads,
                         .head_dim = head_dim,
                         .seqlen = seqlen,
                         .q_step = head_dim,
                         .kv_step = head_dim,
                         .scale = 0.125,
                         .soft_cap = soft_cap,
                         .window = window});
  }

 private:
  static void linear(Matrix<float>& Y, const Matrix<float>& X, const Matrix<float>& W) {
    B::linear<float>(Y, X, W, {});
  }
};

void add(const std::string& name, const std::function<void(Layer&)>& operation) {
  static Layer layer;
  for (const int threads : {1, omp_get_max_threads()}) {
    benchmark::RegisterBenchmark((name + "/on:" + std::to_string(threads)).c_str(),
                                 [=](benchmark::State& state) {
                                   const int before = omp_get_max_threads();
                                   omp_set_num_threads(threads);
                                   layer.multiply();
                                   operation(layer);
                                   double own = 0, products = 0;
                                   for (auto _ : state) {
                                     products += machine::seconds([&] { layer.multiply(); });
                                     const double s = machine::seconds([&] { operation(layer); });
                                     state.SetIterationTime(s);
                                     own += s;
                                   }
                                   omp_set_num_threads(before);
                                   state.counters["products_ms"] =
                                       1e3 * products / double(state.iterations());
                                   state.counters["share"] = own / products;
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    if (omp_get_max_threads() == 1) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const std::pair<const char*, Activation> activations[] = {{"relu", Activation::relu},
                                                            {"gelu", Activation::gelu},
                                                            {"gelu_tanh", Activation::gelu_tanh},
                                                            {"quick_gelu", Activation::quick_gelu},
                                                            {"silu", Activation::silu}};
  for (const auto& [name, kind] : activations) {
    add(std::string("gated_") + name, [kind = kind](Layer& l) {
      B::for_each_element(tokens, ffn,
                          pare::kernels::GatedProduct<float>{l.gate, l.up, l.product, kind});
    });
  }
  add("rms_norm", [](Layer& l) { B::rms_norm<float>(l.y, l.x, l.norm, 1e-5, 0); });
  add("layer_norm", [](Layer& l) { B::layer_norm<float>(l.y, l.x, l.norm, l.norm, 1e-5); });
  add("norm_of_heads", [](Layer& l) {
    const index_t rows = tokens * heads;
    B::rms_norm<float>({l.y.data(), rows, head_dim, head_dim},
                       {l.x.data(), rows, head_dim, head_dim}, {}, 1e-5, 0);
  });
  add("rotary", [](Layer& l) {
    B::for_each_element(tokens, heads * head_dim / 2,
                        pare::kernels::RotatePairs<float>{l.y, l.cosines, l.sines, head_dim,
                                                          head_dim / 2, seqlen});
  });
  add("attention", [](Layer& l) { l.attention(0, 0); });
  add("attention_soft_cap", [](Layer& l) { l.attention(50, 0); });
  add("attention_window_64", [](Layer& l) { l.attention(0, 64); });
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
