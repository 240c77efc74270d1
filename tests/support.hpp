// What the tests share: type lists, reproducible data, conversions and an independent oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "files.hpp"
#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
#include "pare/core/scalar.hpp"
#include "random.hpp"
#include PARE_TEST_BACKENDS

namespace test {

using pare::index_t;
using pare::Matrix;
using pare::MatrixView;

/// A test runs over the pairs of Backends and Scalars that model Backend. The build compiles it
/// once for every file of backends/, which says what Backends is.
#if defined(PARE_TEST_FLOAT_ALONE)
using Scalars = std::tuple<float>;
#else
using Scalars = std::tuple<float, double>;
#endif

template <class B, class T>
struct Case {
  using backend = B;
  using scalar = T;
};

template <class B, class T>
using CaseIfSupported =
    std::conditional_t<pare::Backend<B, T>, std::tuple<Case<B, T>>, std::tuple<>>;

template <class Backends, class Scalars>
struct ProductOf;
template <class... B, class... T>
struct ProductOf<std::tuple<B...>, std::tuple<T...>> {
  template <class One>
  using row = decltype(std::tuple_cat(CaseIfSupported<One, T>{}...));
  using type = decltype(std::tuple_cat(row<B>{}...));
};

using Cases = ProductOf<Backends, Scalars>::type;
using FloatCases = ProductOf<Backends, std::tuple<float>>::type;

/// What results are compared with.
using Oracle = pare::backend::Reference;

template <class T>
inline constexpr double tolerance = pare::scalar_traits<T>::tolerance;

/// |a - b| relative to the larger of both; 0 when both are 0.
inline double relative_difference(double a, double b) {
  const double size = std::max(std::abs(a), std::abs(b));
  return size == 0 ? 0 : std::abs(a - b) / size;
}

template <class T>
Matrix<T> random_normal(index_t rows, index_t cols, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  Matrix<T> m(rows, cols);
  for (index_t i = 0; i < m.size(); ++i) m.data()[i] = T(scale * random.normal());
  return m;
}

/// Activations (tokens, in) = Z mixing + mean: every input is its own noise plus four shared
/// factors, and inputs have different sizes, so that H is far from diagonal.
template <class T>
Matrix<T> correlated_activations(index_t tokens, index_t in, std::uint64_t seed, double mean = 0) {
  constexpr index_t factors = 4;
  Random random(seed);
  std::vector<double> mixing(std::size_t(in * factors)), size(static_cast<std::size_t>(in));
  for (double& m : mixing) m = 0.5 * random.normal();
  for (double& s : size) s = 0.3 + 1.5 * random.uniform();
  Matrix<T> X(tokens, in);
  for (index_t t = 0; t < tokens; ++t) {
    double shared[factors];
    for (double& z : shared) z = random.normal();
    for (index_t j = 0; j < in; ++j) {
      double x = 0.6 * random.normal();
      for (index_t f = 0; f < factors; ++f) x += shared[f] * mixing[std::size_t(j * factors + f)];
      X(t, j) = T(mean + size[std::size_t(j)] * x);
    }
  }
  return X;
}

/// A symmetric positive definite H (n, n), far from diagonal, without activations behind it.
template <class T>
Matrix<T> correlated_hessian(index_t n, std::uint64_t seed) {
  constexpr index_t factors = 6;
  const Matrix<double> A = random_normal<double>(n, factors, seed);
  Random random(seed + 1000);
  Matrix<T> H(n, n);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j) {
      double sum = i == j ? 0.5 + random.uniform() : 0;
      for (index_t f = 0; f < factors; ++f) sum += 0.4 * A(i, f) * A(j, f);
      H(i, j) = H(j, i) = T(sum);
    }
  return H;
}

template <class T>
std::vector<double> doubles(const Matrix<T>& m) {
  return {m.data(), m.data() + m.size()};
}

template <class T, class From>
Matrix<T> cast(const Matrix<From>& m) {
  Matrix<T> result(m.rows(), m.cols());
  std::copy_n(m.data(), m.size(), result.data());
  return result;
}

/// A copy where the backend computes.
template <class B, class T>
auto upload(const Matrix<T>& m) {
  return B::from_host(MatrixView<const T>(m.view()));
}

/// A copy in host memory of what a backend's matrix holds.
template <class B, class Owner>
auto download(const Owner& m) {
  return B::to_host(m.view());
}

