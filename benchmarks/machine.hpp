// The machine's own kernels, timed beside ours: reading memory, Eigen's LLT and product.
#pragma once

#include <benchmark/benchmark.h>

#include <Eigen/Dense>
#include <chrono>
#include <vector>

#include "pare/core/config.hpp"
#include "pare/core/matrix.hpp"

namespace machine {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>;

/// A matrix of pare as Eigen's.
inline View view(pare::MatrixView<const float> A) {
  return View(A.data, A.rows, A.cols, Eigen::OuterStride<>(A.stride));
}

/// Seconds that f() takes.
template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// H + 0.01 mean(diag H) as Eigen's LLT likes it, for H = gram (in, in).
inline Eigen::MatrixXf damped(pare::MatrixView<const float> gram) {
  Eigen::MatrixXf H = view(gram);
  H.diagonal().array() += 0.01f * H.diagonal().mean();
  return H;
}

/// Seconds of Eigen's LLT of H (in, in).
inline double llt_seconds(const Eigen::MatrixXf& H) {
  return seconds([&] {
    Eigen::LLT<Eigen::MatrixXf> factor(H);
    benchmark::DoNotOptimize(factor.info());
  });
}

/// Seconds of Eigen's product A B.
template <class A, class B>
double product_seconds(const A& a, const B& b) {
  static RowMajor product;
  product.resize(a.rows(), b.cols());
  return seconds([&] {
    product.noalias() = a * b;
    benchmark::DoNotOptimize(product.data());
  });
}

/// Seconds in which all threads read the elements of A once.
inline double read_seconds(pare::MatrixView<const float> A) {
  constexpr int lanes = 64;  // independent sums, so that reading is what takes the time
  std::vector<float> sums(std::size_t(A.rows));
  return seconds([&] {
    pare::detail::host_parallel_for((A.rows + 15) / 16, [&](pare::index_t task) {
      for (pare::index_t r = task * 16; r < std::min(A.rows, task * 16 + 16); ++r) {
        const float* a = A.row(r);
        float sum[lanes] = {};
        pare::index_t c = 0;
        for (; c + lanes <= A.cols; c += lanes)
          for (int l = 0; l < lanes; ++l) sum[l] += a[c + l];
        for (; c < A.cols; ++c) sum[0] += a[c];
        for (int l = 0; l < lanes; ++l) sums[std::size_t(r)] += sum[l];
      }
    });
    benchmark::DoNotOptimize(sums.data());
  });
}

}  // namespace machine
