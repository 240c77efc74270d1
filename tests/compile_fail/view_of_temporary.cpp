#include <vector>
#include "pare/adapters/std.hpp"
using namespace pare;
std::vector<float> read_numbers();
void use(MatrixView<const float> A);
void read() {
#ifdef PARE_MISUSE
  use(view(read_numbers(), 32, 64));
#else
  const std::vector<float> numbers = read_numbers();
  use(view(numbers, 32, 64));
#endif
}
