#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
struct MySignal {
  static constexpr ChannelAxis axis = ChannelAxis::output;
  std::vector<float> operator()(const ScoringInput<B, float>& in) const {
    return std::vector<float>(std::size_t(in.weights.rows), 1.0f);
  }
};
static_assert(!Signal<MySignal, B, float, ChannelAxis::output>);
#else
struct MySignal {
  static constexpr ChannelAxis axis = ChannelAxis::output;
  std::vector<double> operator()(const ScoringInput<B, float>& in) const {
    return std::vector<double>(std::size_t(in.weights.rows), 1.0);
  }
};
static_assert(Signal<MySignal, B, float, ChannelAxis::output>);
#endif
const ImportanceScorer<1, B, float> scorer({1.0}, MySignal{});
