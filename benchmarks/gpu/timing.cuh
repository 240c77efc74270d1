// Timing with events, problems made on the device, and a backend that times its primitives.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pare/backend/cuda/thrust_cuda.cuh"
#include "pare/pare.hpp"

namespace bench {

using pare::index_t;
using pare::MatrixView;
using Cuda = pare::backend::Thrust<pare::backend::system::cuda>;
namespace gpu = pare::backend::cuda;

/// Products of float32 in another arithmetic as long as this lives.
class InPrecision {
 public:
  explicit InPrecision(gpu::Precision precision) : before_(gpu::precision()) {
    gpu::set_precision(precision);
  }
  InPrecision(const InPrecision&) = delete;
  InPrecision& operator=(const InPrecision&) = delete;
  ~InPrecision() { gpu::set_precision(before_); }

 private:
  gpu::Precision before_;
};

/// Milliseconds between two points of the stream.
class Interval {
 public:
  Interval() {
    gpu::check(cudaEventCreate(&begin_), "cudaEventCreate");
    gpu::check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  Interval(const Interval&) = delete;
  Interval& operator=(const Interval&) = delete;
  ~Interval() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  void begin() { gpu::check(cudaEventRecord(begin_, gpu::stream()), "cudaEventRecord"); }
  void end() { gpu::check(cudaEventRecord(end_, gpu::stream()), "cudaEventRecord"); }
  float milliseconds() {
    gpu::check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float ms = 0;
    gpu::check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t begin_, end_;
};

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + index_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Median milliseconds of f; prepare runs before each, untimed. Repeats until half a second or
/// `most` runs have passed, after two warm ones.
template <class F, class Prepare>
double time_ms(const F& f, const Prepare& prepare, int most = 30) {
  Interval interval;
  std::vector<double> times;
  double total = 0;
  for (int run = -2; run < most && (total < 500 || run < 5); ++run) {
    prepare();
    interval.begin();
    f();
    interval.end();
    const double ms = interval.milliseconds();
    if (run < 0) continue;
    times.push_back(ms);
    total += ms;
  }
  return median(times);
}
template <class F>
double time_ms(const F& f) {
  return time_ms(f, [] {});
}

/// A normal number that depends on its place only.
struct Noise {
  std::uint64_t seed;
  __device__ static double uniform(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return (double(z >> 11) + 0.5) * 0x1p-53;
  }
  __device__ float operator()(index_t r, index_t c) const {
    const std::uint64_t at = (std::uint64_t(r) << 32 | std::uint64_t(c)) * 2 + seed;
    constexpr std::uint64_t step = 0x9e3779b97f4a7c15ull;
    const double u = uniform(at * step), v = uniform((at + 1) * step);
    return float(sqrt(-2 * log(u)) * cospi(2 * v));
  }
};

/// Weights: independent normal numbers.
struct FillWeights {
  MatrixView<float> W;
  Noise noise{1};
  __device__ void operator()(index_t r, index_t c) const { W(r, c) = 0.02f * noise(r, c); }
};

/// Activations: neighbours correlate, and scales differ by an order of magnitude.
struct FillActivations {
  MatrixView<float> X;
  Noise noise{2};
  __device__ void operator()(index_t t, index_t j) const {
    float x = 0, share = 1;
    for (index_t back = 0; back < 5 && back <= j; ++back, share *= 0.6f)
      x += share * noise(t, j - back);
    X(t, j) = x * (1.0f + 9.0f * float(j % 17) / 17.0f);
  }
};

/// A linear and the Hessian of its inputs.
template <class B>
struct Problem {
  gpu::DeviceMatrix<float> W;
  pare::Calibration<B, float> calibration;

  Problem(index_t out, index_t in) : W(out, in), calibration(in) {
    Cuda::for_each_element(out, in, FillWeights{W.view()});
    const index_t batch = 4096;  // tokens
    gpu::DeviceMatrix<float> X(batch, in);
    for (index_t first = 0; first < 2 * in; first += batch) {
      const Noise noise{2 + std::uint64_t(first) * 999};
      Cuda::for_each_element(batch, in, FillActivations{X.view(), noise});
      calibration.add(X.view(), 2);
    }
  }
};

/// Times of the stages of a solve, by name.
class Stages {
 public:
  struct Scope {
    Interval* interval;
    explicit Scope(const char* name) : interval(&get().start(name)) { interval->begin(); }
    ~Scope() { interval->end(); }
  };
  static Stages& get() {
    static Stages stages;
    return stages;
  }
  void clear() {
    used_ = 0;
    names_.clear();
  }
  std::map<std::string, double> sums() {
    std::map<std::string, double> result;
    for (std::size_t i = 0; i < names_.size(); ++i) result[names_[i]] += pool_[i]->milliseconds();
    return result;
  }

 private:
  Interval& start(const char* name) {
    if (used_ == pool_.size()) pool_.push_back(std::make_unique<Interval>());
    names_.push_back(name);
    return *pool_[used_++];
  }
  std::vector<std::unique_ptr<Interval>> pool_;
  std::size_t used_ = 0;
  std::vector<std::string> names_;
};

template <class F, class... Others>
inline constexpr bool is_one_of = (std::is_same_v<F, Others> || ...);

/// The CUDA backend with an interval around every primitive.
struct Timed : Cuda {
  template <class F>
  static constexpr const char* stage_of() {
    using namespace pare::kernels;
    if (is_one_of<F, ScoreSums<float>>) return "score";
    if (is_one_of<F, RowFaults<float>, RunFaults, CountBlocks<float>, LossUnit, Difference<float>,
                  ClosedLoss<float>>)
      return "verify";
    if (is_one_of<F, GatherColumns<float>, ScatterColumns<float>, ScatterColumns<std::uint8_t>>)
      return "gather";
    if (is_one_of<F, DampedHessian<float>>) return "damped H";
    return "small";
  }
  template <class F>
  static void for_each_row(index_t n, const F& f) {
    const Stages::Scope scope(stage_of<F>());
    Cuda::for_each_row(n, f);
  }
  template <class R>
  static void reduce_rows(index_t n, const R& reduction) {
    const Stages::Scope scope(stage_of<R>());
    Cuda::reduce_rows(n, reduction);
  }
  template <class T>
  static void fit_grids(const pare::kernels::GridFit<T>& fit) {
    const Stages::Scope scope("fit");
    Cuda::fit_grids(fit);
  }
  template <class F>
  static void for_each_element(index_t rows, index_t cols, const F& f) {
    const Stages::Scope scope(stage_of<F>());
    Cuda::for_each_element(rows, cols, f);
  }
  template <class T>
  static index_t find_non_finite(MatrixView<const T> A) {
    const Stages::Scope scope("finite");
    return Cuda::find_non_finite(A);
  }
  template <class T>
  static auto start_find_non_finite(MatrixView<const T> A) {
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
  template <class T>
  static void multiply(MatrixView<T> C, MatrixView<const T> A, MatrixView<const T> B) {
    const Stages::Scope scope(A.rows <= pare::detail::verified_rows ? "verify" : "score product");
    Cuda::multiply(C, A, B);
  }
  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> E, MatrixView<const T> U) {
    const Stages::Scope scope("update");
    Cuda::trailing_update(W, E, U);
  }
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    const Stages::Scope scope("select");
    Cuda::select_smallest(W, d, k, mask);
  }
  template <class T>
  static void select_smallest_of(MatrixView<const T> W, MatrixView<const T> d,
                                 std::span<const pare::kernels::RowRun> runs,
                                 MatrixView<std::uint8_t> mask) {
    const Stages::Scope scope("select");
    Cuda::select_smallest_of(W, d, runs, mask);
  }
  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    const Stages::Scope scope("sweep");
    Cuda::row_sweep(sweep);
  }
};

}  // namespace bench
