// Times masks by ADMM and exact weights on the GPU, as JSON, beside what the libraries take for
// their parts in the same run.
//
//   search_benchmark [results.json]
//
// floor = steps products in TF32 + a factorisation and inverse per penalty (two potrf and half a
// float32 product of (in, in)) + the float32 products of the exact solve. Beside it the
// eigendecomposition that could take the place of the factorisations. Inputs are resident.
#include <cstdio>
#include <string>

#include "timing.cuh"

namespace {

using namespace bench;
using T = float;

std::FILE* json = stdout;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// Median of three after a warm run: a solve takes seconds.
template <class F>
double few_ms(const F& f) {
  Interval interval;
  std::vector<double> times;
  for (int run = -1; run < 3; ++run) {
    interval.begin();
    f();
    interval.end();
    if (run >= 0) times.push_back(interval.milliseconds());
  }
  return median(times);
}

/// What the libraries take for one of each part, in milliseconds.
struct Parts {
  double potrf, inverse, product, rough_product, eigen;
};

/// A (in, in) plus a penalty of 0.1, of unit diagonal.
gpu::DeviceMatrix<T> shifted(const Problem<Cuda>& p, const pare::Factor<Cuda, T>& factor) {
  const pare::detail::Normalized<Cuda, T> linear(p.W.view(), p.calibration, factor);
  gpu::DeviceMatrix<T> A(p.W.cols(), p.W.cols());
  linear.hessian(0.1, A.view());
  return A;
}

Parts measure_parts(const Problem<Cuda>& p, bool eigen) {
  const index_t out = p.W.rows(), in = p.W.cols();
  const auto factor = pare::factorize(p.calibration);
  const auto H = shifted(p, factor);
  const pare::detail::Normalized<Cuda, T> linear(p.W.view(), p.calibration, factor);
  gpu::DeviceMatrix<T> A(in, in), C(out, in);
  gpu::DeviceMatrix<int> info(1, 1);
  const auto solver = gpu::Context::get().solver;
  Parts parts{};
  const auto reset = [&] { Cuda::copy(H.view(), A.view()); };
  {
    gpu::DeviceMatrix<T> buffer(1, gpu::potrf_buffer(solver, CUBLAS_FILL_MODE_LOWER, A.view()));
    parts.potrf =
        time_ms([&] { gpu::potrf(solver, CUBLAS_FILL_MODE_LOWER, A.view(), buffer, info.data()); },
                reset, 5);
  }
  parts.inverse = few_ms([&] { pare::detail::shifted_inverse(linear, 0.1); });
  parts.product = time_ms([&] { Cuda::multiply(C.view(), p.W.view(), H.view()); });
  parts.rough_product = time_ms([&] { Cuda::rough_multiply(C.view(), p.W.view(), H.view()); });
  if (!eigen) return parts;
  gpu::DeviceMatrix<T> values(1, in);
  int size = 0;
  gpu::check(cusolverDnSsyevd_bufferSize(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                         int(in), A.data(), int(in), values.data(), &size),
             "cusolverDnSsyevd_bufferSize");
  gpu::DeviceMatrix<T> buffer(1, size);
  Interval interval;
  for (int run = 0; run < 2; ++run) {  // the first is warm
    reset();
    interval.begin();
    gpu::check(cusolverDnSsyevd(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, int(in),
                                A.data(), int(in), values.data(), buffer.data(), size, info.data()),
               "cusolverDnSsyevd");
    interval.end();
    parts.eigen = interval.milliseconds();
  }
  return parts;
}

template <class Config>
void measure(const char* config, const Problem<Cuda>& p, const Parts& parts,
             const pare::SolverOptions& options, double limit, bool first) {
  const index_t out = p.W.rows(), in = p.W.cols();
  pare::SparseGPTSolver<Config, Cuda, T> solver(options);
  pare::CompressedLinear<Cuda, T> linear;
  const double ms = few_ms([&] { linear = solver.solve(p.W.view(), p.calibration); });
  // Linears that share H, q, k and v for instance, share the inverses.
  const auto factor = solver.prepare(p.calibration);
  const double shared = few_ms([&] {
    linear = solver.solve({.weights = p.W.view(), .calibration = p.calibration, .factor = factor});
  });
  const int penalties =
      (linear.search_steps + pare::detail::penalty_steps - 1) / pare::detail::penalty_steps;
  // (in, in) products take in / out as long as those of W.
  const double square = parts.product * double(in) / double(out);
  const double floor = linear.search_steps * parts.rough_product +
                       penalties * (2 * parts.potrf + square / 2) +
                       (pare::detail::descent_steps + 3) * parts.product;
  const double of_greedy = linear.loss / linear.greedy_loss.value_or(linear.loss);
  std::fprintf(json,
               "%s\n    {\"config\": \"%s\", \"out\": %ld, \"in\": %ld, \"solve_ms\": %s, "
               "\"shared_factor_ms\": %s, \"limit_ms\": %s, \"steps\": %d, \"penalties\": %d, "
               "\"floor_ms\": %s, \"potrf_ms\": %s, \"inverse_ms\": %s, \"product_ms\": %s, "
               "\"tf32_product_ms\": %s, \"eigendecomposition_ms\": %s, \"loss_of_greedy\": %s, "
               "\"kept\": \"%s\"}",
               first ? "" : ",", config, long(out), long(in), number(ms).c_str(),
               number(shared).c_str(), number(limit).c_str(), linear.search_steps, penalties,
               number(floor).c_str(), number(parts.potrf).c_str(), number(parts.inverse).c_str(),
               number(parts.product).c_str(), number(parts.rough_product).c_str(),
               number(parts.eigen).c_str(), number(of_greedy).c_str(),
               pare::to_string(linear.mask_search));
  std::printf(
      "%-5s %5ldx%-5ld %9.2f ms (limit %.0f)  shared factor %9.2f  floor %9.2f  steps %d, "
      "penalties %d  inverse %.2f  product %.2f, TF32 %.2f  eigen %.1f  loss x%.3f of greedy\n",
      config, long(out), long(in), ms, limit, shared, floor, linear.search_steps, penalties,
      parts.inverse, parts.product, parts.rough_product, parts.eigen, of_greedy);
  std::fflush(stdout);
}

void run() {
  using pare::MaskSearch;
  const pare::SolverOptions half{.sparsity = 0.5};
  struct Shape {
    index_t out, in;
    double limit;
  };
  cudaDeviceProp device;
  gpu::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  std::fprintf(json, "{\n  \"device\": \"%s\",\n  \"searches\": [", device.name);
  bool first = true;
  for (const auto& [out, in, limit] :
       {Shape{768, 768, 300}, {4096, 4096, 300}, {4096, 16384, 6000}, {12288, 12288, 6000}}) {
    const Problem<Cuda> p(out, in);
    const Parts parts = measure_parts(p, in <= 12288);
    measure<pare::Compression<pare::NofM<2, 4>, pare::Alternating>>("2:4", p, parts, {}, limit,
                                                                    first);
    measure<pare::Compression<pare::Unstructured, pare::Alternating>>("50%", p, parts, half, limit,
                                                                      false);
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
  try {
    run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return json != stdout && std::fclose(json) != 0;
}
