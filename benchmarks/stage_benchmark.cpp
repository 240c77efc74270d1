// Times every stage over shapes of OPT and LLaMA, on one backend, with one thread and with all.
//
// Each iteration times the stage's floor right before it, by the machine's own kernels on as many
// threads, so that the ratio holds when the machine's speed drifts. PARE_BENCHMARK_BACKEND names
// the header of the backend.
#include <benchmark/benchmark.h>

#include <map>
#include <memory>
#include <random>
#include <string>

#include "machine.hpp"
#include "pare/pare.hpp"
#include PARE_BENCHMARK_BACKEND

namespace {

using B = std::tuple_element_t<0, test::Backends>;
using pare::index_t;
using pare::Matrix;

constexpr index_t tokens = 2048;     // one window of OPT or LLaMA
constexpr index_t block_size = 128;  // the solver's default
constexpr double sparsity = 0.5;
constexpr int bits = 4;

/// Made-up numbers that a solve finds neither easy nor hopeless.
struct Random {
  std::mt19937 generator{1};
  std::normal_distribution<float> normal;
  float operator()() { return normal(generator); }
};

/// What linears with `in` inputs share.
struct Inputs {
  Matrix<float> X;  // (tokens, in)
  pare::Calibration<B, float> calibration;
  pare::Factor<B, float> factor;
  Matrix<float> diagonal;  // (1, in): U_jj
  Eigen::MatrixXf H;       // (in, in), damped

  explicit Inputs(index_t in) : X(tokens, in), calibration(in), diagonal(1, in) {
    Random random;
    for (index_t t = 0; t < tokens; ++t) {
      float previous = 0;  // neighbours correlate, and scales differ by an order of magnitude
      for (index_t j = 0; j < in; ++j) {
        previous = 0.6f * previous + random();
        X(t, j) = previous * (1.0f + 9.0f * float(j % 17) / 17.0f);
      }
    }
    calibration.add(X.view());
    factor = pare::factorize(calibration);
    for (index_t j = 0; j < in; ++j) diagonal(0, j) = float(factor.upper_diagonal[std::size_t(j)]);
    H = machine::damped(calibration.gram());
  }
};

/// One linear.
struct Linear {
  const Inputs& inputs;
  Matrix<float> W;                 // (out, in)
  Matrix<float> scale, zero, top;  // (1, out)
  Matrix<std::uint8_t> mask;       // (out, in)

  Linear(index_t out, const Inputs& from)
      : inputs(from),
        W(out, from.X.cols()),
        scale(1, out),
        zero(1, out),
        top(1, out),
        mask(out, from.X.cols()) {
    Random random;
    for (index_t i = 0; i < W.size(); ++i) W.data()[i] = 0.02f * random();
    fit({});
    select();
  }

  pare::MatrixView<const float> weights() const { return W.view(); }

  void fit(pare::GridOptions options) {
    static constexpr std::uint8_t width = bits;
    B::fit_grids(pare::kernels::GridFit<float>{.weights = weights(),
                                               .bits = &width,
                                               .options = options,
                                               .grids = {scale.view(), zero.view(), top.view()}});
  }

