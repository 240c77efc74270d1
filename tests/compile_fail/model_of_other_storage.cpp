#include "pare/backend/reference.hpp"
#include "pare/model/linear.hpp"
using namespace pare;
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
  template <class S>
  static constexpr bool stores = supports<S>;
};
#ifdef PARE_MISUSE
using Stored = float16;
static_assert(!ModelBackend<B, Stored>);
#else
using Stored = float;
static_assert(ModelBackend<B, Stored>);
#endif
const Linear<B, Stored> linear;  // or LanguageModel<B, Stored>, load_model<B, Stored>(folder)
