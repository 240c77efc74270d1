#include "pare/adapters/eigen.hpp"
using namespace pare;
using Weights = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
auto read(const Weights& A, const Weights& B) {
#ifdef PARE_MISUSE
  return view(A + B);
#else
  return row_major_copy(A + B);
#endif
}
