// The factor U of the inverse Hessian.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pare/calibration/calibration.hpp"

namespace pare::inline PARE_TARGET {

/// How a Hessian is factored.
struct FactorOptions {
  /// Share of mean(diag H) added to the diagonal, >= 0; dead inputs do not enter the mean.
  double damping = 0.01;
  std::vector<index_t> order = {};  ///< column visited at each position; empty: as they come
};

/// Inverses of the H that a factor is of, scaled to unit diagonal, with multiples of the identity
/// added: what searches for masks need. Linears that share the factor share them; several threads
/// may ask at the same time.
template <class B, class T>
class ShiftedInverses {
 public:
  /// One inverse (in, in).
  using Inverse = std::shared_ptr<const typename B::template matrix<T>>;
  /// Bytes of inverses that are kept; of the largest Hessians none is.
  static constexpr double kept_bytes = double(index_t{1} << 30);

  /// The inverse with `shift` added.
  /// @param shift  multiple of the identity
  /// @param make   called as make() for the matrix where it is not there yet
  template <class Make>
  Inverse of(double shift, const Make& make) {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [made, inverse] : kept_)
        if (made == shift) return inverse;
    }
    Inverse inverse = std::make_shared<const typename B::template matrix<T>>(make());
    const double n = double(inverse->rows());
    const std::lock_guard lock(mutex_);
    if (double(kept_.size() + 1) * n * n * double(sizeof(T)) <= kept_bytes) {
      // With an element on the host all work on it is done, whichever thread uses it.
      B::to_host(MatrixView<const T>(inverse->view()).block(0, 0, 1, 1));
      kept_.emplace_back(shift, inverse);
    }
    return inverse;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<double, Inverse>> kept_;
};

/// Upper triangular U with inv(H + damping) = U^T U, and what became of H on the way.
template <class B, class T>
struct Factor {
  typename B::template matrix<T> upper;  // (in, in), in visit order
  std::vector<double> upper_diagonal;    ///< U_jj by position in the visit order
  std::vector<double> hessian_diagonal;  ///< H_jj by input, dead inputs set to 1, no damping
  std::vector<std::uint8_t> dead;        ///< 1 where H_jj = 0, by input; none when all are
  bool identity = false;                 ///< every H_jj is 0: H is taken as the identity
  std::vector<index_t> order;            ///< input visited at each position
  double mean_diagonal = 0;              ///< mean H_jj of the inputs that are not dead
  double damping = 0;                    ///< share of mean_diagonal in force
  double added = 0;                      ///< what was added to the diagonal: their product
  int retries = 0;                       ///< how often the damping was raised
  /// None until a solver that searches for masks has prepared the factor; copies share them.
  std::shared_ptr<ShiftedInverses<B, T>> inverses = {};

  /// Inputs of the linear.
  index_t in_features() const { return index_t(order.size()); }
};

namespace detail {

/// The positions 0 .. n - 1.
inline std::vector<index_t> natural_order(index_t n) {
  std::vector<index_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), index_t{0});
  return order;
}

inline void require_permutation(const std::vector<index_t>& order, index_t n) {
  std::vector<std::uint8_t> seen(std::size_t(n), 0);
  bool good = index_t(order.size()) == n;
  for (std::size_t p = 0; good && p < order.size(); ++p)
    good = order[p] >= 0 && order[p] < n && seen[std::size_t(order[p])]++ == 0;
  if (!good) throw argument_error("order: expected a permutation of 0.." + std::to_string(n - 1));
}

/// Whether any input counts as dead.
template <class B, class T>
bool has_dead_inputs(const Factor<B, T>& factor) {
  return std::find(factor.dead.begin(), factor.dead.end(), 1) != factor.dead.end();
}

/// What is left of W (out, in) where inputs are dead: their weights are zero. So they take no part
/// in a grid, which holds zero anyway, nor in a score. W itself where none is dead.
/// @param room  where the result lies then
template <class B, class T>
MatrixView<const T> live_weights(MatrixView<const T> W, const Factor<B, T>& factor,
                                 typename B::template matrix<T>& room) {
  if (!has_dead_inputs(factor)) return W;
  room.resize(W.rows, W.cols);
  const auto dead = to_backend<B>(factor.dead);
  B::for_each_element(W.rows, W.cols, kernels::LiveWeights<T>{W, room.view(), dead.view().data});
  return as_const(room.view());
}

/// A factor that is still being computed; see factorize(). Keeps a reference to the calibration.
template <class B, class T>
class StartedFactor {
  using Succeeded = decltype(start_inverse_factor<B, T>(MatrixView<T>()));

