// The tools on the xtensor backend.
#include "backends/on_backend.hpp"
#include "pare/backend/xtensor.hpp"

template struct tool::OnBackend<pare::backend::Xtensor>;
