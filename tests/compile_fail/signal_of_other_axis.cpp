#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Stability = input_signal::Stability;
static_assert(!Signal<Stability, B, float, ChannelAxis::output>);
#else
using Stability = output_signal::Stability;
static_assert(Signal<Stability, B, float, ChannelAxis::output>);
#endif
const ImportanceScorer<1, B, float> scorer({1.0}, Stability{});
