// The tools on the xtensor backend.
#include "pare/backend/xtensor.hpp"
#include "backends/on_backend.hpp"

template struct tool::OnBackend<pare::backend::Xtensor>;
