#include "pare/backend/reference.hpp"
#include "pare/model/linear.hpp"
using namespace pare;
#ifdef PARE_MISUSE
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
  template <class T>
  static void add(MatrixView<T>, MatrixView<const T>) = delete;
};
static_assert(Backend<B, float> && !ModelBackend<B, float>);
#else
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
};
static_assert(Backend<B, float> && ModelBackend<B, float>);
#endif
const Linear<B, float> linear;  // or LanguageModel<B, float>
