#include "pare/backend/reference.hpp"
#include "pare/kernels/reduction.hpp"
using namespace pare;
using B = backend::Reference;
struct RowSum {
  MatrixView<const float> A;
  MatrixView<double> sums;  // (rows, 1)
#ifdef PARE_MISUSE
  using partial = std::vector<double>;
#else
  using partial = kernels::Sums<double, 1>;
#endif
  index_t columns() const { return A.cols; }
  void add(index_t i, index_t j, partial& sum) const { sum[0] += double(A(i, j)); }
  void finish(index_t i, const partial& sum) const { sums(i, 0) = sum[0]; }
};
inline void use(RowSum sum) { B::reduce_rows(sum.A.rows, sum); }
