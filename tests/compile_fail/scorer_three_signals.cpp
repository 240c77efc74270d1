#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
using namespace output_signal;
#ifdef PARE_MISUSE
const ImportanceScorer<2, B, float> scorer({0.5, 0.5}, Weight{}, Hessian{}, Stability{});
#else
const ImportanceScorer<2, B, float> scorer({0.5, 0.5}, Weight{}, Hessian{});
#endif
