#define PARE_COMPILES_SOLVERS
#include "eigen_solvers.hpp"

PARE_SOLVERS(, float)