template <class T>
bool same_bytes(const Matrix<T>& a, const Matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(T)) == 0;
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// What f throws, as text; empty when it throws no E.
template <class E, class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return {};
}

// The oracle: SparseGPT as published, in plain loops on float64, without a header of pare.

struct PublishedOptions {
  double sparsity = 0;           ///< unstructured share, 0 without
  int zeros = 0, of = 0;         ///< n:m, 0 without
  std::vector<int> row_bits;     ///< width per output; both empty: nothing is rounded
  std::vector<int> column_bits;  ///< width per input: one grid per row and width
  bool symmetric = false, clip_search = false;
  double damping = 0.01;
  std::size_t block_size = 128;
  std::vector<std::ptrdiff_t> order;     ///< input visited at each position; empty: as they come
  std::vector<std::uint8_t> given = {};  ///< (rows, n), not 0 where a weight must be zero
  std::size_t group_size = 0;            ///< inputs of one width that share a grid; 0: all of them
  bool compensated = false;              ///< fit the grids of groups when the sweep reaches them
};

struct PublishedResult {
  std::vector<double> weights;      ///< (out, in), by input
  std::vector<std::uint8_t> mask;   ///< (out, in), by input
  std::vector<double> scale, zero;  ///< (out, in): the grid of every weight
  std::vector<double> row_loss;     ///< (out)
  double loss = 0;
};

/// L lower triangular with L L^T = A (n, n).
inline std::vector<double> lower_cholesky(std::vector<double> A, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) A[j * n + j] -= A[j * n + k] * A[j * n + k];
    A[j * n + j] = std::sqrt(A[j * n + j]);
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) A[i * n + j] -= A[i * n + k] * A[j * n + k];
      A[i * n + j] /= A[j * n + j];
    }
    for (std::size_t i = 0; i < j; ++i) A[i * n + j] = 0;
  }
  return A;
}

/// inv(A) of a symmetric positive definite A (n, n), formed explicitly.
inline std::vector<double> explicit_inverse(const std::vector<double>& A, std::size_t n) {
  const std::vector<double> L = lower_cholesky(A, n);
  std::vector<double> V(n * n, 0.0), result(n * n, 0.0);  // V = inv(L)
  for (std::size_t j = 0; j < n; ++j) {
    V[j * n + j] = 1 / L[j * n + j];
    for (std::size_t i = j + 1; i < n; ++i) {
      double sum = 0;
      for (std::size_t k = j; k < i; ++k) sum += L[i * n + k] * V[k * n + j];
      V[i * n + j] = -sum / L[i * n + i];
    }
  }
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t i = 0; i <= k; ++i)
      for (std::size_t j = 0; j <= k; ++j) result[i * n + j] += V[k * n + i] * V[k * n + j];
  return result;
}

/// Whether input j is dead: H_jj = 0, and that of another is not. Where all are 0 nothing is known of
/// the inputs, and H is the identity.
inline bool is_dead(const std::vector<double>& H, std::size_t n, std::size_t j) {
  bool any_live = false;
  for (std::size_t k = 0; k < n; ++k) any_live |= H[k * n + k] != 0;
  return any_live && H[j * n + j] == 0;
}

/// H with H_jj = 1 where it is 0, and damping times its mean over the live inputs added; rows and
/// columns in visit order.
inline std::vector<double> damped(const std::vector<double>& H, std::size_t n, double damping,
                                  const std::vector<std::ptrdiff_t>& order) {
  std::vector<double> diagonal(n);
  double mean = 0, live = 0;
  for (std::size_t j = 0; j < n; ++j) {
    diagonal[j] = H[j * n + j] == 0 ? 1 : H[j * n + j];
    if (is_dead(H, n, j)) continue;
    mean += diagonal[j];
    ++live;
  }
  mean /= live;
  std::vector<double> A(n * n);
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t c = 0; c < n; ++c) {
      const std::size_t i = order.empty() ? r : std::size_t(order[r]);
      const std::size_t j = order.empty() ? c : std::size_t(order[c]);
      A[r * n + c] = i == j ? diagonal[i] + damping * mean : H[i * n + j];
    }
  return A;
}

