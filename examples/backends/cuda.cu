// The tools on one NVIDIA GPU.
#include "backends/on_backend.hpp"
#include "pare/backend/cuda/thrust_cuda.cuh"

template struct tool::OnBackend<pare::backend::Thrust<pare::backend::system::cuda>>;
