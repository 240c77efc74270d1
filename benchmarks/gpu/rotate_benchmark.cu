// Times the rotation of a batch of rows on the GPU beside a copy of as many bytes, as JSON.
//
//   rotate_benchmark [results.json]
//
// All read and write every number once; `share` is the rotation's bandwidth over the copy's. The
// sizes are those of real models.
#include <cstdio>
#include <exception>

#include "pare/kernels/rotate.hpp"
#include "timing.cuh"

namespace {

using namespace bench;

std::FILE* json = stdout;

template <class S>
void measure(const char* type, index_t rows, index_t cols, bool first) {
  gpu::DeviceMatrix<S> X(rows, cols), Y(rows, cols);
  {
    gpu::DeviceMatrix<float> normal(rows, cols);
    Cuda::for_each_element(rows, cols, FillWeights{normal.view()});
    pare::convert<Cuda>(pare::detail::as_const(normal.view()), X.view());
  }
  const MatrixView<const S> from = pare::detail::as_const(X.view());
  const pare::kernels::HadamardRotation rotation{1};
  const auto turned = [&](pare::Turn turn) {
    return time_ms([&] { pare::rotate_rows<Cuda, S>(from, Y.view(), rotation, turn); });
  };
  const double copied = time_ms([&] { Cuda::copy(from, Y.view()); });
  const double forth = turned(pare::Turn::forth), back = turned(pare::Turn::back);
  const double gigabytes = 2e-9 * double(sizeof(S)) * double(rows) * double(cols);
  std::fprintf(json,
               "%s\n    {\"type\": \"%s\", \"rows\": %td, \"cols\": %td, \"block\": %td, "
               "\"copy_ms\": %.4g, \"copy_gb_per_s\": %.4g, \"rotate_ms\": %.4g, \"share\": %.3f, "
               "\"back_ms\": %.4g, \"back_share\": %.3f}",
               first ? "" : ",", type, rows, cols, pare::kernels::HadamardRotation::block(cols),
               copied, gigabytes / (copied * 1e-3), forth, copied / forth, back, copied / back);
}

void run() {
  cudaDeviceProp device;
  gpu::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  std::fprintf(json, "{\n  \"device\": \"%s\",\n  \"rotations\": [", device.name);
  bool first = true;
  for (const index_t cols :
       {576, 768, 1536, 2048, 3072, 4096, 5632, 8192, 11008, 12288, 14336, 16384}) {
    const index_t rows = (index_t{1} << 28) / cols;
    measure<float>("float32", rows, cols, first);
    measure<pare::bfloat16>("bfloat16", rows, cols, false);
    first = false;
  }
  std::fprintf(json, "\n  ]\n}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) json = std::fopen(argv[1], "w");
  if (json == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
    return 1;
  }
  try {
    run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return json != stdout && std::fclose(json) != 0;
}
