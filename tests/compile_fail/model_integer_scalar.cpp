#include "pare/backend/reference.hpp"
#include "pare/model/opt.hpp"
using namespace pare;
#ifdef PARE_MISUSE
using Scalar = int;
static_assert(!ModelBackend<backend::Reference, Scalar>);
#else
using Scalar = float;
static_assert(ModelBackend<backend::Reference, Scalar>);
#endif
const auto model = load_opt<backend::Reference, Scalar>("folder");
