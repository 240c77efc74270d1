#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
struct Corner : PatternOption {
#ifdef PARE_MISUSE
  static index_t together() { return 8; }
#else
  static index_t together(const SolverOptions&) { return 8; }
#endif
  template <class B, class T>
  static void mark(const MaskBlock<T>&, const SolverOptions&, MatrixView<std::uint8_t> mask) {
    mask(0, 0) = 1;
  }
  static std::string fault(MatrixView<const std::uint8_t> mask, std::span<const index_t>,
                           const SolverOptions&) {
    return mask(0, 0) != 0 ? "" : "the corner";
  }
};
using Solver = SparseGPTSolver<Compression<Corner>, backend::Reference, float>;
static_assert(sizeof(Solver) > 0);
