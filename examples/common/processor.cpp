// Ends a program with one line where the processor lacks instructions that the program was built
// with, instead of letting it die of one (SIGILL) somewhere.
//
// Compiled for any processor, whatever the rest is compiled for, and without the standard library:
// its inline functions may be those of another file. The check precedes every other initialiser.
#include "common/processor.hpp"

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

/// XCR0: which registers the system keeps; 0 where it does not say.
unsigned kept_registers() {
  if ((cpuid(1, 0).ecx >> 27 & 1) == 0) return 0;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

struct Line {
  char text[1024];
  size_t size = 0;
  void add(const char* part) {
    for (; *part != 0 && size < sizeof(text); ++part) text[size++] = *part;
  }
};

__attribute__((constructor(101))) void check_processor() {
  const unsigned kept = kept_registers();
  const unsigned char* built_with = tool_built_with;
  Line line;
  line.add(program_invocation_short_name);
  line.add(": built for another processor: this one lacks ");
  int missing = 0;
#define TOOL_CHECK(macro, name, leaf, subleaf, where, bit, state)            \
  if (*built_with++ != 0 && ((cpuid(leaf, subleaf).where >> bit & 1) == 0 || \
                             (kept & unsigned(state)) != unsigned(state))) { \
    line.add(missing++ == 0 ? "" : ", ");                                    \
    line.add(name);                                                          \
  }
  TOOL_PROCESSOR_FEATURES(TOOL_CHECK)
  if (missing == 0) return;
  line.add("; build it here, or with -DPARE_NATIVE=OFF for any\n");
  [[maybe_unused]] const auto written = write(2, line.text, line.size);
  _exit(1);
}

}  // namespace

#endif
