#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
const ImportanceScorer<5, B, float> scorer({0.25, 0.25, 0.25, 0.25});
#else
const ImportanceScorer<5, B, float> scorer({0.2, 0.2, 0.2, 0.2, 0.2});
#endif
