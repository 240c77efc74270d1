#include "pare/backend/reference.hpp"
#include "pare/solver/sparsegpt.hpp"
using namespace pare;
struct Alike : ObjectiveOption {
#ifdef PARE_MISUSE
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input) const {
    return std::vector<double>(std::size_t(input.weights.rows), 1.0);
  }
#else
  template <class B, class T>
  std::vector<double> operator()(const ScoringInput<B, T>& input, ChannelAxis axis) const {
    const index_t channels = axis == ChannelAxis::output ? input.weights.rows : input.weights.cols;
    return std::vector<double>(std::size_t(channels), 1.0);
  }
#endif
};
using Config = Compression<Dense, BaseQuantizer, MixedPrecision<Budget, Alike>>;
static_assert(sizeof(SparseGPTSolver<Config, backend::Reference, float>) > 0);
