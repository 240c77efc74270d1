// The tools on Thrust and OpenMP.
#include "backends/on_backend.hpp"
#include "pare/backend/thrust.hpp"

template struct tool::OnBackend<pare::backend::Thrust<pare::backend::system::omp>>;
