// The tools on Thrust and OpenMP.
#include "pare/backend/thrust.hpp"
#include "backends/on_backend.hpp"

template struct tool::OnBackend<pare::backend::Thrust<pare::backend::system::omp>>;
