#include "pare/backend/xtensor.hpp"
#include "solve.hpp"

int main() { return solve_one_layer<pare::backend::Xtensor>(); }
