#include "pare/backend/reference.hpp"
#include "pare/kernels/reduction.hpp"
using namespace pare;
using B = backend::Reference;
struct RowSum {
  MatrixView<const float> A;
  MatrixView<double> sums;  // (rows, 1)
#ifdef PARE_MISUSE
  using sum_type = kernels::Sums<double, 1>;
#else
  using partial = kernels::Sums<double, 1>;
#endif
  index_t columns() const { return A.cols; }
  void add(index_t i, index_t j, kernels::Sums<double, 1>& sum) const { sum[0] += double(A(i, j)); }
  void finish(index_t i, const kernels::Sums<double, 1>& sum) const { sums(i, 0) = sum[0]; }
};
inline void use(RowSum sum) { B::reduce_rows(sum.A.rows, sum); }
