// Turns the rows of matrices, and a Hessian, by a randomised Hadamard transform.
#pragma once

#include <cstdint>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/kernels/elements.hpp"
#include "pare/kernels/hadamard.hpp"
#include "pare/kernels/matrices.hpp"

namespace pare::inline PARE_TARGET {

/// Which way rows are turned.
enum class Turn : std::uint8_t {
  forth,  ///< Y = X R^T: inputs, and the weights that multiply them
  back,   ///< Y = X R: weights as they were
};

/// Y = X R^T, or X R: every row of X times R, or times its inverse, in the backend's memory. A
/// backend may have the operation of its own, `rotate_rows(Y, X, rotation, back)`. Rows of 16-bit
/// types turn in float.
/// @param X         (rows, in), each row one input or the weights of one output
/// @param Y         (rows, in); may be X
/// @param rotation  R (in, in)
/// @param turn      by R or by its inverse
/// @throws shape_error when the shapes differ, argument_error for views that cannot be used
template <class B, class T>
void rotate_rows(MatrixView<const T> X, MatrixView<T> Y, const kernels::HadamardRotation& rotation,
                 Turn turn = Turn::forth) {
  require_view("rotate_rows: X", X);
  require_view("rotate_rows: Y", Y);
  require_shape("rotate_rows: Y", {X.rows, X.cols}, {Y.rows, Y.cols});
  if constexpr (requires { B::template rotate_rows<T>(Y, X, rotation, turn == Turn::back); }) {
    B::template rotate_rows<T>(Y, X, rotation, turn == Turn::back);
  } else if constexpr (is_storage_only<T>) {
    typename B::template matrix<float> wide;  // (rows, in)
    wide.resize(X.rows, X.cols);
    convert<B>(X, wide.view());
    rotate_rows<B, float>(detail::as_const(wide.view()), wide.view(), rotation, turn);
    convert<B>(detail::as_const(wide.view()), Y);
  } else {
    const kernels::RotateBlock<T> block{X, Y, rotation, turn == Turn::back};
    B::for_each_row(block.count(), block);
  }
}

/// H = R H R^T in place, symmetric to the bit: the Hessian of inputs that are turned.
/// @param H         (in, in), symmetric, in the backend's memory
/// @param rotation  R (in, in)
/// @throws shape_error unless it is square, argument_error for a view that cannot be used
template <class B, class T>
void rotate_hessian(MatrixView<T> H, const kernels::HadamardRotation& rotation) {
  require_view("rotate_hessian: H", H);
  require_shape("rotate_hessian: H", {H.rows, H.rows}, {H.rows, H.cols});
  typename B::template matrix<T> other(H.rows, H.cols);
  const MatrixView<T> G = other.view();
  rotate_rows<B, T>(detail::as_const(H), H, rotation);  // H R^T
  B::for_each_element(H.rows, H.cols, kernels::TransposeElement<T>{detail::as_const(H), G});
  rotate_rows<B, T>(detail::as_const(G), G, rotation);  // R H R^T
  B::for_each_element(H.rows, H.cols, kernels::MeanOfTransposes<T>{detail::as_const(G), H});
}

}  // namespace pare
