// What the fuzz targets share: which exceptions are a reader's answer, and how much it may allocate
// for it. A target is one source with LLVMFuzzerTestOneInput; it is linked with allocations.cpp,
// and with libFuzzer or with replay.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "../files.hpp"
#include "pare/core/error.hpp"

namespace fuzz {

/// What an input justifies: no single allocation of more than this, and four times as much held.
struct Bound {
  std::size_t per_byte = 64;                ///< bytes for a byte of input
  std::size_t free = std::size_t{1} << 20;  ///< bytes for no input
};

/// What operator new gave out while an input was read. Beyond a limit it ends the program.
struct Allocations {
  bool limited = false;
  std::size_t limit = 0;              ///< of a single one
  std::size_t largest = 0;            ///< single one
  std::ptrdiff_t held = 0, most = 0;  ///< at a time
};
inline thread_local constinit Allocations allocations;

/// Runs `f` on the input. A typed error is a good answer; any other exception ends the run, as does
/// an allocation that the input does not justify.
template <class F>
int check(const std::uint8_t* data, std::size_t size, F&& f, Bound bound = {}) {
  allocations = {true, bound.per_byte * size + bound.free};
  try {
    f(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const pare::error&) {
  }
  allocations.limited = false;
  return 0;
}

}  // namespace fuzz
