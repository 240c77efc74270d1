// The linears of a checkpoint without any model: read, compressed with a Hessian that comes from
// elsewhere, packed, and written as a packed file that holds everything else as it was.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "pare/backend/eigen.hpp"
#include "pare/pare.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/pipeline/pack.hpp"
#include "pare/report/text.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/packed_writer.hpp"
#include "pare/storage/safetensors.hpp"

using namespace pare;

namespace {

using Cores = backend::Eigen;

// [hessian]
/// H of the inputs of a linear, (in, in): here from a file with a tensor for each linear that was
/// measured, and the identity, which rounds to nearest, for the others.
Calibration<Cores, float> calibration_of(const std::optional<SafetensorsFile>& hessians,
                                         const std::string& tensor, index_t in) {
  if (hessians && hessians->find(tensor) != nullptr)
    return Calibration<Cores, float>::from_hessian(hessians->read_float(tensor));
  Matrix<float> identity(in, in);
  for (index_t j = 0; j < in; ++j) identity(j, j) = 1;
  return Calibration<Cores, float>::from_hessian(identity);
}
// [hessian]

// [compress]
/// Compresses every matrix of `source` whose name ends like `suffix` and writes the packed file.
Statistics compress_linears(const std::filesystem::path& source, const std::string& suffix,
                            const std::optional<SafetensorsFile>& hessians,
                            const std::filesystem::path& result) {
  // A packed file holds scales as float16: with half_scale the solver rounds on exactly these grids.
  SparseGPTSolver<Compression<NofM<2, 4>, BaseQuantizer>, Cores, float> solver(
      {.bits = 4, .grid = {.half_scale = true}});
  const Checkpoint checkpoint(source);
  PackedLinears packed;
  Statistics statistics;
  for (const TensorFile& file : checkpoint.files())
    for (const TensorInfo& info : file.tensors()) {
      if (!info.name.ends_with(suffix) || info.shape.size() != 2) continue;
      const Matrix<float> W = file.read_float(info.name);  // (out, in)
      const auto linear = solver.solve(W, calibration_of(hessians, info.name, W.cols()));
      const DType dtype = *float_dtype(info.dtype);
      packed.emplace(info.name, pack_linear(linear, dtype));
      statistics.linears.push_back(linear_statistics(info.name, linear, 8 * dtype_bytes(dtype)));
    }
  write_packed(result, checkpoint, packed);
  return statistics;
}
// [compress]

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: %s CHECKPOINT SUFFIX RESULT.safetensors [HESSIANS]\n", argv[0]);
    return 2;
  }
  try {
    std::optional<SafetensorsFile> hessians;
    if (argc == 5) hessians.emplace(argv[4]);
    const Statistics statistics = compress_linears(argv[1], argv[2], hessians, argv[3]);
    std::fputs(totals_text(statistics).c_str(), stdout);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
