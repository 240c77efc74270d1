// g++ compiles this: Thrust on the threads of OpenMP.
#include "pare/backend/thrust.hpp"
#include "solve.hpp"

int main() { return solve_one<pare::backend::Thrust<pare::backend::system::omp>>(); }
