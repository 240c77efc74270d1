// What the tests of a model's operations share: random matrices, comparisons, attention by name.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <tuple>
#include <type_traits>
#include <vector>

#include "pare/kernels/attention.hpp"
#include "pare/model/model_backend.hpp"
#include "support.hpp"

namespace test {

using ids_t = std::vector<std::int32_t>;

template <class T>
Matrix<T> random_matrix(index_t rows, index_t cols, unsigned seed, double scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, scale);
  Matrix<T> m(rows, cols);
  for (index_t i = 0; i < m.size(); ++i) m.data()[i] = T(float(normal(engine)));
  return m;
}

template <class T>
Matrix<double> widen(const Matrix<T>& m) {
  Matrix<double> out(m.rows(), m.cols());
  for (index_t i = 0; i < m.size(); ++i) out.data()[i] = double(m.data()[i]);
  return out;
}

/// Largest |a - b|; infinity when shapes differ or a value is not finite.
template <class A, class B>
double distance(MatrixView<const A> a, MatrixView<const B> b) {
  if (a.rows != b.rows || a.cols != b.cols) return INFINITY;
  double worst = 0;
  for (index_t r = 0; r < a.rows; ++r)
    for (index_t c = 0; c < a.cols; ++c) {
      const double d = std::abs(double(a(r, c)) - double(b(r, c)));
      if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
    }
  return worst;
}
template <class A, class B>
double distance(const Matrix<A>& a, const Matrix<B>& b) {
  return distance(a.view(), b.view());
}

template <class T>
constexpr double rounding = std::is_same_v<T, float> ? 2e-5 : 1e-12;

/// The pairs of `Backends` and 16-bit types that a model can be stored in.
template <class B, class S>
using CaseIfStored =
    std::conditional_t<pare::ModelBackend<B, S>, std::tuple<Case<B, S>>, std::tuple<>>;
template <class Backends>
struct StoredCases;
template <class... B>
struct StoredCases<std::tuple<B...>> {
  using type = decltype(std::tuple_cat(CaseIfStored<B, pare::float16>{}...,
                                       CaseIfStored<B, pare::bfloat16>{}...));
};
using Stored = StoredCases<Backends>::type;

/// Largest relative error of rounding to S.
template <class S>
constexpr double half_step = std::is_same_v<S, pare::float16> ? 0x1p-11 : 0x1p-8;

/// What a result must overwrite: NaN everywhere.
template <class T>
Matrix<T> undefined(index_t rows, index_t cols) {
  Matrix<T> m(rows, cols);
  m.fill(T(std::numeric_limits<float>::quiet_NaN()));
  return m;
}

/// Attention with as many key-value heads as query heads, side by side, the usual scale.
inline pare::kernels::AttentionShape plain_attention(index_t heads, index_t head_dim,
                                                     index_t seqlen) {
  return {.heads = heads,
          .kv_heads = heads,
          .head_dim = head_dim,
          .seqlen = seqlen,
          .q_step = head_dim,
          .kv_step = head_dim,
          .scale = 1 / std::sqrt(double(head_dim))};
}

}  // namespace test
