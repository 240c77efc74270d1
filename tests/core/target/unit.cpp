// Compiled for two processors, as unit_a and unit_b.
#include "pare/backend/reference.hpp"
#include "pare/pare.hpp"

using namespace pare;

namespace {

using B = backend::Reference;
using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;

Matrix<float> filled(index_t rows, index_t cols, unsigned seed) {
  Matrix<float> m(rows, cols);
  for (index_t i = 0; i < m.size(); ++i) {
    seed = seed * 1664525u + 1013904223u;
    m.data()[i] = float(seed >> 8) * 0x1p-23f - 1;
  }
  return m;
}

}  // namespace

/// The loss of a linear solved here.
double PARE_UNIT() {
  const Matrix<float> W = filled(24, 40, 1), X = filled(200, 40, 2);
  Calibration<B, float> calibration(40);
  calibration.add(X.view());
  SparseGPTSolver<Config, B, float> solver(
      {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0});
  return solver.solve(W.view(), calibration).loss;
}

/// Throws pare::shape_error.
void PARE_UNIT(int) { Calibration<B, float>(40).add(filled(3, 4, 3).view()); }
