#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
#ifdef PARE_MISUSE
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
  template <class Sweep>
  static void row_sweep(const Sweep&) = delete;
};
static_assert(!Backend<B, float>);
#else
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
  template <class Sweep>
  static void row_sweep(const Sweep& sweep) {
    for (index_t i = 0; i < sweep.weights.rows; ++i) sweep(i);
  }
};
static_assert(Backend<B, float>);
#endif
const SparseGPTSolver<Compression<Unstructured>, B, float> solver({.sparsity = 0.5});
