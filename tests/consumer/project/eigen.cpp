#include "pare/backend/eigen.hpp"
#include "solve.hpp"

int main() { return solve_one_layer<pare::backend::Eigen>(); }
