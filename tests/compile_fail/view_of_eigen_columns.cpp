#include "pare/adapters/eigen.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Weights = Eigen::MatrixXf;
#else
using Weights = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#endif
MatrixView<const float> read(const Weights& W) { return view(W); }
