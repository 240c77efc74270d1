// Whether a test is built with the address sanitizer, whose own memory is many times a program's.
#pragma once

namespace test {

#if defined(__SANITIZE_ADDRESS__)  // GCC
inline constexpr bool address_sanitizer = true;
#elif defined(__has_feature)  // Clang
inline constexpr bool address_sanitizer = __has_feature(address_sanitizer);
#else
inline constexpr bool address_sanitizer = false;
#endif

}  // namespace test
