#include "pare/backend/reference.hpp"
#include "pare/calibration/calibration.hpp"
using namespace pare;
#ifdef PARE_MISUSE
struct B : backend::HostMemory {
  static constexpr std::string_view name = "mine";
  template <class T>
  static constexpr bool supports = true;
};
static_assert(!Backend<B, float>);
#else
struct B : backend::Reference {
  static constexpr std::string_view name = "mine";
  template <class T>
  static constexpr bool supports = true;
};
static_assert(Backend<B, float>);
#endif
const Calibration<B, float> calibration(8);
