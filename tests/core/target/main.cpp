// Calls what was compiled for two processors; compiled for any.
#include <cmath>
#include <cstdio>

#include "pare/core/error.hpp"

double unit_a();
double unit_b();
void unit_a(int);
void unit_b(int);

int main() {
  // One fuses multiplications and additions, the other does not.
  const double a = unit_a(), b = unit_b();
  if (!(a > 0 && std::abs(a - b) <= 1e-3 * a)) {
    std::printf("losses %g and %g\n", a, b);
    return 1;
  }
  int caught = 0;
  for (void (*thrower)(int) :
       {static_cast<void (*)(int)>(unit_a), static_cast<void (*)(int)>(unit_b)})
    try {
      thrower(0);
    } catch (const pare::shape_error&) {
      ++caught;
    }
  if (caught != 2) std::printf("%d of 2 errors caught by type\n", caught);
  return caught == 2 ? 0 : 1;
}
