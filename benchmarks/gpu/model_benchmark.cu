// Compresses whole models of published shapes with random weights on the GPU: 128 x 2048 random
// calibration tokens. Prints seconds by stage and the peak of device memory.
//
//   model_benchmark [results.json [ROW ...]]     for instance opt-6.7b:float16
//
// A row is SHAPE:TYPE, which is pruned by 50 % and rounded to 4 bits, or SHAPE:TYPE:SETTING; `rows`
// has them all. The model is made on the device and is not timed. Stages of the forward passes and of the
// Hessians stand between events; "solve" is the wall time of the solves, "rest" what is left of the
// whole.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pare/model/random.hpp"
#include "pare/pipeline/compress.hpp"
#include "timing.cuh"

namespace {

using namespace bench;
using Joint = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
using Round = pare::Compression<pare::Dense, pare::BaseQuantizer>;
using Search = pare::Compression<pare::Unstructured, pare::Alternating>;
using nlohmann::json;

constexpr index_t windows = 128, seqlen = 2048;

/// The CUDA backend with an interval around the operations of a model and of its Hessians.
struct TimedModel : Cuda {
  template <class S>
  static void linear(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> W,
                     MatrixView<const S> bias, const pare::kernels::Epilogue<S>& then = {}) {
    const Stages::Scope scope("linear");
    Cuda::linear<S>(Y, X, W, bias, then);
  }
  template <class S>
  static void attention(MatrixView<S> out, MatrixView<const S> q, MatrixView<const S> k,
                        MatrixView<const S> v, MatrixView<const pare::compute_scalar<S>> slopes,
                        const pare::kernels::AttentionShape& shape) {
    const Stages::Scope scope("attention");
    Cuda::attention<S>(out, q, k, v, slopes, shape);
  }
  template <class S>
  static void layer_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                         MatrixView<const S> bias, double epsilon) {
    const Stages::Scope scope("norm, activation, add");
    Cuda::layer_norm<S>(Y, X, weight, bias, epsilon);
  }
  template <class S>
  static void rms_norm(MatrixView<S> Y, MatrixView<const S> X, MatrixView<const S> weight,
                       double epsilon, double offset) {
    const Stages::Scope scope("norm, activation, add");
    Cuda::rms_norm<S>(Y, X, weight, epsilon, offset);
  }
  using Cuda::for_each_element;
  template <class S>
  static void for_each_element(index_t rows, index_t cols, const pare::kernels::Activate<S>& f) {
    const Stages::Scope scope("norm, activation, add");
    Cuda::for_each_element(rows, cols, f);
  }
  template <class S>
  static void for_each_element(index_t rows, index_t cols,
                               const pare::kernels::GatedProduct<S>& f) {
    const Stages::Scope scope("norm, activation, add");
    Cuda::for_each_element(rows, cols, f);
  }
  template <class S>
  static void for_each_element(index_t rows, index_t cols, const pare::kernels::RotatePairs<S>& f) {
    const Stages::Scope scope("rotary");
    Cuda::for_each_element(rows, cols, f);
  }
  template <class S>
  static void add(MatrixView<S> Y, MatrixView<const S> X) {
    const Stages::Scope scope("norm, activation, add");
    Cuda::add<S>(Y, X);
  }
  template <class T, class S>
  static void gram_accumulate_upper(MatrixView<T> G, MatrixView<const S> X) {
    const Stages::Scope scope("gram");
    Cuda::gram_accumulate_upper(G, X);
  }
  template <class T>
  static void mirror_upper(MatrixView<T> G) {
    const Stages::Scope scope("gram");
    Cuda::mirror_upper(G);
  }
  template <class S>
  static void column_moments(MatrixView<const S> X, MatrixView<double> moments) {
    const Stages::Scope scope("moments");
    Cuda::column_moments(X, moments);
  }
  template <class S>
  static index_t find_non_finite(MatrixView<const S> A) {
    const Stages::Scope scope("finite");
    return Cuda::find_non_finite(A);
  }
  template <class S>
  static auto start_find_non_finite(MatrixView<const S> A) {
    const Stages::Scope scope("finite");
    return Cuda::start_find_non_finite(A);
  }
  template <class T>
  static bool inverse_factor(MatrixView<T> A) {
    const Stages::Scope scope("factor");
    return Cuda::inverse_factor(A);
  }
  template <class T>
  static auto start_inverse_factor(MatrixView<T> A) {
    const Stages::Scope scope("factor");
    return Cuda::start_inverse_factor(A);
  }
};

