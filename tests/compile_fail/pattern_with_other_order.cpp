#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
struct Corner : PatternOption {
#ifdef PARE_MISUSE
  static std::vector<int> visit_order(const std::vector<double>& diagonal, const SolverOptions&) {
    return std::vector<int>(diagonal.size());
  }
#else
  static std::vector<index_t> visit_order(const std::vector<double>& diagonal,
                                          const SolverOptions&) {
    std::vector<index_t> order(diagonal.size());
    for (std::size_t k = 0; k < order.size(); ++k) order[k] = index_t(k);
    return order;
  }
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
