// The losses of a model's linears and layers with products in parts on the tensor cores, the default,
// against those with products in float32, and of both against float64.
#define BOOST_TEST_MODULE pare_cuda_precision
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "pare/backend/cuda/thrust_cuda.cuh"
#include "pare/model/load.hpp"
#include "pare/model/walk.hpp"
#include "pare/solver/sparsegpt.hpp"
#include "pare/tokenizer/tokenizer.hpp"
#include "support.hpp"

namespace fs = std::filesystem;
namespace gpu = pare::backend::cuda;
using gpu::Precision;
using pare::index_t;
using pare::MatrixView;
using Cuda = pare::backend::Thrust<pare::backend::system::cuda>;
using Model = pare::LanguageModel<Cuda, float>;
template <class T>
using Calibrations = std::map<index_t, pare::Calibration<Cuda, T>>;  // by the input of the layer

namespace {

// 8 windows of 512 tokens: enough that products of the pass over the text and sums of X^T X are split.
constexpr index_t windows = 8, seqlen = 512;

Cuda::matrix<double> widened(MatrixView<const float> X) {
  Cuda::matrix<double> result(X.rows, X.cols);
  pare::convert<Cuda>(X, result.view());
  return result;
}

/// Half of the weights pruned, the rest at 4 bits.
template <class T>
pare::CompressedLinear<Cuda, T> solve(MatrixView<const T> W,
                                      const pare::Calibration<Cuda, T>& calibration) {
  using Config = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
  return pare::SparseGPTSolver<Config, Cuda, T>({.sparsity = 0.5, .bits = 4}).solve(W, calibration);
}

template <class T>
void add(Calibrations<T>& to, index_t input, MatrixView<const T> X) {
  to.try_emplace(input, X.cols).first->second.add(X, windows);
}

/// Losses of the same weights in three arithmetics.
struct Losses {
  double split = 0, float32 = 0, float64 = 0;
};

/// Relative differences of losses over the linears or the layers of a model.
struct Differences {
  int count = 0, above = 0;  ///< in all; of 1e-3 or more
  double largest = 0, sum = 0, signed_sum = 0;

  void add(double loss, double reference) {
    const double difference = loss / reference - 1;
    ++count;
    above += std::abs(difference) >= 1e-3 ? 1 : 0;
    largest = std::max(largest, std::abs(difference));
    sum += std::abs(difference);
    signed_sum += difference;
  }
  double mean() const { return sum / count; }
};

/// Each arithmetic against those of more digits.
struct Comparison {
  Differences split_float32, split_float64, float32_float64;

  void add(const Losses& losses) {
    split_float32.add(losses.split, losses.float32);
    split_float64.add(losses.split, losses.float64);
    float32_float64.add(losses.float32, losses.float64);
  }
};

std::ostream& operator<<(std::ostream& out, const Differences& d) {
  return out << "largest " << d.largest << ", mean " << d.mean() << ", mean signed "
             << d.signed_sum / d.count << ", " << d.above << " of " << d.count
             << " of 1e-3 or more";
}

std::ostream& operator<<(std::ostream& out, const Comparison& c) {
  return out << "\n  split to float32:   " << c.split_float32
             << "\n  split to float64:   " << c.split_float64
             << "\n  float32 to float64: " << c.float32_float64;
}

/// Every linear in three arithmetics, of the pass over the text, the calibration and the solver, after the
/// same layers: those compressed in float32. The solve in float64 has the inputs of float32's pass.
///
/// What is held is the distance to float64, of the losses of whole layers. A single linear may be further
/// away, in float32 as well: where two scores, or a weight and the middle between two points of its grid,
/// are as close as rounding errors, the other choice is made, and the row's later weights change with it.
void compare(const fs::path& folder, const fs::path& shared) {
  const auto text = pare::detail::read_whole_file(shared / "text" / "c4.calib.txt");
  std::vector<std::int32_t> ids = pare::Tokenizer::load(folder).encode(text);
  BOOST_REQUIRE_GE(index_t(ids.size()), windows * seqlen);
  ids.resize(std::size_t(windows * seqlen));
  Model model = pare::load_model<Cuda, float>(folder);
  pare::Walk<Model> walk(model, ids, seqlen, windows * seqlen);
  gpu::set_precision(Precision::float32);
  walk.embed_all();
  Comparison linears, layers;
  for (auto& layer : model.layers) {
    const index_t last = pare::detail::inputs_of(layer) - 1;
    Calibrations<float> split, float32;
    Calibrations<double> float64;
    gpu::set_precision(Precision::split);
    walk.run(
        layer, 0, [&](index_t i, MatrixView<const float> X) { add(split, i, X); }, last);
    gpu::set_precision(Precision::float32);
    const auto tap = [&](index_t i, MatrixView<const float> X) {
      add(float32, i, X);
      add<double>(float64, i, pare::detail::as_const(widened(X).view()));
    };
    walk.run(layer, 0, tap, last);
    Losses of_layer;
    for (auto* linear : layer.linears()) {
      const MatrixView<const float> W = pare::detail::as_const(linear->weight.view());
      Losses of_linear;
      gpu::set_precision(Precision::split);
      of_linear.split = solve(W, split.at(linear->input)).loss;
      gpu::set_precision(Precision::float32);
      auto solved = solve(W, float32.at(linear->input));
      of_linear.float32 = solved.loss;
      const Cuda::matrix<double> wide = widened(W);
      of_linear.float64 = solve<double>(wide.view(), float64.at(linear->input)).loss;
      linears.add(of_linear);
      of_layer.split += of_linear.split;
      of_layer.float32 += of_linear.float32;
      of_layer.float64 += of_linear.float64;
      BOOST_TEST_MESSAGE(linear->name << ": loss " << of_linear.split << ", in float32 "
                                      << of_linear.float32 << ", in float64 " << of_linear.float64);
      linear->weight = std::move(solved.weights);
    }
    layers.add(of_layer);
    walk.run(layer, 0);
  }
  gpu::set_precision(Precision::split);
  BOOST_TEST_MESSAGE(folder.filename().string()
                     << "\n layers:" << layers << "\n linears:" << linears);
  BOOST_CHECK_GT(linears.split_float32.mean(), 0);  // or nothing was split
  BOOST_CHECK_LT(layers.split_float64.largest, 1e-3);
  BOOST_CHECK_LT(linears.split_float64.mean(), 2 * linears.float32_float64.mean());
}

}  // namespace

BOOST_AUTO_TEST_CASE(layers_of_opt_small_lose_what_they_lose_in_float64) {
  const auto shared = test::shared_folder("losses of opt-small in three arithmetics");
  if (shared) compare(*shared / "models" / "opt-small", *shared);
}

BOOST_AUTO_TEST_CASE(layers_of_a_published_model_lose_what_they_lose_in_float64) {
  const auto shared = test::shared_folder("losses of SmolLM2 in three arithmetics");
  if (!shared) return;
  const char* const given = std::getenv("PARE_SMOLLM2");
  const fs::path folder = given != nullptr ? fs::path(given) : *shared / "models" / "smollm2";
  if (fs::exists(folder / "config.json")) return compare(folder, *shared);
  std::cout
      << "skipped: neither PARE_SMOLLM2 nor models/smollm2 is what shared/tools/smollm2.sh makes\n";
}