/// Device memory between two points, in GiB.
struct Memory {
  cudaMemPool_t pool;

  Memory() {
    int device = 0;
    gpu::check(cudaGetDevice(&device), "cudaGetDevice");
    gpu::check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    gpu::synchronize();
    gpu::check(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
    std::uint64_t now = 0;
    for (const auto what : {cudaMemPoolAttrUsedMemHigh, cudaMemPoolAttrReservedMemHigh})
      gpu::check(cudaMemPoolSetAttribute(pool, what, &now), "cudaMemPoolSetAttribute");
  }
  /// The most that was in use at a time.
  double peak() const {
    std::uint64_t bytes = 0;
    gpu::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &bytes),
               "cudaMemPoolGetAttribute");
    return double(bytes) / double(1 << 30);
  }
  /// What the device has given away: the pool, which keeps what it had, and the libraries.
  static double taken() {
    std::size_t free = 0, total = 0;
    gpu::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return double(total - free) / double(1 << 30);
  }
};

/// Floating-point operations of a run by stage, a multiply-add as two.
std::map<std::string, double> operations(const pare::Architecture& c) {
  const double tokens = double(windows * seqlen), layers = double(c.num_hidden_layers);
  const double h = double(c.hidden_size), q = double(c.query_size());
  const double f = double(c.intermediate_size);
  double all = 0, down = 0;  // weights of a layer's linears, and of the last one
  for (const pare::LinearSpec& linear : c.linears) {
    const double weights = double(rows_of(c, linear.role)) * double(columns_of(c, linear.role));
    all += weights;
    if (linear.role == pare::LinearRole::down) down = weights;
  }
  return {{"linear", layers * 2 * tokens * (2 * all - down) - 2 * tokens * all},
          {"attention", (2 * layers - 1) * 2 * tokens * double(seqlen) * q},
          {"gram", layers * tokens * (2 * h * h + q * q + f * f)}};
}

/// A number that differs between models whose compressed weights differ.
template <class S>
std::uint64_t fingerprint(const pare::LanguageModel<TimedModel, S>& model) {
  std::uint64_t hash = 1;
  for (const auto& layer : model.layers)
    for (const auto* linear : layer.linears()) {
      const auto bytes = Cuda::to_host(linear->weight.view());
      const auto* words = reinterpret_cast<const unsigned char*>(bytes.data());
      for (std::size_t i = 0; i < std::size_t(bytes.size()) * sizeof(S); ++i)
        hash = (hash ^ words[i]) * 0x100000001b3ull;
    }
  return hash;
}

/// Compresses a fresh model and returns it; the times go to `result`.
template <class Config, class S>
pare::LanguageModel<TimedModel, S> run(const std::string& shape, index_t count,
                                       const pare::SolverOptions& solver, json& result) {
  const pare::Architecture config = pare::named_shape(shape);
  const pare::CalibrationWindows text{pare::random_tokens(config, count * seqlen, 2), seqlen};
  const Memory memory;
  auto model = pare::random_model<TimedModel, S>(config, 1);
  gpu::synchronize();
  Stages::get().clear();
  const auto start = std::chrono::steady_clock::now();
  const auto statistics =
      pare::compress_model<Config>(model, text, {.solver = solver, .selection = {}});
  gpu::synchronize();
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  const pare::Totals totals = pare::totals(statistics);

  std::map<std::string, double> seconds = Stages::get().sums();
  for (auto& [name, value] : seconds) value /= 1000;
  if (std::is_same_v<Config, Search>) seconds.erase("factor");  // those of a search are in "solve"
  seconds["solve"] = totals.seconds;
  double rest = passed.count();
  for (const auto& [name, value] : seconds) rest -= value;
  seconds["rest"] = rest;
  result = {{"shape", shape},
            {"type", pare::scalar_traits<S>::name},
            {"windows", count},
            {"seconds", passed.count()},
            {"stages", seconds},
            {"peak_gib", memory.peak()},
            {"device_gib", Memory::taken()},
            {"loss", totals.loss},
            {"sparsity", totals.sparsity},
            {"stored_bits_per_weight", totals.stored_bits_per_weight},
            {"damping_retries", json::array()}};
  for (const auto& layer : statistics.linears)
    if (layer.damping_retries > 0) result["damping_retries"].push_back(layer.name);
  return model;
}

