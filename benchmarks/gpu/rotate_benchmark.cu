// Times the rotation of a batch of rows on the GPU beside a copy of as many bytes, as JSON.
//
//   rotate_benchmark [results.json]
//
// Both read and write every number once; `share` is the rotation's bandwidth over the copy's.
#include <cstdio>
#include <string>

#include "pare/kernels/rotate.hpp"
#include "timing.cuh"

namespace {

using namespace bench;

std::FILE* json = stdout;

template <class S>
void measure(const char* type, index_t rows, index_t cols, const char* before) {
  gpu::DeviceMatrix<float> normal(rows, cols);
  Cuda::for_each_element(rows, cols, FillWeights{normal.view()});
  gpu::DeviceMatrix<S> X(rows, cols), Y(rows, cols);
  pare::convert<Cuda>(pare::detail::as_const(normal.view()), X.view());
  const MatrixView<const S> from = pare::detail::as_const(X.view());
  const pare::kernels::HadamardRotation rotation{1};
  const double copied = time_ms([&] { Cuda::copy(from, Y.view()); });
  const double turned = time_ms([&] { pare::rotate_rows<Cuda, S>(from, Y.view(), rotation); });
  const double gigabytes = 2e-9 * double(sizeof(S)) * double(rows) * double(cols);
  std::fprintf(json,
               "%s{\"type\": \"%s\", \"rows\": %td, \"cols\": %td, \"copy_ms\": %.4g, "
               "\"rotate_ms\": %.4g, \"rotate_gb_per_s\": %.4g, \"share\": %.3f}",
               before, type, rows, cols, copied, turned, gigabytes / (turned * 1e-3),
               copied / turned);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) json = std::fopen(argv[1], "w");
  if (json == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
    return 1;
  }
  const char* before = "[\n ";
  for (const index_t cols : {576, 1536, 2048, 4096, 11008, 16384}) {
    const index_t rows = (index_t{1} << 28) / cols;
    measure<float>("float32", rows, cols, before);
    before = ",\n ";
    measure<pare::bfloat16>("bfloat16", rows, cols, before);
  }
  std::fprintf(json, "\n]\n");
  if (json != stdout) return std::fclose(json) == 0 ? 0 : 1;
  return 0;
}
