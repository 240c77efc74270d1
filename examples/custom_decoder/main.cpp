// A language model of none of the families, with layers and a forward pass of its own, compressed as
// a whole: each layer is calibrated on what the compressed ones before it give.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/model/divergence.hpp"
#include "pare/pare.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/report/text.hpp"

namespace mixer {

using namespace pare;
using Cores = backend::Eigen;

// [layer]
/// A layer that mixes tokens by a decaying mean in place of attention:
/// x += out(relu(gate(n)) * mean(value(n))) with n = x / rms(x), where mean_t of a token t is
/// 0.9 mean_(t-1) + 0.1 value_t.
struct Layer {
  Linear<Cores, float> value, gate, out;  // each (width, width)

  /// In the order of compression; `input` of each says which of them read the same activation.
  std::vector<Linear<Cores, float>*> linears() { return {&value, &gate, &out}; }
  std::vector<const Linear<Cores, float>*> linears() const { return {&value, &gate, &out}; }
};

struct Workspace {
  Matrix<float> normal, value, gate;  // (tokens, width)
};

/// The model: its types, and below it the functions that pare::LayeredModel asks for.
struct Model {
  using backend_type = Cores;
  using scalar_type = float;
  using layer_type = Layer;
  using workspace_type = Workspace;

  Matrix<float> embeddings;  // (vocab, width), the head too
  std::vector<Layer> layers;

  MatrixView<const float> lm_head() const { return embeddings.view(); }
};
// [layer]

// [functions]
void embed(const Model& model, std::span<const std::int32_t> ids, index_t, Workspace&,
           Matrix<float>& hidden) {
  hidden.resize(index_t(ids.size()), model.embeddings.cols());
  for (std::size_t t = 0; t < ids.size(); ++t)
    std::copy_n(model.embeddings.view().row(ids[t]), hidden.cols(), hidden.view().row(index_t(t)));
}

template <class Tap>
void forward_layer(const Model&, const Layer& layer, MatrixView<float> hidden, index_t seqlen,
                   Workspace& workspace, Tap&& tap, index_t stop_at) {
  workspace.normal.resize(hidden.rows, hidden.cols);
  const MatrixView<float> normal = workspace.normal.view();
  Cores::rms_norm<float>(normal, hidden, MatrixView<const float>{}, 1e-6, 0);
  tap(0, MatrixView<const float>(normal));  // what value and gate read
  if (stop_at == 0) return;
  workspace.value.resize(hidden.rows, hidden.cols);
  workspace.gate.resize(hidden.rows, hidden.cols);
  const MatrixView<float> value = workspace.value.view(), gate = workspace.gate.view();
  const auto product = [](MatrixView<float> Y, MatrixView<const float> X,
                          const Linear<Cores, float>& linear) {
    Cores::linear<float>(Y, X, linear.weight.view(), linear.bias.view());
  };
  product(value, normal, layer.value);
  product(gate, normal, layer.gate);
  for (index_t t = 0; t < hidden.rows; ++t)
    for (index_t j = 0; j < hidden.cols; ++j) {
      value(t, j) *= 0.1f;
      if (t % seqlen > 0) value(t, j) += 0.9f * value(t - 1, j);
    }
  for (index_t t = 0; t < hidden.rows; ++t)
    for (index_t j = 0; j < hidden.cols; ++j) gate(t, j) = std::max(gate(t, j), 0.0f) * value(t, j);
  tap(1, MatrixView<const float>(gate));  // what out reads
  if (stop_at == 1) return;
  product(value, gate, layer.out);
  Cores::add<float>(hidden, value);
}

/// Only perplexities and divergences need it.
template <class Use>
void head(const Model& model, MatrixView<const float> hidden, Workspace& workspace, Use&& use) {
  workspace.value.resize(hidden.rows, model.embeddings.rows());
  Cores::linear<float>(workspace.value.view(), hidden, model.lm_head(), MatrixView<const float>{});
  use(index_t{0}, MatrixView<const float>(workspace.value.view()));
}
// [functions]

Model random_model(index_t width, index_t vocab, index_t layers, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const auto matrix = [&](index_t rows, index_t cols, float deviation) {
    Matrix<float> A(rows, cols);
    std::generate_n(A.data(), A.size(), [&] { return deviation * normal(random); });
    for (index_t i = 0; i < A.size(); i += 97) A.data()[i] *= 6;  // as outliers of real weights
    return A;
  };
  Model model{matrix(vocab, width, 0.3f), {}};
  for (index_t i = 0; i < layers; ++i) {
    Layer layer;
    const float deviation = 0.8f / std::sqrt(float(width));
    layer.value.weight = matrix(width, width, deviation);
    layer.gate.weight = matrix(width, width, deviation);
    layer.out.weight = matrix(width, width, deviation);
    layer.out.input = 1;  // value and gate read input 0
    const std::string name = "layers." + std::to_string(i) + ".";
    layer.value.name = name + "value";
    layer.gate.name = name + "gate";
    layer.out.name = name + "out";
    model.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace mixer

int main() {
  using namespace pare;
  std::mt19937 random(11);
  mixer::Model model = mixer::random_model(64, 200, 4, random);
  const mixer::Model dense = model;
  const auto text = [&](index_t windows) {
    std::vector<std::int32_t> ids(std::size_t(windows * 64));
    for (auto& id : ids) id = std::int32_t(random() % 20 * (random() % 10));
    return CalibrationWindows{ids, 64};
  };
  const CalibrationWindows calibration = text(16), unseen = text(4);
  ReferencePredictions<mixer::Model> reference(dense, unseen.ids, unseen.seqlen);

  // [compress]
  using Config = Compression<Unstructured, BaseQuantizer>;
  const SolverOptions options{.sparsity = 0.5, .bits = 4};
  const Statistics statistics = compress_model<Config>(model, calibration, {.solver = options});
  // [compress]
  std::fputs(totals_text(statistics).c_str(), stdout);
  const double solved = reference.divergence(model);

  mixer::Model nearest = dense;  // magnitudes and the nearest values instead
  compress_model<Config>(nearest, {}, {.solver = options, .magnitude = true});
  const double rounded = reference.divergence(nearest);
  std::printf("divergence: %.3f nats per token, %.3f by magnitudes\n", solved, rounded);
  return solved < rounded ? 0 : 1;
}
