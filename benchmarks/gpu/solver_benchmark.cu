// Times solves on the GPU beside the GPU's own Cholesky and product of the same size, as JSON.
//
//   solver_benchmark [results.json]
//
// floor = in float32: two potrf(in) + half of one (out, in) x (in, in) float32 product, measured in the same
// run. Inputs are resident, times are medians between events. Stages come from a second solver
// whose primitives stand between events of their own.
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <utility>

#include "timing.cuh"

namespace {

using namespace bench;
using T = float;
using Joint = pare::Compression<pare::Unstructured, pare::BaseQuantizer>;
using Round = pare::Compression<pare::Dense, pare::BaseQuantizer>;
using TwoOfFour = pare::Compression<pare::NofM<2, 4>>;
using Mixed =
    pare::Compression<pare::Unstructured, pare::BaseQuantizer, pare::MixedPrecision<pare::Budget>>;

std::FILE* json = stdout;

struct ToHalf {
  MatrixView<const float> from;
  MatrixView<__half> to;
  __device__ void operator()(index_t r, index_t c) const { to(r, c) = __float2half(from(r, c)); }
};

void print_line(const std::string& text, bool first) {
  std::fprintf(json, "%s\n    %s", first ? "" : ",", text.c_str());
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// TFLOP/s of a large product of 16-bit numbers with sums in float, as cuBLAS does it.
double rate_of_halves() {
  const index_t n = 8192;
  gpu::DeviceMatrix<T> A(n, n), C(n, n);
  Cuda::for_each_element(n, n, FillWeights{A.view()});
  gpu::DeviceMatrix<__half> halves(n, n);
  Cuda::for_each_element(n, n, ToHalf{A.view(), halves.view()});
  const float one = 1, zero = 0;
  const double ms = time_ms([&] {
    gpu::check(cublasGemmEx_64(gpu::Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one,
                               halves.data(), CUDA_R_16F, n, halves.data(), CUDA_R_16F, n, &zero,
                               C.data(), CUDA_R_32F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
               "cublasGemmEx");
  });
  return 2 * double(n) * double(n) * double(n) / ms * 1e-9;
}

/// What the libraries take for the parts of the floor: potrf of the faster triangle.
struct Roofline {
  double potrf, potrf_other, gemm;
  double floor() const { return 2 * potrf + gemm / 2; }
};

gpu::DeviceMatrix<T> damped(const pare::Calibration<Cuda, T>& calibration) {
  const index_t n = calibration.in_features();
  const auto order = pare::detail::to_backend<Cuda>(pare::detail::natural_order(n));
  const std::vector<double> values = calibration.hessian_diagonal();
  double mean = 0;
  for (const double v : values) mean += v / double(n);
  const auto diagonal = pare::detail::to_backend<Cuda>(values);
  gpu::DeviceMatrix<T> H(n, n);
  Cuda::for_each_element(n, n,
                         pare::kernels::DampedHessian<T>{calibration.gram(), H.view(),
                                                         order.view().data, diagonal.view().data,
                                                         calibration.hessian_scale(), 0.01 * mean});
  return H;
}

Roofline measure_roofline(const Problem<Cuda>& p, index_t out) {
  const index_t in = p.W.cols();
  const InPrecision float32(gpu::Precision::float32);
  const auto H = damped(p.calibration);
  gpu::DeviceMatrix<T> A(in, in), C(out, in);
  gpu::DeviceMatrix<int> info(1, 1);
  const auto solver = gpu::Context::get().solver;
  const auto potrf = [&](cublasFillMode_t uplo) {
    gpu::DeviceMatrix<T> buffer(1, gpu::potrf_buffer(solver, uplo, A.view()));
    return time_ms([&] { gpu::potrf(solver, uplo, A.view(), buffer, info.data()); },
                   [&] { Cuda::copy(H.view(), A.view()); }, 15);
  };
  const double upper = potrf(CUBLAS_FILL_MODE_UPPER), lower = potrf(CUBLAS_FILL_MODE_LOWER);
  const double gemm = time_ms([&] { Cuda::multiply(C.view(), p.W.view(), H.view()); });
  return {std::min(upper, lower), std::max(upper, lower), gemm};
}

/// Ways to invert a triangle, for the choice in factor.cuh.
void measure_inverses(const Problem<Cuda>& p, bool first) {
  const index_t n = p.W.cols();
  const auto H = damped(p.calibration);
  gpu::DeviceMatrix<T> L(n, n), A(n, n), I(n, n);
  gpu::DeviceMatrix<int> info(1, 1);
  const auto solver = gpu::Context::get().solver;
  Cuda::copy(H.view(), L.view());
  {
    gpu::DeviceMatrix<T> buffer(1, gpu::potrf_buffer(solver, CUBLAS_FILL_MODE_LOWER, L.view()));
    gpu::potrf(solver, CUBLAS_FILL_MODE_LOWER, L.view(), buffer, info.data());
  }
  const auto reset = [&] { Cuda::copy(std::as_const(L).view(), A.view()); };
  const double own = time_ms([&] { gpu::invert_upper(A.view()); }, reset, 15);

  std::size_t device = 0, host = 0;
  gpu::check(cusolverDnXtrtri_bufferSize(solver, CUBLAS_FILL_MODE_LOWER, CUBLAS_DIAG_NON_UNIT, n,
                                         CUDA_R_32F, A.data(), n, &device, &host),
             "cusolverDnXtrtri_bufferSize");
  gpu::DeviceMatrix<char> work(1, index_t(device));
  std::vector<char> host_work(host);
  const double trtri = time_ms(
      [&] {
        gpu::check(cusolverDnXtrtri(solver, CUBLAS_FILL_MODE_LOWER, CUBLAS_DIAG_NON_UNIT, n,
                                    CUDA_R_32F, A.data(), n, work.data(), device, host_work.data(),
                                    host, info.data()),
                   "cusolverDnXtrtri");
      },
      reset, 15);

  const float one = 1;
  const double trsm = time_ms(
      [&] {
        gpu::check(cublasStrsm(gpu::Context::get().blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER,
                               CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT, int(n), int(n), &one, L.data(),
                               int(n), I.data(), int(n)),
                   "cublasStrsm");
      },
      [&] {
        Cuda::for_each_element(n, n, pare::kernels::SetZero<T>{I.view()});
        const auto ones = pare::detail::to_backend<Cuda>(std::vector<T>(std::size_t(n), 1.0f));
        Cuda::copy(MatrixView<const T>(ones.data(), n, 1, 1), MatrixView<T>(I.data(), n, 1, n + 1));
      },
      15);
  print_line("{\"n\": " + std::to_string(n) + ", \"own_ms\": " + number(own) +
                 ", \"trtri_ms\": " + number(trtri) + ", \"trsm_ms\": " + number(trsm) + "}",
             first);
  std::printf("inverse %6ld   own %8.3f   trtri %8.3f   trsm %8.3f ms\n", long(n), own, trtri,
              trsm);
}

/// Hessian accumulation, its arithmetic counted as tokens * in^2 (one triangle).
void measure_gram(index_t tokens, index_t in, bool first) {
  gpu::DeviceMatrix<T> X(tokens, in), G(in, in);
  Cuda::for_each_element(tokens, in, FillActivations{X.view()});
  Cuda::for_each_element(in, in, pare::kernels::SetZero<T>{G.view()});
  pare::Calibration<Cuda, T> calibration(in);
  const double add = time_ms([&] { calibration.add(X.view()); });
  const MatrixView<const T> x = X.view();
  const double accumulate = time_ms([&] { Cuda::gram_accumulate(G.view(), x); });
  const double syrk = time_ms([&] { gpu::syrk(G.view(), x); });
  const double moments = time_ms([&] {
    gpu::DeviceMatrix<double> M(3, in);
    Cuda::column_moments(x, M.view());
  });
  // X^T X as a full product: the card's own rate.
  const float one = 1, zero = 0;
  const double full = time_ms([&] {
    gpu::check(cublasSgemm(gpu::Context::get().blas, CUBLAS_OP_N, CUBLAS_OP_T, int(in), int(in),
                           int(tokens), &one, X.data(), int(in), X.data(), int(in), &zero, G.data(),
                           int(in)),
               "cublasSgemm");
  });
  const double share = full / 2 / add;
  print_line("{\"tokens\": " + std::to_string(tokens) + ", \"in\": " + std::to_string(in) +
                 ", \"add_ms\": " + number(add) + ", \"gram_ms\": " + number(accumulate) +
                 ", \"syrk_ms\": " + number(syrk) + ", \"moments_ms\": " + number(moments) +
                 ", \"full_product_ms\": " + number(full) +
                 ", \"of_product_rate\": " + number(share) + "}",
             first);
  std::printf(
      "gram %6ld x %6ld   add %.3f   gram %.3f   syrk %.3f   moments %.3f   full product "
      "%.3f ms   rate %.2f\n",
      long(tokens), long(in), add, accumulate, syrk, moments, full, share);
}

/// The CUDA backend, noting when the first result is waited for: with a factor given, all has been queued
/// then.
struct Queued : Cuda {
  static inline std::chrono::steady_clock::time_point at;

  struct Found {
    gpu::FirstNonFinite found;
    index_t get() {
      at = std::chrono::steady_clock::now();
      return found.get();
    }
  };
  template <class S>
  static Found start_find_non_finite(MatrixView<const S> A) {
    return {Cuda::start_find_non_finite(A)};
  }
};

/// Wall time until a solve with a factor has been queued, and until it has ended; median, ms.
std::pair<double, double> queue_ms(const Problem<Queued>& p, const pare::SolverOptions& options) {
  pare::SparseGPTSolver<Joint, Queued, T> solver(options);
  const auto factor = solver.prepare(p.calibration);
  std::vector<double> queued, ended;
  for (int run = 0; run < 18; ++run) {
    gpu::synchronize();
    const auto start = std::chrono::steady_clock::now();
    solver.solve({.weights = p.W.view(), .calibration = p.calibration, .factor = factor});
    const auto end = std::chrono::steady_clock::now();
    if (run < 3) continue;
    queued.push_back(std::chrono::duration<double, std::milli>(Queued::at - start).count());
    ended.push_back(std::chrono::duration<double, std::milli>(end - start).count());
  }
  return {median(queued), median(ended)};
}

/// The selections, sweeps and updates of a square linear, ms.
struct LoopTimes {
  double launched, graph;  ///< between events: launched one by one, and as a CUDA graph
  /// Wall time of the host: to launch them, and to make the graph again and launch that, as every solve
  /// must because its matrices lie elsewhere.
  double launching, making;
};

LoopTimes loop_ms(index_t n) {
  using namespace pare::kernels;
  const index_t width = 128;
  const Problem<Cuda> p(n, n);
  const auto factor =
      pare::SparseGPTSolver<Joint, Cuda, T>({.sparsity = 0.5, .bits = 4}).prepare(p.calibration);
  const MatrixView<const T> upper = factor.upper.view();
  gpu::DeviceMatrix<T> W = p.W, u(1, n), scale(1, n), zero(1, n), top(1, n);
  gpu::DeviceMatrix<std::uint8_t> marks(n, n);
  gpu::DeviceMatrix<double> row_loss(1, n);
  Cuda::for_each_row(n, TakeDiagonal<T, T>{upper, u.view()});
  Cuda::for_each_element(1, n, SetZero<double>{row_loss.view()});
  const auto bits = pare::detail::to_backend<Cuda>(std::vector<std::uint8_t>(std::size_t(n), 4));
  const auto begin = pare::detail::to_backend<Cuda>(std::vector<index_t>{0, n});
  const auto grid = pare::detail::to_backend<Cuda>(std::vector<std::int32_t>(std::size_t(n), 0));
  Cuda::fit_grids(GridFit<T>{.weights = p.W.view(),
                             .begin = begin.view().data,
                             .bits = bits.view().data,
                             .per_grid = 0,
                             .per_row = 1,
                             .options = {},
                             .clip_steps = 1,
                             .grids = {scale.view(), zero.view(), top.view()}});
  pare::detail::Updates<Cuda, T> updates;
  updates.start(n, n, width, true);
  const pare::GridView<const T> grids{std::as_const(scale).view(), std::as_const(zero).view(),
                                      std::as_const(top).view()};
  const auto loop = [&] {
    for (index_t first = 0; first < n; first += width) {
      const MatrixView<T> block = W.view().columns(first, width);
      const MatrixView<std::uint8_t> mask = marks.view().columns(first, width);
      Cuda::select_smallest(MatrixView<const T>(block),
                            MatrixView<const T>(u.view()).columns(first, width), n * width / 2,
                            mask);
      Cuda::row_sweep(RowSweep<T, MaskSource::given, true>{
          block, updates.errors(first, width), mask, upper.block(first, first, width, width), grids,
          grid.view().data + first, row_loss.view().data, 0, 0});
      updates.feed(W.view(), upper, first, width);
    }
  };
  // Weights that are pruned already would take other ways.
  const auto restore = [&] { Cuda::copy(p.W.view(), W.view()); };
  const double launched = time_ms(loop, restore);
  const auto capture = [&] {
    cudaGraph_t graph;
    gpu::check(cudaStreamBeginCapture(gpu::stream(), cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    loop();
    gpu::check(cudaStreamEndCapture(gpu::stream(), &graph), "cudaStreamEndCapture");
    return graph;
  };
  cudaGraph_t graph = capture();
  cudaGraphExec_t runnable;
  gpu::check(cudaGraphInstantiate(&runnable, graph, 0), "cudaGraphInstantiate");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  const double replayed =
      time_ms([&] { gpu::check(cudaGraphLaunch(runnable, gpu::stream()), "cudaGraphLaunch"); },
              restore);
  const auto host_ms = [](const auto& f) {
    std::vector<double> times;
    for (int run = 0; run < 15; ++run) {
      gpu::synchronize();
      const auto start = std::chrono::steady_clock::now();
      f();
      const auto end = std::chrono::steady_clock::now();
      times.push_back(std::chrono::duration<double, std::milli>(end - start).count());
    }
    return median(times);
  };
  const double launching = host_ms(loop);
  const double making = host_ms([&] {
    graph = capture();
    cudaGraphExecUpdateResultInfo info;
    if (cudaGraphExecUpdate(runnable, graph, &info) != cudaSuccess) {  // products take memory
      cudaGetLastError();
      gpu::check(cudaGraphExecDestroy(runnable), "cudaGraphExecDestroy");
      gpu::check(cudaGraphInstantiate(&runnable, graph, 0), "cudaGraphInstantiate");
    }
    gpu::check(cudaGraphLaunch(runnable, gpu::stream()), "cudaGraphLaunch");
    gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  });
  gpu::check(cudaGraphExecDestroy(runnable), "cudaGraphExecDestroy");
  return {launched, replayed, launching, making};
}

std::uint64_t peak_bytes(const std::function<void()>& f) {
  cudaMemPool_t pool;
  gpu::check(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
  gpu::synchronize();
  std::uint64_t high = 0, used = 0;
  gpu::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "pool");
  gpu::check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high), "pool");
  f();
  gpu::synchronize();
  gpu::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high), "pool");
  return high - used;
}

template <class Config>
void measure_solve(const char* config, const Problem<Cuda>& p, const Problem<Timed>& timed_problem,
                   const Roofline& roofline, const pare::SolverOptions& options, double limit_ms,
                   bool first) {
  const index_t out = p.W.rows(), in = p.W.cols();
  pare::SparseGPTSolver<Config, Cuda, T> solver(options);
  double loss = 0, sparsity = 0;
  const auto solve = [&] {
    const auto linear = solver.solve(p.W.view(), p.calibration);
    loss = linear.loss;
    sparsity = linear.pattern.sparsity;
  };
  const double ms = time_ms(
      solve, [] {}, 15);
  std::vector<double> walls;
  for (int run = 0; run < 3; ++run) {
    const auto start = std::chrono::steady_clock::now();
    solve();
    const auto end = std::chrono::steady_clock::now();
    walls.push_back(std::chrono::duration<double, std::milli>(end - start).count());
  }
  // W and the gram matrix are the caller's: counted here as one copy each.
  const double peak = double(peak_bytes([&] {
                        pare::SparseGPTSolver<Config, Cuda, T> fresh(options);
                        fresh.solve(p.W.view(), p.calibration);
                      })) +
                      4.0 * double(out * in + in * in);
  const double allowed = 4.0 * double(4 * out * in + 3 * in * in);

  pare::SparseGPTSolver<Config, Timed, T> timed(options);
  timed.solve(timed_problem.W.view(), timed_problem.calibration);
  Stages::get().clear();
  Interval whole;
  whole.begin();
  timed.solve(timed_problem.W.view(), timed_problem.calibration);
  whole.end();
  const double timed_ms = whole.milliseconds();
  const auto stages = Stages::get().sums();

  const double floor = roofline.floor();
  std::string text =
      "{\"config\": \"" + std::string(config) + "\", \"out\": " + std::to_string(out) +
      ", \"in\": " + std::to_string(in) + ", \"solve_ms\": " + number(ms) +
      ", \"wall_ms\": " + number(median(walls)) + ", \"floor_ms\": " + number(floor) +
      ", \"times_floor\": " + number(ms / floor) + ", \"limit_ms\": " + number(limit_ms) +
      ", \"potrf_ms\": " + number(roofline.potrf) +
      ", \"potrf_other_triangle_ms\": " + number(roofline.potrf_other) +
      ", \"gemm_ms\": " + number(roofline.gemm) + ", \"loss\": " + number(loss) +
      ", \"peak_of_allowed\": " + number(peak / allowed) + ", \"stages_ms\": {";
  double sum = 0;
  std::printf(
      "%-10s %5ldx%-5ld %8.3f ms (limit %.2f)  float32 floor %8.3f  x%.2f  wall %.3f  peak %.2f\n  "
      "  ",
      config, long(out), long(in), ms, limit_ms, floor, ms / floor, median(walls), peak / allowed);
  for (const auto& [name, value] : stages) {
    text += "\"" + name + "\": " + number(value) + ", ";
    std::printf(" %s %.3f,", name.c_str(), value);
    sum += value;
  }
  text += "\"rest\": " + number(timed_ms - sum) + "}}";
  std::printf(" rest %.3f (timed %.3f; potrf %.3f / %.3f, gemm %.3f)\n", timed_ms - sum, timed_ms,
              roofline.potrf, roofline.potrf_other, roofline.gemm);
  std::fflush(stdout);
  print_line(text, first);
}

/// Linears of one shape that share their inputs, factor included: solved together, and one after the other
/// with the factor shared.
void measure_together(index_t count, index_t out, index_t in, bool first) {
  const Problem<Cuda> p(out, in);
  std::vector<gpu::DeviceMatrix<T>> others;
  for (index_t i = 1; i < count; ++i) {
    gpu::DeviceMatrix<T>& W = others.emplace_back(out, in);
    Cuda::for_each_element(out, in, FillWeights{W.view(), Noise{std::uint64_t(100 + i)}});
  }
  using Solver = pare::SparseGPTSolver<Joint, Cuda, T>;
  Solver solver({.sparsity = 0.5, .bits = 4});
  std::vector<Solver::Inputs> linears{{.weights = p.W.view(), .calibration = p.calibration}};
  for (const auto& W : others)
    linears.push_back({.weights = W.view(), .calibration = p.calibration});
  const double together = time_ms([&] { solver.solve_together(linears); }, [] {}, 15);
  const double apart = time_ms(
      [&] {
        const auto factor = solver.prepare(p.calibration);
        for (auto inputs : linears) {
          inputs.factor = factor;
          solver.solve(inputs);
        }
      },
      [] {}, 15);
  print_line("{\"linears\": " + std::to_string(count) + ", \"out\": " + std::to_string(out) +
                 ", \"in\": " + std::to_string(in) + ", \"together_ms\": " + number(together) +
                 ", \"apart_ms\": " + number(apart) + "}",
             first);
  std::printf("%ld of %ldx%ld   together %.3f   one after the other %.3f ms\n", long(count),
              long(out), long(in), together, apart);
}

void run() {
  cudaDeviceProp device;
  gpu::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  gpu::DeviceMatrix<float> from(1, index_t{1} << 28), to(1, index_t{1} << 28);
  const double copy = time_ms([&] { Cuda::copy(MatrixView<const float>(from.view()), to.view()); });
  from = {};
  to = {};
  const double halves = rate_of_halves();
  const double bandwidth = 2.0 * double(std::size_t{1} << 30) / copy * 1e-9;
  std::fprintf(json,
               "{\n  \"device\": \"%s\",\n  \"multiprocessors\": %d,\n"
               "  \"copy_tb_per_s\": %.3f,\n  \"halves_tflops\": %.0f",
               device.name, device.multiProcessorCount, bandwidth, halves);
  std::printf("%s, %d multiprocessors, copy %.2f TB/s, products of halves %.0f TFLOP/s\n",
              device.name, device.multiProcessorCount, bandwidth, halves);

  std::fprintf(json, ",\n  \"gram\": [");
  measure_gram(8192, 4096, true);
  measure_gram(16384, 11008, false);

  const pare::SolverOptions joint{.sparsity = 0.5, .bits = 4}, two_of_four{};
  const pare::SolverOptions groups{.bits = 4,
                                   .grid = {.clip_search = true},
                                   .group_size = 128,
                                   .act_order = true};
  const pare::SolverOptions mixed{.sparsity = 0.5,
                                  .bits = 4,
                                  .target_average_bits = 4.0,
                                  .grid = {.clip_search = true}};
  struct Shape {
    index_t out, in;
    double limit_ms;
  };
  std::fprintf(json, "\n  ],\n  \"solves\": [");
  bool first = true;
  for (const auto& [out, in, limit_ms] : {Shape{768, 768, 0.75},
                                          {4096, 4096, 4.5},
                                          {11008, 4096, 6.5},
                                          {4096, 11008, 24},
                                          {12288, 12288, 45}}) {
    const Problem<Cuda> p(out, in);
    const Problem<Timed> q(out, in);
    const Roofline roofline = measure_roofline(p, out);
    measure_solve<Joint>("50%+4bit", p, q, roofline, joint, limit_ms, first);
    first = false;
    if (out == 4096 && in == 4096) {
      measure_solve<TwoOfFour>("2:4", p, q, roofline, two_of_four, 4.5, false);
      measure_solve<Round>("4bit g128", p, q, roofline, groups, 5, false);
      measure_solve<Mixed>("mixed 4.0", p, q, roofline, mixed, 7, false);
    }
  }
  std::fprintf(json, "\n  ],\n  \"queue\": [");
  first = true;
  for (const index_t n : {768, 4096}) {
    const auto [queued, ended] = queue_ms(Problem<Queued>(n, n), joint);
    const LoopTimes loop = loop_ms(n);
    print_line("{\"out\": " + std::to_string(n) + ", \"in\": " + std::to_string(n) +
                   ", \"queued_ms\": " + number(queued) + ", \"ended_ms\": " + number(ended) +
                   ", \"loop_ms\": " + number(loop.launched) + ", \"graph_ms\": " +
                   number(loop.graph) + ", \"launching_ms\": " + number(loop.launching) +
                   ", \"making_ms\": " + number(loop.making) + "}",
               first);
    std::printf(
        "%ldx%ld with a factor   queued after %.3f, ended after %.3f ms; loop %.3f, graph %.3f; "
        "host "
        "%.3f, %.3f\n",
        long(n), long(n), queued, ended, loop.launched, loop.graph, loop.launching, loop.making);
    first = false;
  }
  std::fprintf(json, "\n  ],\n  \"together\": [");
  measure_together(3, 768, 768, true);
  measure_together(3, 4096, 4096, false);
  measure_together(2, 14336, 4096, false);
  std::fprintf(json, "\n  ],\n  \"triangular_inverse\": [");
  first = true;
  for (const index_t n : {768, 4096, 11008}) {
    measure_inverses(Problem<Cuda>(64, n), first);
    first = false;
  }
  std::fprintf(json, "\n  ]\n}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) json = std::fopen(argv[1], "w");
  if (json == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
    return 1;
  }
  if (json == stdout) std::printf("\n");
  try {
    run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return json != stdout && std::fclose(json) != 0;
}
