#include "pare/backend/reference.hpp"
#include "solve.hpp"

int main() { return solve_one_layer<pare::backend::Reference>(); }