/// U upper triangular with inv(H + damping) = U^T U, the published way: Cholesky, inverse,
/// Cholesky.
inline std::vector<double> published_factor(const std::vector<double>& H, std::size_t n,
                                            double damping,
                                            const std::vector<std::ptrdiff_t>& order = {}) {
  const std::vector<double> L =
      lower_cholesky(explicit_inverse(damped(H, n, damping, order), n), n);
  std::vector<double> U(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) U[j * n + i] = L[i * n + j];
  return U;
}

struct PublishedGrid {
  double scale = 1, zero = 0, top = 3;
  double round(double w) const {
    const double code = std::min(top, std::max(0.0, std::nearbyint(w / scale) + zero));
    return scale * (code - zero);
  }
};

/// @param steps  ranges that the clip search tries
inline PublishedGrid published_grid(const std::vector<double>& weights, int bits, bool symmetric,
                                    bool clip_search, int steps = 80) {
  double low = 0, high = 0;
  for (const double w : weights) {
    low = std::min(low, w);
    high = std::max(high, w);
  }
  if (symmetric) {
    high = std::max(high, -low);
    low = -high;
  }
  if (low == 0 && high == 0) {
    low = -1;
    high = 1;
  }
  const double top = std::pow(2, bits) - 1;
  const auto grid_at = [&](double p) {
    PublishedGrid grid;
    grid.top = top;
    grid.scale = p * (high - low) / top;
    grid.zero = symmetric ? std::pow(2, bits - 1) : std::nearbyint(-p * low / grid.scale);
    return grid;
  };
  PublishedGrid best = grid_at(1);
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; clip_search && i < steps; ++i) {
    const PublishedGrid grid = grid_at(1 - 0.8 * double(i) / steps);
    double error = 0;
    for (const double w : weights) error += std::pow(std::abs(grid.round(w) - w), 2.4);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

/// SparseGPT of W (rows, n) with H (n, n), straight from the formulas. Unlike the published code, an
/// input with H_jj = 0 enters neither a grid nor the mean that damping is a share of.
inline PublishedResult published_sparsegpt(const std::vector<double>& W,
                                           const std::vector<double>& H,
                                           const PublishedOptions& options) {
  const auto n = std::size_t(std::llround(std::sqrt(double(H.size()))));
  const std::size_t rows = W.size() / n;
  std::vector<std::ptrdiff_t> order = options.order;
  if (order.empty())
    for (std::size_t j = 0; j < n; ++j) order.push_back(std::ptrdiff_t(j));
  const auto input = [&](std::size_t p) { return std::size_t(order[p]); };
  const std::vector<double> U = published_factor(H, n, options.damping, order);
  const bool quantize = !options.row_bits.empty() || !options.column_bits.empty();
  std::vector<bool> dead(n);
  for (std::size_t j = 0; j < n; ++j) dead[j] = is_dead(H, n, j);

  const auto must_be_zero = [&](std::size_t i, std::size_t j) {
    return !options.given.empty() && options.given[i * n + j] != 0;
  };

  PublishedResult result;
  result.weights.assign(rows * n, 0);
  result.mask.assign(rows * n, 0);
  result.row_loss.assign(rows, 0);
  const bool by_row = options.column_bits.empty();
  // Width and group of each input, and the grid of every weight, fitted to row-major weights.
  std::vector<std::pair<int, std::size_t>> on(n);
  for (std::size_t j = 0; j < n; ++j) {
    std::size_t before = 0;
    on[j].first = by_row ? 0 : options.column_bits[j];
    for (std::size_t k = 0; k < j; ++k) before += on[k].first == on[j].first;
    on[j].second = options.group_size == 0 ? 0 : before / options.group_size;
  }
  std::vector<PublishedGrid> grids(rows * n);
  const auto fit = [&](std::size_t i, std::size_t j, const std::vector<double>& weights) {
    std::vector<double> members;
    for (std::size_t k = 0; k < n; ++k)
      if (!dead[k] && on[k] == on[j]) members.push_back(weights[i * n + k]);
    const PublishedGrid grid =
        published_grid(members, by_row ? options.row_bits[i] : options.column_bits[j],
                       options.symmetric, options.clip_search, options.group_size == 0 ? 80 : 40);
    for (std::size_t k = 0; k < n; ++k)
      if (on[k] == on[j]) grids[i * n + k] = grid;
  };
  for (std::size_t j = 0; quantize && j < n; ++j)
    if (std::find(on.begin(), on.begin() + std::ptrdiff_t(j), on[j]) ==
        on.begin() + std::ptrdiff_t(j))
      for (std::size_t i = 0; i < rows; ++i) fit(i, j, W);

  std::vector<double> current(rows * n);
  std::vector<std::uint8_t> mask(rows * n, 0);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t p = 0; p < n; ++p)
      current[i * n + p] = dead[input(p)] ? 0 : W[i * n + input(p)];
  const auto score = [&](std::size_t i, std::size_t p) {
    return std::abs(current[i * n + p]) / U[p * n + p];
  };
  for (std::size_t p = 0; p < n; ++p) {
    if (options.of == 0 && p % options.block_size == 0) {
      const std::size_t end = std::min(n, p + options.block_size);
      std::vector<std::tuple<double, std::size_t>> scores;
      const auto count = std::size_t(options.sparsity * double(rows * (end - p)) + 1e-6);
      std::size_t given = 0;
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t k = p; k < end; ++k) {
          mask[i * n + k] = must_be_zero(i, input(k));
          given += mask[i * n + k];
          if (mask[i * n + k] == 0) scores.emplace_back(score(i, k), i * n + k);
        }
      std::sort(scores.begin(), scores.end());
      for (std::size_t k = 0; k + given < count; ++k) mask[std::get<1>(scores[k])] = 1;
    }
    if (options.of > 0 && p % std::size_t(options.of) == 0)
      for (std::size_t i = 0; i < rows; ++i) {
        std::vector<std::tuple<double, std::size_t>> scores;
        for (std::size_t k = p; k < p + std::size_t(options.of); ++k)
          scores.emplace_back(must_be_zero(i, input(k)) ? -1 : score(i, k), i * n + k);
        std::sort(scores.begin(), scores.end());
        for (std::size_t k = 0; k < std::size_t(options.zeros); ++k)
          mask[std::get<1>(scores[k])] = 1;
        for (std::size_t k = p; k < p + std::size_t(options.of); ++k)
          if (must_be_zero(i, input(k))) mask[i * n + k] = 1;
      }
    if (options.compensated && p % options.group_size == 0)
      for (std::size_t i = 0; i < rows; ++i) fit(i, p, current);
    for (std::size_t i = 0; i < rows; ++i) {
      const double w = current[i * n + p];
      double q = mask[i * n + p] != 0 ? 0 : w;
      if (quantize) q = grids[i * n + input(p)].round(q);
      const double error = (w - q) / U[p * n + p];
      result.row_loss[i] += 0.5 * error * error;
      current[i * n + p] = q;
      for (std::size_t k = p + 1; k < n; ++k) current[i * n + k] -= error * U[p * n + k];
    }
  }
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t p = 0; p < n; ++p) {
      result.weights[i * n + input(p)] = current[i * n + p];
      result.mask[i * n + input(p)] = mask[i * n + p];
    }
  result.loss = std::accumulate(result.row_loss.begin(), result.row_loss.end(), 0.0);
  for (const PublishedGrid& grid : grids) {
    result.scale.push_back(grid.scale);
    result.zero.push_back(grid.zero);
  }
  return result;
}

/// 1/2 d_i (H + damping) d_i^T of every row, d = W - Q with dead inputs of W zeroed.
inline std::vector<double> closed_form_loss(const std::vector<double>& W,
                                            const std::vector<double>& Q,
                                            const std::vector<double>& H, double damping) {
  const auto n = std::size_t(std::llround(std::sqrt(double(H.size()))));
  const std::vector<double> A = damped(H, n, damping, {});
  std::vector<double> loss(W.size() / n), d(n), product(n);
  std::vector<bool> dead(n);
  for (std::size_t j = 0; j < n; ++j) dead[j] = is_dead(H, n, j);
  for (std::size_t i = 0; i < loss.size(); ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      d[j] = (dead[j] ? 0 : W[i * n + j]) - Q[i * n + j];
      product[j] = 0;
    }
    for (std::size_t k = 0; k < n; ++k) {
      const double* a = A.data() + k * n;
      for (std::size_t j = 0; j < n; ++j) product[j] += d[k] * a[j];
    }
    for (std::size_t j = 0; j < n; ++j) loss[i] += 0.5 * d[j] * product[j];
  }
  return loss;
}

}  // namespace test