  /// The masks of all blocks, from the weights as they are before the sweep.
  void select() {
    for (index_t begin = 0; begin < W.cols(); begin += block_size) {
      const index_t count = std::min(block_size, W.cols() - begin);
      B::select_smallest(weights().columns(begin, count),
                         pare::detail::as_const(inputs.diagonal.view()).columns(begin, count),
                         pare::pruned_count(sparsity, W.rows() * count),
                         mask.view().columns(begin, count));
    }
  }
};

const Inputs& inputs(index_t in) {
  static std::map<index_t, std::unique_ptr<Inputs>> all;
  auto& found = all[in];
  if (!found) found = std::make_unique<Inputs>(in);
  return *found;
}
Linear& linear(index_t out, index_t in) {
  static std::map<std::pair<index_t, index_t>, std::unique_ptr<Linear>> all;
  auto& found = all[{out, in}];
  if (!found) found = std::make_unique<Linear>(out, inputs(in));
  return *found;
}

/// Times own() after ready(), which is not timed, and floor(), which returns seconds.
template <class Floor, class Ready, class Own>
void measure(benchmark::State& state, const Floor& floor, const Ready& ready, const Own& own) {
  ready();
  own();  // memory is there and warm
  double ours = 0, machines = 0;
  for (auto _ : state) {
    machines += floor();
    ready();
    const double s = machine::seconds(own);
    state.SetIterationTime(s);
    ours += s;
  }
  state.counters["floor_ms"] = 1e3 * machines / double(state.iterations());
  state.counters["times_floor"] = ours / machines;
}
constexpr auto nothing = [] {};

double read(const Linear& l) { return machine::read_seconds(l.weights()); }
/// Half of the product (out, in) x (in, in).
double half_product(const Linear& l) {
  return machine::product_seconds(machine::view(l.weights()).topRows(l.W.rows() / 2),
                                  machine::view(l.inputs.calibration.gram()));
}

/// The triangle of X^T X, and the moments. Beside it: half of Eigen's product.
void accumulate(benchmark::State& state, index_t, index_t in) {
  const Inputs& from = inputs(in);
  const auto X = machine::view(from.X.view());
  std::unique_ptr<pare::Calibration<B, float>> calibration;
  measure(
      state, [&] { return machine::product_seconds(X.leftCols(in / 2).transpose(), X); },
      [&] { calibration = std::make_unique<pare::Calibration<B, float>>(in); },
      [&] { calibration->add(from.X.view()); });
}

/// U. Beside it: two LLTs, of which one is worth the Cholesky factor and one the inverse.
void factor(benchmark::State& state, index_t, index_t in) {
  const Inputs& from = inputs(in);
  measure(
      state, [&] { return 2 * machine::llt_seconds(from.H); }, nothing,
      [&] {
        const auto result = pare::factorize(from.calibration);
        benchmark::DoNotOptimize(result.upper.data());
      });
}

/// The five signals of output channels; w H w^T of all rows takes half a product.
void score(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  const pare::ImportanceScorer<5, B, float> scorer;
  measure(
      state, [&] { return read(l) + half_product(l); }, nothing,
      [&] {
        const auto scores =
            scorer.score({l.weights(), l.inputs.calibration, l.inputs.factor, bits});
        benchmark::DoNotOptimize(scores.score.data());
      });
}

/// Widths of the output channels by Budget, from scores that spread as losses do.
void allocate(benchmark::State& state, index_t out, index_t in) {
  const Linear& l = linear(out, in);
  std::vector<double> scores(static_cast<std::size_t>(out));
  Random random;
  for (double& s : scores) s = std::exp(double(random()));
  const pare::BitAllocator<pare::Budget> allocator({.target_average_bits = 4.0});
  measure(
      state, [&] { return read(l); }, nothing,
      [&] {
        const auto allocation = allocator.allocate(scores);
        benchmark::DoNotOptimize(allocation.bits.data());
      });
}

void fit(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  measure(
      state, [&] { return read(l); }, nothing, [&] { l.fit({}); });
}

/// The same with the clip search: 80 ranges per row.
void fit_clip(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  measure(
      state, [&] { return read(l); }, nothing, [&] { l.fit({.clip_search = true}); });
}

void select(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  measure(
      state, [&] { return read(l); }, nothing, [&] { l.select(); });
}

/// The column loop of all blocks and what it does to the columns behind, masks and grids given.
void sweep(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  l.fit({});
  Matrix<float> current(out, in), errors(out, block_size);
  Matrix<double> row_loss(1, out);
  const std::vector<std::int32_t> column_grid(block_size, 0);
  const auto U = l.inputs.factor.upper.view();
  measure(
      state, [&] { return half_product(l); }, [&] { B::copy(l.weights(), current.view()); },
      [&] {
        for (index_t begin = 0; begin < in; begin += block_size) {
          const index_t count = std::min(block_size, in - begin), rest = in - begin - count;
          const auto block_errors = errors.view().columns(0, count);
          B::row_sweep(pare::kernels::RowSweep<float, pare::kernels::MaskSource::given, true>{
              current.view().columns(begin, count),
              block_errors,
              l.mask.view().columns(begin, count),
              U.block(begin, begin, count, count),
              {pare::detail::as_const(l.scale.view()), pare::detail::as_const(l.zero.view()),
               pare::detail::as_const(l.top.view())},
              column_grid.data(),
              row_loss.data(),
              0,
              0});
          if (rest > 0)
            B::trailing_update(current.view().columns(begin + count, rest),
                               pare::detail::as_const(block_errors),
                               U.block(begin, begin + count, count, rest));
        }
        benchmark::DoNotOptimize(current.data());
      });
}

/// All of it from H on, at 50 % + 4 bit.
void solve(benchmark::State& state, index_t out, index_t in) {
  Linear& l = linear(out, in);
  using Config = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
  pare::SparseGPTSolver<Config, B, float> solver({.sparsity = sparsity, .bits = bits});
  measure(
      state, [&] { return 2 * machine::llt_seconds(l.inputs.H) + half_product(l); }, nothing,
      [&] {
        const auto linear = solver.solve(l.weights(), l.inputs.calibration);
        benchmark::DoNotOptimize(linear.loss);
      });
}

using Stage = void(benchmark::State&, index_t, index_t);
using Shapes = std::vector<std::pair<index_t, index_t>>;  // (out, in)

void add(const std::string& name, Stage* stage, const Shapes& shapes) {
  std::vector<int> threads{1};
  if (const int all = pare::detail::max_threads(); all > 1) threads.push_back(all);
  for (const auto& [out, in] : shapes)
    for (const int count : threads) {
      const std::string full = name + (out > 0 ? "/out:" + std::to_string(out) : "") +
                               "/in:" + std::to_string(in) + "/on:" + std::to_string(count);
      benchmark::RegisterBenchmark(full.c_str(),
                                   [stage, count, out = out, in = in](benchmark::State& state) {
                                     test::on_threads(count, [&] { stage(state, out, in); });
                                   })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("backend", std::string(B::name));

  // Without an out: only the inputs matter. Squares are what exponents are fitted to.
  const Shapes widths{{0, 768}, {0, 1024}, {0, 2048}, {0, 3072}, {0, 4096}};
  const Shapes opt{{768, 768}, {1024, 1024}, {2048, 2048}, {3072, 768}, {768, 3072}};
  Shapes linears = opt, large = opt;
  linears.emplace_back(4096, 4096);
  large.insert(large.end(), {{4096, 4096}, {11008, 4096}});  // of LLaMA
  add("accumulate", accumulate, widths);
  add("factor", factor, widths);
  add("score", score, linears);
  add("allocate", allocate, large);
  add("fit", fit, large);
  add("fit_clip", fit_clip, linears);
  add("select", select, large);
  add("sweep", sweep, linears);
  add("solve", solve, linears);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
