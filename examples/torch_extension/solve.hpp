// What Python calls: the solver on tensors of PyTorch, on any backend.
#pragma once

#include <torch/extension.h>

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "pare/pipeline/dispatch.hpp"

namespace torch_pare {

using pare::index_t;

/// "(2, 3)". Without streams: a compiler that links its own standard library into the extension has
/// others than PyTorch has.
inline std::string text_of(torch::IntArrayRef numbers) {
  std::string text;
  for (const std::int64_t n : numbers) text += (text.empty() ? "(" : ", ") + std::to_string(n);
  return text.empty() ? "()" : text + ")";
}

/// pare's view of a float32 matrix of PyTorch: nothing is copied.
/// Throws argument_error naming `what` for another type, device, number of sides or layout.
inline pare::MatrixView<const float> view_of(const std::string& what, const torch::Tensor& A,
                                             torch::DeviceType device) {
  if (A.dim() != 2 || A.scalar_type() != torch::kFloat32 || A.device().type() != device ||
      (A.size(1) > 1 && A.stride(1) != 1) || (A.size(0) > 1 && A.stride(0) < A.size(1)))
    throw pare::argument_error(what + ": expected a float32 matrix with rows side by side on " +
                               torch::DeviceTypeName(device) + ", got " + A.toString() +
                               " of shape " + text_of(A.sizes()) + " and strides " +
                               text_of(A.strides()));
  const index_t rows = A.size(0), columns = A.size(1);
  return {A.data_ptr<float>(), rows, columns, rows > 1 ? index_t(A.stride(0)) : columns};
}

/// What a solve returns. Q and mask are the solver's own memory, which lives as long as they do.
struct Solved {
  torch::Tensor Q, mask;  // (out, in) float32, uint8
  std::vector<int> bits;  ///< width per channel, empty when nothing was rounded
  double loss, damping;
  int retries;
};

/// H of one linear, gathered batch by batch, and the solves it serves.
/// @tparam Wait  called when work was queued that PyTorch must not overtake
template <class B, torch::DeviceType Device, auto Wait>
class Linear {
 public:
  explicit Linear(index_t in_features) : calibration_(in_features) {}

  void add(const torch::Tensor& X, index_t sequences) {
    calibration_.add(view_of("X (tokens, in)", X, Device), sequences);
    Wait();
  }

  /// @param W  (out, in); the numbers are those of SolverOptions
  Solved solve(const torch::Tensor& W, std::optional<double> sparsity, int zeros, int of,
               std::optional<int> bits, bool symmetric, bool clip_search,
               std::optional<double> target_average_bits, bool act_order, index_t block_size,
               double damping, index_t group_size, bool compensated_groups) {
    pare::CompressionRequest request;
    request.solver = {.axis = pare::ChannelAxis::output,
                      .grid = {.symmetric = symmetric, .clip_search = clip_search},
                      .group_size = group_size,
                      .group_fit =
                          compensated_groups ? pare::GroupFit::compensated : pare::GroupFit::dense,
                      .damping = damping,
                      .block_size = block_size,
                      .act_order = act_order};
    if (of > 0) {
      request.solver.zeros = zeros;
      request.solver.of = of;
    } else {
      request.solver.sparsity = sparsity;
    }
    request.solver.bits = bits;
    if (target_average_bits) request.policy = pare::PolicyKind::budget;
    request.solver.target_average_bits = target_average_bits;
    return pare::dispatch(request, [&]<class Config>(std::type_identity<Config>) {
      pare::SparseGPTSolver<Config, B, float> solver(request.solver);
      auto linear = std::make_shared<pare::CompressedLinear<B, float>>(
          solver.solve(view_of("W (out, in)", W, Device), calibration_));
      Wait();
      const auto adopt = [&](auto view, torch::ScalarType type) {
        return torch::from_blob(
            view.data, {view.rows, view.cols}, {view.stride, 1}, [linear](void*) {},
            torch::dtype(type).device(W.device()));
      };
      return Solved{adopt(linear->weights.view(), torch::kFloat32),
                    adopt(linear->mask.view(), torch::kUInt8),
                    {linear->bits.begin(), linear->bits.end()},
                    linear->loss,
                    linear->damping,
                    linear->damping_retries};
    });
  }

 private:
  pare::Calibration<B, float> calibration_;
};

/// Binds Linear and Solved into a module.
template <class B, torch::DeviceType Device, auto Wait>
void bind(pybind11::module_& m) {
  namespace py = pybind11;
  py::register_exception<pare::argument_error>(m, "ArgumentError", PyExc_ValueError);
  py::class_<Solved>(m, "Solved", py::module_local())  // both modules have it
      .def_readonly("Q", &Solved::Q)
      .def_readonly("mask", &Solved::mask)
      .def_readonly("bits", &Solved::bits)
      .def_readonly("loss", &Solved::loss)
      .def_readonly("damping", &Solved::damping)
      .def_readonly("retries", &Solved::retries);
  using Bound = Linear<B, Device, Wait>;
  using Free = py::call_guard<py::gil_scoped_release>;
  py::class_<Bound>(m, "Linear")
      .def(py::init<index_t>())
      .def("add", &Bound::add, py::arg("X"), py::arg("sequences"), Free())
      .def("solve", &Bound::solve, py::arg("W"), py::arg("sparsity"), py::arg("zeros"),
           py::arg("of"), py::arg("bits"), py::arg("symmetric"), py::arg("clip_search"),
           py::arg("target_average_bits"), py::arg("act_order"), py::arg("block_size"),
           py::arg("damping"), py::arg("group_size") = 0, py::arg("compensated_groups") = false,
           Free());
}

}  // namespace torch_pare
