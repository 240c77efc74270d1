// Holds packed linears against the model they were made from: counts, grids and losses anew.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "pare/pipeline/compress.hpp"
#include "pare/storage/packed_file.hpp"

namespace pare::inline PARE_TARGET {

/// What a compression recorded of one linear that its recomputation needs.
struct RecordedLinear {
  double damping = 0;  ///< share of mean(diag H) in force
  /// Half the sum of squared compensated errors.
  double loss = 0;
};

/// What was found of one packed linear.
struct RecomputedLinear {
  LinearStatistics statistics;  ///< the loss is 0 where it was not recomputed
  bool mask_stored = false;     ///< otherwise pruned weights cannot be told from rounded ones
  bool loss_agrees = true;      ///< with the recorded one, up to rounding
};

/// The linear that a packed one was made from: weights on their grids, not yet rounded to the
/// checkpoint's type where they are quantized; the mask, or what is zero where none is stored.
template <class B, class T>
CompressedLinear<B, T> restored_linear(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  const index_t rows = layout.rows, cols = layout.columns;
  CompressedLinear<B, T> linear;
  PackedLinear on_grid = packed;
  if (layout.quantized()) on_grid.dtype = DType::f32;
  Matrix<T> weights(rows, cols);
  unpack_rows(on_grid, 0, weights.view());
  Matrix<std::uint8_t> mask(rows, cols);
  index_t pruned = 0;
  for (index_t i = 0; i < rows; ++i) {
    detail::read_mask_row(packed, i, mask.view().row(i));
    for (index_t j = 0; j < cols; ++j) {
      if (packed.kind == PackedMask::none) mask(i, j) = weights(i, j) == T(0);
      pruned += mask(i, j);
    }
  }
  linear.weights = B::from_host(detail::as_const(weights.view()));
  linear.mask = B::from_host(detail::as_const(mask.view()));
  linear.axis = layout.axis;
  if (packed.kind == PackedMask::n_of_m) {
    linear.pattern = layout.pattern;
  } else if (packed.kind == PackedMask::bits) {
    linear.pattern = unstructured(double(pruned) / double(rows * cols));
  }
  if (!layout.quantized()) return linear;

  linear.group_size = layout.group_size;
  for (index_t c = 0; c < layout.channels(); ++c)
    linear.bits.push_back(layout.widths[layout.widths.size() == 1 ? 0 : std::size_t(c)]);
  linear.mixed_widths = layout.widths.size() > 1;
  const index_t grids = packed.grids.grids();
  Matrix<T> scale(grids, rows), zero(grids, rows), top(grids, rows);
  for (index_t g = 0; g < grids; ++g)
    for (index_t i = 0; i < rows; ++i) {
      const std::size_t k = std::size_t(g * rows + i);
      const int width = packed.grids.width_of(g, i, layout.widths);
      scale(g, i) = T(half_to_float(packed.scales[k]));
      zero(g, i) = T(packed.zeros[k]);
      top(g, i) = T((1 << width) - 1);
    }
  linear.grids.scale = B::from_host(detail::as_const(scale.view()));
  linear.grids.zero = B::from_host(detail::as_const(zero.view()));
  linear.grids.top = B::from_host(detail::as_const(top.view()));
  linear.grids.of_column = packed.grids.of_column;
  return linear;
}

namespace detail {

/// "Compresses" every linear to the packed one and computes what that loses.
/// @tparam S  what the model is stored in
template <class B, class S>
struct RecomputeWork {
  using T = compute_scalar<S>;
  std::function<PackedLinear(const std::string& name)> read;
  const std::map<std::string, RecordedLinear>& recorded;
  double damping;                ///< asked for
  std::set<std::string> turned;  ///< linears whose inputs are rotated
  std::map<std::string, RecomputedLinear> found = {};

  bool rotated(const std::string& name) const { return turned.contains(name); }
  Pattern pattern(const std::string&) const { return {}; }
  Factor<B, T> prepare(const std::string&, const Calibration<B, T>& calibration) const {
    return factorize(calibration, {.damping = damping, .order = {}});
  }
  std::vector<CompressedLinear<B, T>> solve(std::span<const LinearToSolve<T>> linears,
                                            const Calibration<B, T>& calibration,
                                            const Factor<B, T>& factor) {
    std::vector<CompressedLinear<B, T>> restored;
    for (const LinearToSolve<T>& linear : linears)
      restored.push_back(in_context(linear.name, [&] {
        return restore(linear.name, linear.weights, calibration, factor);
      }));
    return restored;
  }

