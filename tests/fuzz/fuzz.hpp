// What the fuzz targets share: which exceptions are a reader's answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "../files.hpp"
#include "pare/core/error.hpp"

namespace fuzz {

/// Runs `f` on the input. A typed error is a good answer; any other exception ends the run.
template <class F>
int check(const std::uint8_t* data, std::size_t size, F&& f) {
  try {
    f(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const pare::error&) {
  }
  return 0;
}

}  // namespace fuzz
