// A uniform quantization grid: plain data and rounding.
#pragma once

#include <cmath>
#include <type_traits>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// The values scale * (code - zero) for code = 0 .. top, top = 2^bits - 1.
template <class T>
struct Grid {
  /// Distance of neighbouring values.
  T scale;
  /// Code of the value 0.
  T zero;
  /// Largest code, 2^bits - 1.
  T top;
};

/// Round half to even, as a single instruction where the target has one.
PARE_HOST_DEVICE PARE_INLINE float round_even(float x) { return rintf(x); }
/// The same in double.
PARE_HOST_DEVICE PARE_INLINE double round_even(double x) { return rint(x); }

/// The value of the grid nearest to w.
template <class T>
PARE_HOST_DEVICE PARE_INLINE T round_to_grid(T w, T scale, T zero, T top) {
  // Both bounds compare the rounded code itself: chained selects keep GCC from vectorising.
  const T code = round_even(w / scale) + zero;
  const T low = code < T(0) ? T(0) : code;
  const T clamped = code > top ? top : low;
  return scale * (clamped - zero);
}

/// Grids of a linear: entry (g, i) belongs to row i and the columns of grid g of a GridMap.
template <class T>
struct GridView {
  MatrixView<T> scale;  // (grids, out)
  MatrixView<T> zero;   // (grids, out)
  MatrixView<T> top;    // (grids, out)

  /// Rounds one weight of each of `Lanes` neighbouring rows to grid g.
  template <int Lanes>
  PARE_HOST_DEVICE PARE_INLINE void round(std::remove_const_t<T> (&kept)[Lanes], index_t g,
                                          index_t row) const {
    const T* PARE_RESTRICT s = scale.row(g) + row;
    const T* PARE_RESTRICT z = zero.row(g) + row;
    const T* PARE_RESTRICT t = top.row(g) + row;
    for (int l = 0; l < Lanes; ++l) kept[l] = round_to_grid(kept[l], s[l], z[l], t[l]);
  }
};

/// Significant bits of a float16.
inline constexpr int half_scale_digits = 11;

/// How a grid is fitted to weights.
struct GridOptions {
  bool symmetric = false;    ///< scale = 2 max|w| / (2^b - 1), zero = 2^(b-1)
  bool clip_search = false;  ///< try 80 narrower ranges, keep the one with the least |error|^2.4
  bool half_scale = false;   ///< scales rounded to float16, which is what a packed file holds
  /// Significant bits of such scales at most, 1..11; rounded up where that is fewer than float16 has.
  int scale_digits = half_scale_digits;

  /// Whether grids are fitted alike.
  friend constexpr bool operator==(const GridOptions&, const GridOptions&) = default;
};

}  // namespace pare
