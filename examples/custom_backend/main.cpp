// A backend of one's own: threads of the standard library, Eigen on each of them.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"

// [backend]
/// How work is spread: tasks on threads of the standard library.
struct ThreadTasks {
  /// Calls f(i) once for every i in [0, n), several at a time. f does not throw.
  template <class F>
  static void run(pare::index_t n, const F& f) {
    std::atomic<pare::index_t> next = 0;
    const auto work = [&] {
      for (pare::index_t i = next++; i < n; i = next++) f(i);
    };
    const auto threads = std::min(n, pare::index_t(std::thread::hardware_concurrency()));
    std::vector<std::jthread> others;
    for (pare::index_t t = 1; t < threads; ++t) others.emplace_back(work);
    work();
  }
};

/// Memory of the host, tasks from above, Eigen for what one task does to blocks of matrices.
struct Threads : pare::backend::HostMemory,
                 pare::backend::HostNumericOps<ThreadTasks, pare::backend::EigenKernels>,
                 pare::backend::HostModelOps<ThreadTasks, pare::backend::EigenKernels> {
  static constexpr std::string_view name = "threads";

  /// Marks the k smallest |w_ij| / d_j; ties go to the lower row-major index.
  template <class T>
  static void select_smallest(pare::MatrixView<const T> W, pare::MatrixView<const T> d,
                              pare::index_t k, pare::MatrixView<std::uint8_t> mask) {
    std::vector<std::pair<T, pare::index_t>> scores;
    for (pare::index_t r = 0; r < W.rows; ++r)
      for (pare::index_t c = 0; c < W.cols; ++c) {
        mask(r, c) = 0;
        scores.emplace_back(std::abs(W(r, c)) / d(0, c), r * W.cols + c);
      }
    std::nth_element(scores.begin(), scores.begin() + k, scores.end());
    for (pare::index_t i = 0; i < k; ++i) {
      const pare::index_t at = scores[std::size_t(i)].second;
      mask(at / W.cols, at % W.cols) = 1;
    }
  }
};
static_assert(pare::Backend<Threads, float> && pare::Backend<Threads, double>);
// [backend]

namespace {

/// Solves one random linear on a backend whose memory is the host's.
template <class B>
pare::Matrix<float> solved() {
  using namespace pare;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Matrix<float> W(300, 200), X(400, 200);  // (out, in), (tokens, in)
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = normal(random);
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = normal(random);
  Calibration<B, float> calibration(W.cols());
  calibration.add(X);
  using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;
  SparseGPTSolver<Config, B, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5});
  return solver.solve(W, calibration).weights;
}

}  // namespace

int main() {
  Eigen::setNbThreads(1);  // inside a task it must start none
  const pare::Matrix<float> mine = solved<Threads>(), eigen = solved<pare::backend::Eigen>();
  const bool same =
      std::memcmp(mine.data(), eigen.data(), std::size_t(mine.size()) * sizeof(float)) == 0;
  std::printf("backend %s: a linear of %td x %td solved\n", Threads::name.data(), mine.rows(),
              mine.cols());
  std::printf("same bytes as backend %s: %s\n", pare::backend::Eigen::name.data(),
              same ? "yes" : "no");
  return same ? 0 : 1;
}
