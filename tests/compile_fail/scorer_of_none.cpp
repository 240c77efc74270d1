#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Scorer = ImportanceScorer<0, B, float>;
#else
using Scorer = ImportanceScorer<1, B, float>;
#endif
static_assert(sizeof(Scorer) > 0);
