#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
const ImportanceScorer<5, B, float> scorer(std::array{0.5, 0.5});
#else
const ImportanceScorer<5, B, float> scorer(std::array{0.2, 0.2, 0.2, 0.2, 0.2});
#endif
