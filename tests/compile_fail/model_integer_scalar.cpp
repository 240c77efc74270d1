#include "pare/backend/reference.hpp"
#include "pare/model/linear.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Scalar = int;
static_assert(!ModelBackend<backend::Reference, Scalar>);
#else
using Scalar = float;
static_assert(ModelBackend<backend::Reference, Scalar>);
#endif
const Linear<backend::Reference, Scalar> linear;  // or LanguageModel, or load_model
