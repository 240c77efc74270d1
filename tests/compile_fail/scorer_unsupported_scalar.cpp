#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using B = backend::Reference;
#ifdef PARE_MISUSE
using Scorer = ImportanceScorer<5, B, long double>;
#else
using Scorer = ImportanceScorer<5, B, double>;
#endif
static_assert(sizeof(Scorer) > 0);
