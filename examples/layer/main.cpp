// pare-layer: compresses one linear layer from a safetensors file.
#include <cstring>
#include <filesystem>

#include "common/compression_options.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/pipeline/layer.hpp"
#include "pare/storage/safetensors.hpp"

namespace {

using B = pare::backend::Eigen;

template <class V>
std::vector<std::byte> bytes_of(const V& values) {
  const auto raw = std::as_bytes(std::span(values));
  return {raw.begin(), raw.end()};
}

std::span<const float> span_of(const pare::Matrix<float>& m) {
  return {m.data(), std::size_t(m.size())};
}

pare::Calibration<B, float> read_calibration(const pare::SafetensorsFile& file,
                                             pare::index_t sequences) {
  if (file.find("H") != nullptr) {
    const pare::Matrix<float> H = file.read_float("H");  // (in, in)
    return pare::Calibration<B, float>::from_hessian(H.view());
  }
  if (file.find("X") == nullptr)
    throw pare::argument_error("expected a tensor H (in, in) or X (tokens, in), found neither");
  const pare::Matrix<float> X = file.read_float("X");  // (tokens, in)
  pare::Calibration<B, float> calibration(X.cols());
  calibration.add(X.view(), sequences);
  return calibration;
}

void write_layer(const std::string& path, const pare::CompressedLayer<B, float>& layer) {
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
  pare::index_t sequences = 1;
  bool json = false;
  app.add_option("IN", input, "safetensors with W (out, in) and H (in, in) or X (tokens, in)")
      ->required();
  app.add_option("OUT", output, "safetensors to write: Q, mask, bits, scale, zero, grid, loss")
      ->required();
  tool::add_solver_options(app, flags);
  tool::add_bit_options(app, flags);
  app.add_option("--sequences", sequences, "sequences in X; scales H and the loss")
      ->capture_default_str();
  app.add_flag("--json", json, "statistics as JSON");
  if (const auto code = tool::parse(app, argc, argv)) return *code;

  return tool::run("pare-layer", [&] {
    const pare::CompressionRequest request = tool::checked(flags);
    if (sequences < 1)
      throw tool::usage_error("--sequences " + std::to_string(sequences) +
                              ": expected at least 1");
    const pare::SafetensorsFile file(input);
    const pare::Matrix<float> W = file.read_float("W");  // (out, in)
    pare::Statistics statistics;
    pare::dispatch(request, [&]<class Config>(std::type_identity<Config>) {
      const auto layer = naming(input, [&] {
        const auto calibration = read_calibration(file, sequences);
        pare::SparseGPTSolver<Config, B, float> solver(request.solver);
        return solver.solve(W.view(), calibration);
      });
      const int dense_bits = 8 * pare::element_bytes(file.at("W").dtype);
      statistics.layers.push_back(pare::layer_statistics("W", layer, dense_bits));
      pare::require_counted(statistics, request.quantize);
      write_layer(output, layer);
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
