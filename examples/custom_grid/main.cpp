// Quantizers of one's own: NF4, whose values are fixed up to a scale, and a codebook per group that
// k-means fits. Both round 4-bit codes in groups of 64 inputs.
#include "pare/backend/eigen.hpp"
#include "solve.hpp"

int main() { return solve_with_own_grids<pare::backend::Eigen>(); }
