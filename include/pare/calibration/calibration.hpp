// Calibration: what the solver needs to know of a linear's inputs, gathered from activations.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "pare/core/matrix_argument.hpp"
#include "pare/kernels/hessian.hpp"
#include "pare/kernels/matrices.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Whether Given is a view of 16-bit numbers S that B stores and computes with in T.
template <class B, class T, class S, class Given>
inline constexpr bool takes_narrow = false;
template <class B, class T, class S, class Given>
  requires is_storage_only<S>
inline constexpr bool takes_narrow<B, T, S, Given> =
    std::same_as<compute_scalar<S>, T> && stores_scalar<B, S> &&
    std::convertible_to<const Given&, MatrixView<const S>>;

/// Whether B leaves what is below the diagonal of a sum of X^T X for later.
template <class B, class T, class S>
concept MirrorsLater = requires(MatrixView<T> G, MatrixView<const S> X) {
  B::gram_accumulate_upper(G, X);
  B::mirror_upper(G);
};

}  // namespace detail

/// Per-input moments over all calibration tokens, each vector (in).
struct InputMoments {
  std::vector<double> mean_abs;  ///< E|x_j|
  std::vector<double> mean;      ///< E[x_j]
  std::vector<double> variance;  ///< population variance
};

/// Streams activations of one linear: H = (2/n) sum x x^T and per-input moments, in one pass.
///
/// Moments of batches are merged pairwise (Chan, Golub & LeVeque 1979), so neither the number nor
/// the size of batches matters.
template <class B, class T>
class Calibration {
  static_assert(detail::check_backend<B, T>());

 public:
  /// Where it computes.
  using backend_type = B;
  /// What it computes in.
  using scalar_type = T;

  /// @param in_features  inputs of the linear, >= 1
  /// @throws argument_error for fewer
  explicit Calibration(index_t in_features) {
    if (in_features < 1)
      throw argument_error("in_features: expected at least 1, got " + std::to_string(in_features));
    gram_ = detail::zeros<B, T>(in_features, in_features);
    moments_ = detail::zeros<B, double>(3, in_features);
    batch_moments_ = detail::zeros<B, double>(3, in_features);
  }

  /// A calibration of which only H is known: means are taken as zero, E|x| as the normal's.
  /// @param given  H (in, in), symmetric, finite, diagonal >= 0, in the backend's memory
  /// @throws shape_error unless it is square, non_finite_error with the index, argument_error for
  ///         one that is not symmetric or has a negative diagonal
  static Calibration from_hessian(MatrixArgument<T> given) {
    const MatrixView<const T> hessian = given;
    if (hessian.rows != hessian.cols)
      throw shape_error("H: expected a square matrix, got shape " +
                        shape_text(hessian.rows, hessian.cols));
    Calibration result(hessian.rows);
    require_finite<B, T>("H", hessian);
    B::copy(hessian, result.gram_.view());
    result.hessian_only_ = true;
    result.require_symmetric();
    return result;
  }

  /// Adds a batch of activations.
  /// @param X          (tokens, in), a view of T or a matrix that turns into one, in the backend's
  ///                   memory; any number of tokens. Also of 16 bits, where the backend stores such
  ///                   numbers; products and sums are in T.
  /// @param sequences  how many sequences the batch holds, >= 1
  /// @throws shape_error, argument_error, non_finite_error with the index; then nothing is added
  template <class Activations = MatrixView<const T>>
  void add(const Activations& X, index_t sequences = 1) {
    using S = typename detail::ElementOf<Activations>::type;
    if constexpr (detail::takes_narrow<B, T, S, Activations>)
      add_batch(MatrixView<const S>(X), sequences);
    else if constexpr (detail::check_matrix<Activations, T>())
      add_batch(MatrixView<const T>(X), sequences);
  }

  /// Adds all that another calibration of the same inputs has seen.
  /// @throws shape_error for other inputs, argument_error when only H is known of one of the two
  void merge(const Calibration& other) {
    if (hessian_only_ || other.hessian_only_)
      throw argument_error("calibration: built from H alone, cannot be merged");
    require_shape("calibration to merge (in, in)", {in_features(), in_features()},
                  {other.in_features(), other.in_features()});
    if (other.tokens_ == 0) return;
    const MatrixView<T> into = gram_.view();
    const MatrixView<const T> from = other.gram();
    B::for_each_element(into.rows, into.cols, kernels::AddElement<T>{into, from});
    merge_moments(other.moments_.view(), other.tokens_);
    sequences_ += other.sequences_;
  }

  /// Inputs of the linear.
  index_t in_features() const { return gram_.rows(); }
  /// Tokens seen so far.
  index_t tokens() const { return tokens_; }
  /// Sequences seen so far, the n of H.
  index_t sequences() const { return sequences_; }
  /// Whether H was given and activations were never seen.
  bool hessian_only() const { return hessian_only_; }