/// What a row is compressed to.
enum class Setting : std::uint8_t { joint, groups, search };

/// What is measured.
struct Row {
  const char *shape, *type;
  Setting setting;
  double limit;  ///< seconds
  bool twice;    ///< whether a second run must give the same bytes

  std::string setting_name() const {
    return setting == Setting::joint ? "" : setting == Setting::groups ? "g128" : "admm";
  }
  std::string name() const {
    const std::string model = std::string(shape) + ":" + type;
    return setting == Setting::joint ? model : model + ":" + setting_name();
  }
};
constexpr Row rows[] = {{"opt-125m", "float32", Setting::joint, 2.5, false},
                        {"opt-125m", "float16", Setting::joint, 8, true},
                        {"opt-6.7b", "float16", Setting::joint, 17, false},
                        {"llama-3-8b", "bfloat16", Setting::groups, 22, false},
                        {"opt-6.7b", "float16", Setting::search, 120, false}};

template <class Config, class S>
json measure(const Row& row, const pare::SolverOptions& solver) {
  json result, again;
  {
    const auto model = run<Config, S>(row.shape, windows, solver, result);
    if (row.twice) {
      const std::uint64_t first = fingerprint(model);
      result["same_bytes_twice"] =
          first == fingerprint(run<Config, S>(row.shape, windows, solver, again));
      result["seconds_again"] = again["seconds"];
    }
  }
  result["setting"] = row.setting_name();
  std::printf("%s: %.2f s (limit %.1f), peak %.2f GiB, device %.2f GiB, loss %.8g%s\n   ",
              row.name().c_str(), result["seconds"].get<double>(), row.limit,
              result["peak_gib"].get<double>(), result["device_gib"].get<double>(),
              result["loss"].get<double>(),
              !row.twice                               ? ""
              : result["same_bytes_twice"].get<bool>() ? ", same bytes twice"
                                                       : ", OTHER BYTES the second time");
  for (const auto& [name, value] : result["stages"].items())
    std::printf(" %s %.3f,", name.c_str(), value.get<double>());
  std::printf("\n   ");
  for (const auto& [name, flop] : operations(pare::named_shape(row.shape))) {
    const double rate = flop / result["stages"].value(name, 1.0) * 1e-12;
    result["tflop_per_s"][name] = rate;
    std::printf(" %s %.0f TFLOP/s,", name.c_str(), rate);
  }
  std::printf("\n");
  std::fflush(stdout);
  result["limit_seconds"] = row.limit;
  return result;
}

const pare::SolverOptions joint{.sparsity = 0.5, .bits = 4};

json measure_row(const Row& row) {
  using pare::bfloat16, pare::float16;
  switch (row.setting) {
    case Setting::joint:
      return row.type == std::string("float32") ? measure<Joint, float>(row, joint)
                                                : measure<Joint, float16>(row, joint);
    case Setting::groups:
      return measure<Round, bfloat16>(row, {.bits = 4, .group_size = 128});
    case Setting::search:
      break;
  }
  return measure<Search, float16>(row, {.sparsity = 0.5});
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  json results = json::array();
  try {
    json ignored;
    run<Joint, pare::float16>("opt-125m", 8, joint, ignored);  // loads the libraries
    run<Joint, float>("opt-125m", 8, joint, ignored);
    for (const Row& row : rows)
      if (names.empty() || std::find(names.begin(), names.end(), row.name()) != names.end())
        results.push_back(measure_row(row));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  if (argc > 1) {
    std::ofstream out(argv[1]);
    out << results.dump(2) << "\n";
    if (!out.flush()) {
      std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
      return 1;
    }
  }
  return 0;
}
