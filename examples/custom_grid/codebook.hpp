// A codebook per group as a quantizer of pare.
#pragma once

#include <cmath>

#include "pare/quantization/quantizer.hpp"

// [codebook]
/// 16 values per group, zero among them, that k-means fits to the group's weights (Lloyd's
/// algorithm in one dimension).
struct Codebook : pare::QuantizerOption {
  static constexpr int bits = 4;

  template <class T>
  struct grid {
    T value[16];  // increasing
  };

  template <class T>
  PARE_HOST_DEVICE static grid<T> fit(const T* w, pare::index_t n, int, pare::GridOptions) {
    T low = 0, high = 0;
    for (pare::index_t j = 0; j < n; ++j) {
      low = w[j] < low ? w[j] : low;
      high = w[j] > high ? w[j] : high;
    }
    if (low == high) high = T(1);
    grid<T> g;
    int zero = 0;  // the value that stays zero
    for (int k = 0; k < 16; ++k) {
      g.value[k] = low + (high - low) * T(k) / T(15);
      if (std::abs(g.value[k]) < std::abs(g.value[zero])) zero = k;
    }
    g.value[zero] = 0;
    for (int step = 0; step < 10; ++step) {
      T sum[16] = {};
      int count[16] = {};
      for (pare::index_t j = 0; j < n; ++j) {
        const int k = nearest(w[j], g);
        sum[k] += w[j];
        ++count[k];
      }
      for (int k = 0; k < 16; ++k)
        if (k != zero && count[k] > 0) g.value[k] = sum[k] / T(count[k]);
    }
    return g;
  }

  template <class T>
  PARE_HOST_DEVICE static T round(T x, const grid<T>& g) {
    return g.value[nearest(x, g)];
  }

  template <class T>
  PARE_HOST_DEVICE static bool on_grid(T x, const grid<T>& g) {
    return round(x, g) == x;
  }

  template <class T>
  static constexpr double grid_bits(int) {
    return 16 * 16;  // the values in float16
  }

 private:
  template <class T>
  PARE_HOST_DEVICE static int nearest(T x, const grid<T>& g) {
    int best = 0;
    for (int k = 1; k < 16; ++k)
      if (std::abs(x - g.value[k]) < std::abs(x - g.value[best])) best = k;
    return best;
  }
};
// [codebook]