  /// sum x x^T (in, in), or H itself when only H is known; H = hessian_scale() * gram(). Though
  /// const, the first call after a batch may write to the matrix: two threads must not make it at the same
  /// time.
  /// @return in the backend's memory, valid until the next add() or merge()
  MatrixView<const T> gram() const {
    if constexpr (detail::MirrorsLater<B, T, T>)
      if (std::exchange(upper_only_, false)) B::mirror_upper(gram_.view());
    return gram_.view();
  }
  /// 2 / sequences, or 1 when only H is known.
  /// @throws argument_error when nothing was added
  double hessian_scale() const {
    require_data();
    return hessian_only_ ? 1.0 : 2.0 / double(sequences_);
  }
  /// H (in, in), in host memory.
  /// @throws argument_error when nothing was added
  Matrix<T> hessian() const {
    Matrix<T> H = B::to_host(gram());
    const T scale = T(hessian_scale());
    for (index_t i = 0; i < H.size(); ++i) H.data()[i] *= scale;
    return H;
  }
  /// diag(H), (in).
  /// @throws argument_error when nothing was added
  std::vector<double> hessian_diagonal() const {
    const double scale = hessian_scale();
    typename B::template matrix<double> diagonal(1, in_features());
    B::for_each_row(in_features(), kernels::TakeDiagonal<T>{gram(), diagonal.view(), scale});
    const Matrix<double> host = B::to_host(MatrixView<const double>(diagonal.view()));
    return {host.data(), host.data() + host.size()};
  }

  /// Moments of the inputs. Where only H is known the mean is 0, the variance H_jj (in the unknown
  /// unit of H) and E|x_j| = sqrt(2 H_jj / pi).
  /// @throws argument_error when nothing was added
  InputMoments moments() const {
    require_data();
    const std::size_t n = std::size_t(in_features());
    if (hessian_only_) {
      InputMoments m{std::vector<double>(n), std::vector<double>(n), hessian_diagonal()};
      for (std::size_t j = 0; j < n; ++j)
        m.mean_abs[j] = std::sqrt(2 / std::numbers::pi * m.variance[j]);
      return m;
    }
    const Matrix<double> m = B::to_host(MatrixView<const double>(moments_.view()));
    InputMoments result{{m.view().row(0), m.view().row(0) + n},
                        {m.view().row(1), m.view().row(1) + n},
                        {m.view().row(2), m.view().row(2) + n}};
    for (double& v : result.variance) v /= double(tokens_);
    return result;
  }

 private:
  template <class S>
  void add_batch(MatrixView<const S> X, index_t sequences) {
    if (hessian_only_)
      throw argument_error("calibration: built from H alone, activations cannot be added");
    require_shape("X (tokens, in)", {X.rows, in_features()}, {X.rows, X.cols});
    if (X.rows < 1)
      throw shape_error("X (tokens, in): expected at least one token, got shape " +
                        shape_text(X.rows, X.cols));
    if (sequences < 1)
      throw argument_error("sequences: expected at least 1, got " + std::to_string(sequences));
    require_view("X (tokens, in)", X);
    B::column_moments(X, batch_moments_.view());
    // A mean |x| is finite only where all numbers are; one of huge numbers need not be.
    if (B::find_non_finite(
            MatrixView<const double>(batch_moments_.view()).block(0, 0, 1, in_features())) >= 0)
      require_finite<B, S>("X (tokens, in)", X);
    if constexpr (detail::MirrorsLater<B, T, S>) {
      B::gram_accumulate_upper(gram_.view(), X);
      upper_only_ = true;
    } else {
      B::gram_accumulate(gram_.view(), X);
    }
    merge_moments(batch_moments_.view(), X.rows);
    sequences_ += sequences;
  }

  void merge_moments(MatrixView<const double> from, index_t tokens) {
    B::for_each_row(in_features(),
                    kernels::MergeMoments{moments_.view(), from, double(tokens_), double(tokens)});
    tokens_ += tokens;
  }

  void require_data() const {
    if (!hessian_only_ && tokens_ == 0)
      throw argument_error("calibration: expected at least one batch of activations, got none");
  }

  /// Checks H as given by a caller: symmetric to rounding, no negative diagonal.
  void require_symmetric() const {
    const MatrixView<const T> H = gram();
    auto first = detail::zeros<B, std::int64_t>(1, H.rows);
    B::reduce_rows(H.rows, kernels::AsymmetricColumn<T>{H, first.view()});
    const Matrix<std::int64_t> wrong = B::to_host(detail::as_const(first.view()));
    const auto value = [&](index_t r, index_t c) {
      return std::to_string(B::to_host(H.block(r, c, 1, 1))(0, 0));
    };
    for (index_t r = 0; r < H.rows; ++r) {
      const index_t c = index_t(wrong(0, r));
      if (c < 0)
        throw argument_error("H: expected a diagonal >= 0, got " + value(r, r) + " at " +
                             shape_text(r, r));
      if (c < r)
        throw argument_error("H: expected a symmetric matrix, got " + value(r, c) + " at " +
                             shape_text(r, c) + " and " + value(c, r) + " at " + shape_text(c, r));
    }
  }

  mutable typename B::template matrix<T> gram_;  // (in, in)
  mutable bool upper_only_ = false;              // what is below the diagonal of gram_ is not valid
  typename B::template matrix<double> moments_, batch_moments_;  // (3, in)
  index_t tokens_ = 0, sequences_ = 0;
  bool hessian_only_ = false;
};

}  // namespace pare
