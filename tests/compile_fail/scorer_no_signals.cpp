#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
using namespace output_signal;
#ifdef PARE_MISUSE
const ImportanceScorer<3, B, float> scorer({0.5, 0.3, 0.2});
#else
const ImportanceScorer<3, B, float> scorer({0.5, 0.3, 0.2}, Weight{}, Hessian{}, Stability{});
#endif
