// Compiled as the rest of a program is: what it was built with. See processor.cpp.
#include "common/processor.hpp"

#define TOOL_BUILT_WITH(macro, name, leaf, subleaf, where, bit, state) PARE_BIT(macro),
extern "C" constexpr unsigned char tool_built_with[] = {TOOL_PROCESSOR_FEATURES(TOOL_BUILT_WITH)};
