// Patterns of one's own: whole columns, and n:m over inputs in an order of one's own.
#include "pare/backend/eigen.hpp"
#include "solve.hpp"

int main() { return solve_with_own_patterns<pare::backend::Eigen>(); }
