#include "pare/backend/reference.hpp"
#include "pare/importance/scorer.hpp"
using namespace pare;
using Scorer = ImportanceScorer<5, backend::Reference, float>;
#ifdef PARE_MISUSE
inline const Scorer scorer = Scorer::with<5>(output_signal::Weight{});
#else
inline const Scorer scorer = Scorer::with<4>(output_signal::Weight{});
#endif
