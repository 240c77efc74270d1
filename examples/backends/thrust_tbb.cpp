// The tools on Thrust and TBB.
#include "backends/on_backend.hpp"
#include "pare/backend/thrust_tbb.hpp"

template struct tool::OnBackend<pare::backend::Thrust<pare::backend::system::tbb>>;
