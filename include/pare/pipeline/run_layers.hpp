// Decoder layers and calibration states as a RunFolder keeps them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/core/text.hpp"
#include "pare/pipeline/layer_stream.hpp"
#include "pare/pipeline/run_folder.hpp"
#include "pare/storage/packed_writer.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Rows of states that are written and read together: 64 MiB of them at most, one at least.
template <class S>
index_t state_rows(index_t columns) {
  constexpr index_t bytes = index_t{1} << 26;
  return std::max<index_t>(1, bytes / std::max<index_t>(1, columns * index_t(sizeof(S))));
}

inline std::string state_name(const char* what, index_t piece) {
  char number[32];
  std::snprintf(number, sizeof number, ".%05jd", std::intmax_t(piece));
  return what + std::string(number);
}

template <class M>
std::span<const std::byte> bytes_of_matrix(const M& matrix) {
  return std::as_bytes(std::span(matrix.data(), std::size_t(matrix.size())));
}

}  // namespace detail

/// The compressed weights of a layer in the checkpoint's types, and packed beside them what is in
/// `packed`. Valid as long as the arguments.
/// @param layer       the layer, compressed
/// @param statistics  of the linears that were compressed
/// @param packed      of its linears, by tensor; may be empty
template <class B, class S, class Layer>
RunFolder::Tensors layer_tensors(const Layer& layer, std::span<const LinearStatistics> statistics,
                                 const PackedLinears& packed) {
  RunFolder::Tensors tensors;
  std::vector<const Linear<B, S>*> dense;
  for (const auto* linear : layer.linears())
    for (const LinearStatistics& s : statistics)
      if (s.name == linear->name) {
        dense.push_back(linear);
        std::vector<std::int64_t> shape{linear->weight.rows(), linear->weight.cols()};
        if (linear->transposed) std::swap(shape[0], shape[1]);
        tensors.infos.push_back({linear->tensor, dtype_name(linear->dtype), std::move(shape)});
      }
  std::vector<PackedParts> parts;  // of every tensor behind the dense ones
  for (const auto& [tensor, linear] : packed) {
    const PackedParts of_linear = parts_of(tensor, linear);
    for (const TensorInfo& info : of_linear.infos) {
      tensors.infos.push_back(info);
      parts.push_back(of_linear);
    }
  }
  if (!packed.empty()) tensors.metadata = parts_metadata(packed);
  const auto buffer = std::make_shared<std::vector<std::byte>>();
  tensors.bytes = [dense, parts, buffer, infos = tensors.infos](std::size_t i) {
    if (i >= dense.size()) return parts[i - dense.size()].bytes(infos[i]);
    *buffer = detail::stored_weights(*dense[i]);
    return std::span<const std::byte>(*buffer);
  };
  return tensors;
}

/// The states in pieces. Valid as long as they.
template <class B, class S>
RunFolder::Tensors state_tensors(const CalibrationStates<B, S>& states) {
  struct Piece {
    const typename B::template matrix<S>* of;
    index_t first, rows;
  };
  RunFolder::Tensors tensors;
  std::vector<Piece> pieces;
  const auto add = [&](const char* what, const typename B::template matrix<S>& all) {
    const index_t step = detail::state_rows<S>(all.cols());
    for (index_t first = 0; first < all.rows(); first += step) {
      const index_t rows = std::min(step, all.rows() - first);
      pieces.push_back({&all, first, rows});
      tensors.infos.push_back({detail::state_name(what, first / step),
                               dtype_name(scalar_traits<S>::dtype),
                               {rows, all.cols()}});
    }
  };
  add("hidden", states.hidden);
  add("dense", states.dense_hidden);
  const auto buffer = std::make_shared<Matrix<S>>();
  tensors.bytes = [pieces, buffer](std::size_t i) {
    const Piece& piece = pieces[i];
    *buffer = B::to_host(
        detail::as_const(piece.of->view()).block(piece.first, 0, piece.rows, piece.of->cols()));
    return detail::bytes_of_matrix(*buffer);
  };
  return tensors;
}

/// Reads them back.
/// @param file           what write_safetensors made of state_tensors
/// @param rows, columns  of the states, (windows * seqlen, hidden)
/// @param asymmetric     whether the dense model's states are there too
/// @throws format_error when the file holds others
template <class B, class S>
CalibrationStates<B, S> read_states(const TensorFile& file, index_t rows, index_t columns,
                                    bool asymmetric) {
  const auto read = [&](const char* what) {
    typename B::template matrix<S> all(rows, columns);
    const index_t step = detail::state_rows<S>(columns);
    for (index_t first = 0; first < rows; first += step) {
      const index_t count = std::min(step, rows - first);
      const TensorInfo& info = file.at(detail::state_name(what, first / step));
      if (info.dtype != dtype_name(scalar_traits<S>::dtype) ||
          info.shape != std::vector<std::int64_t>{count, columns})
        throw format_error(file.path().string() + ": tensor " + detail::quoted_name(info.name) +
                           ": expected " + dtype_name(scalar_traits<S>::dtype) + " of shape " +
                           shape_text(count, columns) + ", got " + info.dtype);
      Matrix<S> host(count, columns);
      const auto bytes = file.bytes(info);
      std::memcpy(host.data(), bytes.data(), bytes.size());
      file.release(info);
      const auto moved = B::from_host(detail::as_const(host.view()));
      B::copy(moved.view(), all.view().block(first, 0, count, columns));
    }
    return all;
  };
  CalibrationStates<B, S> states{read("hidden"), {}};
  if (asymmetric) states.dense_hidden = read("dense");
  return states;
}

}  // namespace pare