 public:
  /// Starts the factorisation.
  /// @param diagonal  that of H, (in)
  /// @throws argument_error for a bad damping or order, non_finite_error when H overflowed
  StartedFactor(const Calibration<B, T>& calibration, const FactorOptions& options,
                std::vector<double>&& diagonal)
      : calibration_(calibration), asked_(options.damping) {
    if (!(options.damping >= 0 && options.damping <= 1))
      throw argument_error("damping: expected a number within 0..1, got " +
                           std::to_string(options.damping));
    const index_t n = calibration.in_features();
    factor_.order = options.order.empty() ? natural_order(n) : options.order;
    require_permutation(factor_.order, n);
    factor_.hessian_diagonal = std::move(diagonal);
    find_dead();
    factor_.upper = typename B::template matrix<T>(n, n);
    order_ = to_backend<B>(factor_.order);
    diagonal_ = to_backend<B>(factor_.hessian_diagonal);
    factor_.damping = options.damping;
    start();
    if constexpr (is_known<Succeeded>) finish();
  }

  /// The factor. U, damping, added and retries are final when finish() has returned, and only then
  /// upper_diagonal is there.
  const Factor<B, T>& so_far() const { return factor_; }

  /// Waits for the factor; when it failed, computes it again with more damping. Does nothing when called
  /// again.
  /// @return whether U is another one than before the call
  /// @throws factorization_error when the ladder ends
  bool finish() {
    if (!succeeded_) return false;
    const int retries = factor_.retries;
    while (!succeeded_->get()) {
      if (factor_.damping >= 1)
        throw factorization_error(
            "Hessian " + shape_text(factor_.in_features(), factor_.in_features()) +
            ": not positive definite even with damping 1, after " +
            std::to_string(factor_.retries) + " retries from damping " + std::to_string(asked_));
      factor_.damping = factor_.damping == 0 ? 0.001 : std::min(1.0, 10 * factor_.damping);
      ++factor_.retries;
      start();
    }
    const Matrix<double>& u = upper_diagonal_->get();
    factor_.upper_diagonal.assign(u.data(), u.data() + u.size());
    succeeded_.reset();
    return factor_.retries > retries;
  }

  /// The factor, finished.
  Factor<B, T> take() && {
    finish();
    return std::move(factor_);
  }

 private:
  /// Dead inputs get H_jj = 1; when all are dead, none counts as such.
  void find_dead() {
    std::vector<double>& diagonal = factor_.hessian_diagonal;
    const std::size_t n = diagonal.size();
    factor_.dead.assign(n, 0);
    std::size_t live = 0;
    for (std::size_t j = 0; j < n; ++j) {
      // Twice: the damping may add as much again.
      if (!(2 * diagonal[j] <= double(std::numeric_limits<T>::max())))
        throw non_finite_error("H: the activations of input " + std::to_string(j) +
                                   " overflow the scalar type when squared",
                               index_t(j), index_t(j));
      factor_.dead[j] = diagonal[j] == 0;
      live += factor_.dead[j] == 0;
    }
    factor_.identity = live == 0;
    for (std::size_t j = 0; j < n; ++j) {
      if (factor_.dead[j] != 0) diagonal[j] = 1;
      if (factor_.identity) factor_.dead[j] = 0;
      if (factor_.dead[j] == 0)
        factor_.mean_diagonal += diagonal[j] / double(factor_.identity ? n : live);
    }
  }

  void start() {
    const index_t n = factor_.in_features();
    factor_.added = factor_.damping * factor_.mean_diagonal;
    B::for_each_element(n, n,
                        kernels::DampedHessian<T>{calibration_.gram(), factor_.upper.view(),
                                                  order_.view().data, diagonal_.view().data,
                                                  calibration_.hessian_scale(), factor_.added});
    succeeded_.emplace(start_inverse_factor<B, T>(factor_.upper.view()));
    typename B::template matrix<double> u(1, n);
    B::for_each_row(n, kernels::TakeDiagonal<T>{factor_.upper.view(), u.view()});
    upper_diagonal_.emplace(start_to_host<B>(as_const(u.view())));
  }

  const Calibration<B, T>& calibration_;
  double asked_;  // the damping asked for
  Factor<B, T> factor_;
  typename B::template matrix<index_t> order_;
  typename B::template matrix<double> diagonal_;
  std::optional<Succeeded> succeeded_;
  std::optional<decltype(start_to_host<B>(MatrixView<const double>()))> upper_diagonal_;
};

}  // namespace detail

/// Factors the damped Hessian: with H = R R^T, R upper triangular, U = inv(R).
///
/// One Cholesky factorisation (from the last column to the first) and one triangular inverse;
/// inv(H) is never formed. Dead inputs get H_jj = 1; where all are dead, nothing is known of the
/// inputs, H is the identity and no input counts as dead. When the factorisation fails it is
/// retried with ten times the damping (0.001 after 0), up to 1; every retry is in the result.
/// @throws factorization_error when the ladder ends, argument_error for a bad damping or order,
///         non_finite_error when H overflowed
/// Source: Frantar & Alistarh 2023 (SparseGPT) for the role of U.
template <class B, class T>
Factor<B, T> factorize(const Calibration<B, T>& calibration, const FactorOptions& options = {}) {
  return detail::StartedFactor<B, T>(calibration, options, calibration.hessian_diagonal()).take();
}

}  // namespace pare
