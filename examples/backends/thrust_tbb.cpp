// The tools on Thrust and TBB.
#include "pare/backend/thrust_tbb.hpp"
#include "backends/on_backend.hpp"

template struct tool::OnBackend<pare::backend::Thrust<pare::backend::system::tbb>>;
