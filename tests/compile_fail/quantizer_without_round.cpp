#include "pare/solver/compression.hpp"
using namespace pare;
struct Sign : QuantizerOption {
  static constexpr int bits = 2;
  template <class T>
  struct grid {
    T scale;
  };
  template <class T>
  PARE_HOST_DEVICE static grid<T> fit(const T* w, index_t n, int, GridOptions) {
    return {n > 0 ? w[0] : T(1)};
  }
#ifdef PARE_MISUSE
#else
  template <class T>
  PARE_HOST_DEVICE static T round(T x, const grid<T>& g) {
    return x < T(0) ? -g.scale : g.scale;
  }
#endif
  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>& g) {
    return round(x, g) == x;
  }
  template <class T>
  static constexpr double grid_bits(int) {
    return 16;
  }
};
static_assert(sizeof(Compression<Dense, Sign>) > 0);
