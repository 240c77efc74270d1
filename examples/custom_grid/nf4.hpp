// NF4 as a quantizer of pare.
#pragma once

#include <cmath>

#include "pare/quantization/quantizer.hpp"

// [nf4]
/// The 16 values of NF4, which a normal distribution takes equally often, times a scale per group
/// (Dettmers et al. 2023, QLoRA, section 3 and appendix E).
struct Nf4 : pare::QuantizerOption {
  static constexpr int bits = 4;  // codes have no other width

  template <class T>
  struct grid {
    T scale;  // largest |w| of the group
  };

  template <class T>
  PARE_HOST_DEVICE static grid<T> fit(const T* w, pare::index_t n, int, pare::GridOptions) {
    T largest = 0;
    for (pare::index_t j = 0; j < n; ++j) {
      const T size = w[j] < 0 ? -w[j] : w[j];
      largest = size > largest ? size : largest;
    }
    return {largest > 0 ? largest : T(1)};
  }

  template <class T>
  PARE_HOST_DEVICE static T round(T x, const grid<T>& g) {
    // Value of code k, increasing; code 7 is zero.
    constexpr double values[16] = {-1.0,
                                   -0.6961928009986877,
                                   -0.5250730514526367,
                                   -0.39491748809814453,
                                   -0.28444138169288635,
                                   -0.18477343022823334,
                                   -0.09105003625154495,
                                   0.0,
                                   0.07958029955625534,
                                   0.16093020141124725,
                                   0.24611230194568634,
                                   0.33791524171829224,
                                   0.44070982933044434,
                                   0.5626170039176941,
                                   0.7229568362236023,
                                   1.0};
    int best = 0;
    for (int k = 1; k < 16; ++k)
      if (x > g.scale * T(0.5 * (values[k - 1] + values[k]))) best = k;
    return g.scale * T(values[best]);
  }

  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>& g) {
    return round(x, g) == x;
  }

  template <class T>
  static constexpr double grid_bits(int) {
    return 16;  // the scale in float16
  }
};
// [nf4]
