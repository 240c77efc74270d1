// The tools on the Eigen backend.
#include "backends/on_backend.hpp"
#include "pare/backend/eigen.hpp"

template struct tool::OnBackend<pare::backend::Eigen>;
