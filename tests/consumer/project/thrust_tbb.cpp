#include "pare/backend/thrust_tbb.hpp"
#include "solve.hpp"

int main() { return solve_one_layer<pare::backend::Thrust<pare::backend::system::tbb>>(); }