 private:
  CompressedLinear<B, T> restore(const std::string& name, MatrixView<const T> W,
                                 const Calibration<B, T>& calibration, const Factor<B, T>& factor) {
    const PackedLinear packed = read(name);
    require_shape("packed weights", {W.rows, W.cols}, {packed.layout.rows, packed.layout.columns});
    CompressedLinear<B, T> linear = restored_linear<B, T>(packed);
    const RecordedLinear& record = recorded.at(name);
    // The damping may have been raised for one order of inputs and not for another.
    const double added = record.damping * factor.mean_diagonal;
    const auto form_of = [&](MatrixView<const T> Q) {
      return closed_loss<B, T>(W, Q, calibration, factor, added, W.rows, 1, record.loss);
    };
    // Values that were only pruned are kept with the checkpoint's digits.
    const bool short_values = !packed.layout.quantized() && dtype_bytes(packed.dtype) == 2;
    const double tolerance = short_values ? 1e-2 : scalar_traits<T>::tolerance;
    LossForm form = form_of(linear.weights.view());
    if (!form.agrees(record.loss, tolerance)) {  // of the weights as they are stored, perhaps
      typename B::template matrix<T> stored;     // (out, in)
      stored.resize(W.rows, W.cols);
      B::copy(as_const(linear.weights.view()), stored.view());
      if (packed.rotation) turn_weights<B, T>(stored, *packed.rotation, Turn::back);
      B::for_each_element(W.rows, W.cols, kernels::RoundStored<T, S>{stored.view(), packed.dtype});
      if (packed.rotation) turn_weights<B, T>(stored, *packed.rotation, Turn::forth);
      form = form_of(as_const(stored.view()));
    }
    RecomputedLinear& result = found[name];
    result.mask_stored = packed.kind != PackedMask::none;
    result.loss_agrees = form.agrees(record.loss, tolerance);
    linear.loss = form.value();
    linear.damping = record.damping;
    return linear;
  }
};

/// Post-conditions 2 to 5 of a restored linear, as far as it can be told.
template <class B, class T>
LinearStatistics recounted(const std::string& name, const CompressedLinear<B, T>& linear,
                           const PackedLinear& packed) {
  LinearStatistics statistics;
  in_context(name, [&] {
    const auto widths = verify_grids(linear, linear.weights.rows(), linear.weights.cols(),
                                     packed.layout.quantized());
    verify_rows(linear, start_rows(linear, widths).get());
    statistics = linear_statistics(name, linear, packed.layout.value_bits);
  });
  return statistics;
}

}  // namespace detail

/// Counts the packed linears of a model anew and, when it can, computes their losses: with the text
/// that the compression was calibrated on, or with options.magnitude, which needs none. The model
/// is dense and is compressed on the way, so that each linear is calibrated after those before it
/// as it was then.
/// @param model     the original in the backend's memory
/// @param file      the packed file
/// @param windows   the calibration text; empty: losses are not computed
/// @param options   those of the compression; of solver only damping is read
/// @param recorded  what it reported, by linear
/// @param progress  what is told while it runs
/// @return          one entry per packed linear, in the order of compression
/// @throws what compress_model throws; invariant_error when a weight lies on no grid or n:m does not
///         hold
template <class M>
std::vector<RecomputedLinear> recompute_packed(
    M& model, const PackedFile& file, const CalibrationWindows& windows,
    const ModelCompressionOptions& options, const std::map<std::string, RecordedLinear>& recorded,
    const CompressionProgress& progress = {}) {
  using B = typename M::backend_type;
  using S = typename M::scalar_type;
  using T = compute_scalar<S>;
  std::map<std::string, std::string> tensors;  // by the linear's name
  std::set<std::string> turned;
  std::vector<RecomputedLinear> result;
  for (const auto& layer : model.layers)
    for (const auto* linear : layer.linears()) tensors[linear->name] = linear->tensor;
  const auto read = [&](const std::string& name) {
    const PackedEntry* entry = file.find(tensors.at(name));
    if (entry == nullptr)
      throw argument_error(name + ": expected a packed linear, the file has none");
    if (!recorded.contains(name))
      throw argument_error(name + ": expected a record of its compression, there is none");
    return file.read(*entry);
  };
  for (const auto& layer : model.layers)
    for (const auto* linear : layer.linears()) {
      if (file.find(linear->tensor) == nullptr) continue;
      const PackedLinear packed = read(linear->name);
      if (packed.rotation) turned.insert(linear->name);
      RecomputedLinear entry;
      entry.statistics = detail::recounted(linear->name, restored_linear<B, T>(packed), packed);
      entry.mask_stored = packed.kind != PackedMask::none;
      result.push_back(std::move(entry));
    }
  if (windows.count() == 0 && !options.magnitude) return result;
  detail::RecomputeWork<B, S> work{read, recorded, options.solver.damping, std::move(turned)};
  LayerStream<M> stream = layers_in_memory(model);
  const Statistics statistics = detail::compress_layers(model, stream, windows, options, progress,
                                                        detail::linear_work<B, T>(work));
  std::map<std::string, double> losses;
  for (const LinearStatistics& linear : statistics.linears) losses[linear.name] = linear.loss;
  for (RecomputedLinear& entry : result) {
    const auto found = work.found.find(entry.statistics.name);
    if (found == work.found.end())
      throw argument_error(entry.statistics.name + ": is packed and was not selected");
    entry.loss_agrees = found->second.loss_agrees;
    entry.statistics.loss = losses.at(entry.statistics.name);
  }
  return result;
}

}  // namespace pare
