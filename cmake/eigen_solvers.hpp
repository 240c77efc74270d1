// The solvers that dispatch() chooses from, on the Eigen backend: compiled in eigen_solvers*.cpp,
// and not again in the files of this repository that are compiled with this header in front.
#pragma once

#include "pare/backend/eigen.hpp"
#include "pare/solver/sparsegpt.hpp"

#define PARE_SOLVER(storage, T, ...)                                           \
  storage template class pare::SparseGPTSolver<pare::Compression<__VA_ARGS__>, \
                                               pare::backend::Eigen, T>;

// The solver without a search, of which the one with it is made, comes first.
#define PARE_SOLVER_AND_SEARCH(storage, T, ...) \
  PARE_SOLVER(storage, T, __VA_ARGS__)          \
  PARE_SOLVER(storage, T, __VA_ARGS__, pare::DynamicSearch)

#define PARE_SOLVERS_ROUNDING(storage, T, Pattern)                 \
  PARE_SOLVER_AND_SEARCH(storage, T, Pattern, pare::BaseQuantizer) \
  PARE_SOLVER_AND_SEARCH(storage, T, Pattern, pare::BaseQuantizer, \
                         pare::MixedPrecision<pare::Quantile>)     \
  PARE_SOLVER_AND_SEARCH(storage, T, Pattern, pare::BaseQuantizer, \
                         pare::MixedPrecision<pare::Budget>)

#define PARE_SOLVERS(storage, T)                            \
  PARE_SOLVER_AND_SEARCH(storage, T, pare::Unstructured)    \
  PARE_SOLVER_AND_SEARCH(storage, T, pare::NofM<>)          \
  PARE_SOLVER(storage, T, pare::Dense, pare::DynamicSearch) \
  PARE_SOLVERS_ROUNDING(storage, T, pare::Dense)            \
  PARE_SOLVERS_ROUNDING(storage, T, pare::Unstructured)     \
  PARE_SOLVERS_ROUNDING(storage, T, pare::NofM<>)

#if !defined(PARE_COMPILES_SOLVERS)
PARE_SOLVERS(extern, float)
#if defined(PARE_SOLVERS_OF_DOUBLE)
PARE_SOLVERS(extern, double)
#endif
#endif
