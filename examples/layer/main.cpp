// pare-layer: compresses one linear layer from a safetensors file.
#include <cstring>

#include "common/compression_options.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/pipeline/layer.hpp"
#include "pare/storage/safetensors.hpp"

namespace {

using B = pare::backend::Eigen;
using pare::index_t;

template <class V>
std::vector<std::byte> bytes_of(const V& values) {
  const auto raw = std::as_bytes(std::span(values));
  return {raw.begin(), raw.end()};
}

std::span<const float> span_of(const pare::Matrix<float>& m) {
  return {m.data(), std::size_t(m.size())};
}

/// The shape in which SafetensorsFile::read_float gives a tensor, from the header alone.
std::pair<index_t, index_t> shape_of(const pare::SafetensorsFile& file, const char* name) {
  const pare::TensorInfo& info = file.at(name);
  const std::size_t rank = info.shape.size();
  if (!pare::float_dtype(info.dtype) || rank < 1 || rank > 2)
    throw pare::format_error(file.path().string() + ": tensor '" + name + "' is " + info.dtype +
                             " of rank " + std::to_string(rank) +
                             "; expected F16, BF16, F32 or F64 of rank 1 or 2");
  return {rank == 1 ? 1 : info.shape[0], info.shape[rank - 1]};
}

/// Checks all that the header of IN tells, before any tensor is read.
void check_header(const pare::SafetensorsFile& file, const pare::CompressionRequest& request,
                  std::optional<index_t> sequences) {
  const std::string name = file.path().string();
  const auto [out, in] = shape_of(file, "W");
  const std::string W = "W " + pare::shape_text(out, in);
  if (out < 1 || in < 1)
    throw pare::format_error(name + ": " + W + " is empty; expected at least one row and column");
  tool::require_whole_groups(request, W, in);
  if (file.find("H") != nullptr) {
    const auto [rows, columns] = shape_of(file, "H");
    if (rows != in || columns != in)
      throw pare::format_error(name + ": H " + pare::shape_text(rows, columns) + " does not fit " +
                               W + "; expected the square " + pare::shape_text(in, in));
    if (sequences)
      throw tool::usage_error("--sequences " + std::to_string(*sequences) +
                              ": it scales what X gives, and " + name + " holds H; leave it out");
    return;
  }
  if (file.find("X") == nullptr)
    throw pare::format_error(name +
                             ": neither H (in, in) nor X (tokens, in) is there; expected one of "
                             "them to calibrate on");
  const auto [tokens, columns] = shape_of(file, "X");
  if (tokens < 1 || columns != in)
    throw pare::format_error(name + ": X " + pare::shape_text(tokens, columns) + " does not fit " +
                             W + "; expected " + std::to_string(in) +
                             " columns and at least one token");
}

pare::Calibration<B, float> read_calibration(const pare::SafetensorsFile& file, index_t sequences) {
  if (file.find("H") != nullptr) {
    const pare::Matrix<float> H = file.read_float("H");  // (in, in)
    return pare::Calibration<B, float>::from_hessian(H.view());
  }
  const pare::Matrix<float> X = file.read_float("X");  // (tokens, in)
  pare::Calibration<B, float> calibration(X.cols());
  calibration.add(X.view(), sequences);
  return calibration;
}

void write_layer(const tool::fs::path& path, const pare::CompressedLayer<B, float>& layer) {
  const std::int64_t out = layer.weights.rows(), in = layer.weights.cols();
  std::vector<pare::TensorData> tensors;
  const std::span<const std::uint8_t> mask(layer.mask.data(), std::size_t(layer.mask.size()));
  tensors.push_back({"Q", "F32", {out, in}, bytes_of(span_of(layer.weights))});
  tensors.push_back({"mask", "U8", {out, in}, bytes_of(mask)});
  if (layer.quantized()) {
    // One grid per row reads as a vector; one per row and tier as (grids, out).
    const std::int64_t grids = layer.grids.scale.rows();
    const std::vector<std::int64_t> shape =
        grids == 1 ? std::vector{out} : std::vector{grids, out};
    tensors.push_back(
        {"bits", "U8", {std::int64_t(layer.bits.size())}, bytes_of(layer.bits)});
    tensors.push_back({"scale", "F32", shape, bytes_of(span_of(layer.grids.scale))});
    tensors.push_back({"zero", "F32", shape, bytes_of(span_of(layer.grids.zero))});
    tensors.push_back({"grid", "I32", {in}, bytes_of(layer.grids.of_column)});
  }
  const std::vector<float> loss{float(layer.loss)};
  tensors.push_back({"loss", "F32", {1}, bytes_of(loss)});
  pare::write_safetensors(path, tensors);
}

/// Prefixes messages about the file's content with the file's name.
template <class F>
auto naming(const std::string& file, const F& f) {
  try {
    return f();
  } catch (const pare::argument_error& e) {
    throw pare::format_error(file + ": " + e.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Prunes and quantizes one linear layer.", "pare-layer"};
  std::string input, output;
  tool::CompressionFlags flags;
  std::optional<index_t> sequences;
  bool json = false;
  tool::add_argument(app, "IN", input,
                     "safetensors with W (out, in) and H (in, in) or X (tokens, in)");
  tool::add_argument(app, "OUT", output,
                     "safetensors to write: Q, mask, bits, scale, zero, grid, loss");
  tool::add_solver_options(app, flags);
  tool::add_bit_options(app, flags);
  tool::add_value(app, "--sequences", sequences,
                  "sequences in X; scales H and the loss (default: 1)");
  tool::add_flag(app, "--json", json, "statistics as JSON");

  return tool::run("pare-layer", [&] {
    if (!tool::parse(app, argc, argv)) return;
    const pare::CompressionRequest request = tool::checked(flags);
    if (sequences && *sequences < 1)
      throw tool::usage_error("--sequences " + std::to_string(*sequences) +
                              ": X holds at least one sequence; write 1 or more");
    const tool::fs::path target = tool::writable_file("OUT", output);
    const pare::SafetensorsFile file(input);
    check_header(file, request, sequences);
    const pare::Matrix<float> W = file.read_float("W");  // (out, in)
    pare::Statistics statistics;
    pare::dispatch(request, [&]<class Config>(std::type_identity<Config>) {
      const auto layer = naming(input, [&] {
        const auto calibration = read_calibration(file, sequences.value_or(1));
        pare::SparseGPTSolver<Config, B, float> solver(request.solver);
        return solver.solve(W.view(), calibration);
      });
      const int dense_bits = 8 * pare::element_bytes(file.at("W").dtype);
      statistics.layers.push_back(pare::layer_statistics("W", layer, dense_bits));
      pare::require_counted(statistics, request.quantize);
      write_layer(target, layer);
    });
    if (json) {
      pare::Json report = pare::to_json(statistics);
      report["config"] = tool::to_json(request);
      std::cout << report.dump(2) << "\n";
    } else {
      if (!request.quantize) std::cout << "quantization is off (no --wbits)\n";
      std::cout << pare::statistics_text(statistics);
    }
  });
}
