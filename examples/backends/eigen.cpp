// The tools on the Eigen backend.
#include "pare/backend/eigen.hpp"
#include "backends/on_backend.hpp"

template struct tool::OnBackend<pare::backend::Eigen>;
