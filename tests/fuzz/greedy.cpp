// No reader: allocates more than its input justifies, to see that it is caught.
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view input) {
    const std::string whole(64 * input.size() + (std::size_t{1} << 20) + 1, ' ');
    if (whole.find(input) != 0) std::puts("an input that is not spaces");
  });
}
