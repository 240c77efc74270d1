// Random numbers for tests and for benchmarks that use what tests make.
#pragma once

#include <cmath>
#include <cstdint>

#include "pare/core/matrix.hpp"

namespace test {

/// A generator of its own (splitmix64), so that data is the same with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  /// Uniform in (0, 1).
  double uniform() { return (double(next() >> 11) + 0.5) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
  }
  pare::index_t below(pare::index_t n) { return pare::index_t(next() % std::uint64_t(n)); }

 private:
  std::uint64_t state_;
};

}  // namespace test
